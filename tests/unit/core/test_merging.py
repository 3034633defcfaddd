"""Which value is kept when two leads become one, over all values and policies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.audience import MAX_TAGS, MERGE_FIELDS, MergePolicy, merged_values, read_policy
from nexus_marketing.core.errors import ValidationError

pytestmark = pytest.mark.req("FR-P2-009")

TEXTS = st.none() | st.sampled_from(["", "a", "b"])
LEADS = st.fixed_dictionaries(
    dict.fromkeys(("email", "email_norm", "external_id", "phone", "name", "first_name", "last_name", "country"), TEXTS)
    | {
        "owner_id": st.none() | st.integers(1, 3),
        "score": st.floats(-1e6, 1e6),
        "tags": st.lists(st.text(min_size=1, max_size=2), unique=True, max_size=MAX_TAGS),
        "metadata": st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3)),
    }
)
WORDS = [MergePolicy.KEEP, MergePolicy.FILL, MergePolicy.TAKE]
POLICIES = st.dictionaries(st.sampled_from(MERGE_FIELDS), st.sampled_from(WORDS))


@given(LEADS, LEADS, POLICIES)
def test_a_value_comes_from_one_of_the_two_and_none_is_lost_for_nothing(winner, loser, policy):
    merged = merged_values(winner, loser, policy)
    for name in ("email", "external_id", "phone", "name", "country", "owner_id"):
        own, other, kept = winner[name], loser[name], merged[name]
        assert kept in (own, other)
        if own not in (None, ""):
            assert kept == own or policy.get(name) is MergePolicy.TAKE
        elif policy.get(name) is not MergePolicy.KEEP and other not in (None, ""):
            assert kept == other


@given(LEADS, LEADS, POLICIES)
def test_the_parts_of_a_value_go_together(winner, loser, policy):
    merged = merged_values(winner, loser, policy)
    for parts in (("email", "email_norm"), ("name", "first_name", "last_name")):
        together = [merged[part] for part in parts]
        assert together in ([winner[part] for part in parts], [loser[part] for part in parts])


@given(LEADS, LEADS)
def test_tags_and_metadata_are_united_within_bounds(winner, loser):
    merged = merged_values(winner, loser, {})
    union = {*winner["tags"], *loser["tags"]}
    assert {*merged["tags"]} == union if len(union) <= MAX_TAGS else len(merged["tags"]) == MAX_TAGS
    assert merged["tags"][: len(winner["tags"])] == winner["tags"]
    assert merged["metadata"] == {**loser["metadata"], **winner["metadata"]}


@given(LEADS)
def test_keeping_everything_changes_nothing(winner):
    other = {"name": "x", "tags": ["x"], "metadata": {"q": 1}, "score": 9.0, "owner_id": 9}
    merged = merged_values(winner, other, dict.fromkeys(MERGE_FIELDS, MergePolicy.KEEP))
    assert {name: merged[name] for name in winner} == winner


@pytest.mark.parametrize(("word", "score"), [("keep", 3), ("fill", 3), ("take", 5), ("max", 5), ("sum", 8)])
def test_scores_are_chosen_or_added(word, score):
    assert merged_values({"score": 3.0}, {"score": 5.0}, read_policy({"score": word}))["score"] == score


def test_numbers_policies_are_for_the_score_only():
    with pytest.raises(ValidationError, match="use keep, fill, take"):
        read_policy({"tags": "sum"})
    assert read_policy({})["score"] is MergePolicy.MAX
