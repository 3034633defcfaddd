"""How a row meets a lead: every policy, and what holds whatever the values are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.audience import ColumnPolicy, ImportOptions, ObjectReader, Rules, match_header
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import ValidationError

pytestmark = pytest.mark.req("FR-P2-009", "US-012")

DECLARED = {"seats": FieldType.NUMBER, "since": FieldType.DATE, "likes": FieldType.LIST}
TARGETS = ("email", "name", "country", "tags", "score", "metadata.seats", "metadata.since", "metadata.likes")
TEXTS = st.one_of(st.none(), st.sampled_from(["Ann", "Ann Lee", "Bob van Lee"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS,
    "country": st.sampled_from([None, "DE", "FR"]),
    "tags": st.lists(st.sampled_from("abc"), unique=True),
    "score": st.integers(-3, 3).map(float),
}
KEYS: dict[str, st.SearchStrategy[Any]] = {
    "seats": st.integers(-3, 3),
    "since": st.sampled_from(["2024-01-01", "2025-06-30"]),
    "likes": st.lists(st.sampled_from("xyz"), unique=True),
}


def rules(existing: str = "overwrite", **policies: str) -> Rules:
    named = {name.replace("__", "."): policy for name, policy in policies.items()}
    return Rules(TARGETS, ImportOptions.read({"existing": existing, "policies": named}), DECLARED)


@pytest.mark.parametrize(
    ("policy", "old", "new", "left"),
    [
        ("keep_existing", None, "DE", None),
        ("fill_empty", None, "DE", "DE"),
        ("fill_empty", "FR", "DE", "FR"),
        ("overwrite", "FR", "DE", "DE"),
        ("overwrite", "FR", None, None),
        ("fill_empty", "FR", None, "FR"),
    ],
)
def test_what_is_left_of_a_field(policy: str, old: Any, new: Any, left: Any) -> None:
    lead = {"country": old}
    assert lead | rules(country=policy).merge(lead, {"country": new}) == {"country": left}


@pytest.mark.parametrize(
    ("field", "policy", "old", "new", "left"),
    [
        ("seats", "min", 5, 3, 3),
        ("seats", "max", 5, 3, 5),
        ("seats", "max", None, 3, 3),
        ("since", "min", "2025-01-01", "2024-12-31", "2024-12-31"),
        ("since", "max", "not a date", 3, 3),
        ("likes", "append_unique", ["a"], ["b", "a"], ["a", "b"]),
        ("likes", "append_unique", None, ["b"], ["b"]),
    ],
)
def test_what_is_left_of_a_field_of_metadata(field: str, policy: str, old: Any, new: Any, left: Any) -> None:
    decide = rules(**{f"metadata__{field}": policy})
    old_metadata = {"other": 1} | ({} if old is None else {field: old})
    lead: dict[str, Any] = {"metadata": old_metadata}
    assert lead | decide.merge(lead, {"metadata": {field: new}}) == {"metadata": {"other": 1, field: left}}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.sets(st.sampled_from(sorted(VALUES))))
    found = {name: draw(VALUES[name]) for name in sorted(names)}
    keys = draw(st.sets(st.sampled_from(sorted(KEYS))))
    return found | {"metadata": {key: draw(KEYS[key]) for key in sorted(keys)}}


@st.composite
def policies(draw: st.DrawFn) -> Rules:
    plain = [ColumnPolicy.KEEP_EXISTING, ColumnPolicy.FILL_EMPTY, ColumnPolicy.OVERWRITE]
    lists, numbers = [*plain, ColumnPolicy.APPEND_UNIQUE], [*plain, ColumnPolicy.MIN, ColumnPolicy.MAX]
    allowed = {"name": plain, "country": plain, "tags": lists, "score": numbers}
    allowed |= {"metadata.seats": numbers, "metadata.since": numbers, "metadata.likes": lists}
    chosen = {name: str(draw(st.sampled_from(each))) for name, each in allowed.items()}
    return Rules(TARGETS, ImportOptions.read({"policies": chosen}), DECLARED)


@given(policies(), documents(), documents())
def test_the_same_row_again_changes_nothing(decide: Rules, lead: dict[str, Any], row: dict[str, Any]) -> None:
    once = lead | decide.merge(lead, row)
    assert decide.merge(once, row) == {}


@given(policies(), documents(), documents())
def test_only_what_the_row_says_is_touched(decide: Rules, lead: dict[str, Any], row: dict[str, Any]) -> None:
    before = {name: list(value) if isinstance(value, list) else value for name, value in lead.items()}
    changes = decide.merge(lead, row)
    names = {"name", "first_name", "last_name"}
    assert changes.keys() <= row.keys() | (names if "name" in row else set())
    untouched = {key: value for key, value in lead["metadata"].items() if key not in row["metadata"]}
    after: Any = (lead | changes)["metadata"]
    assert {key: after[key] for key in untouched} == untouched
    assert lead == before  # what is decided is not done yet


@given(documents(), documents())
def test_keep_existing_changes_no_lead_and_still_makes_new_ones(lead: dict[str, Any], row: dict[str, Any]) -> None:
    assert rules("keep_existing").merge(lead, row) == {}
    made = rules("keep_existing").new(row)
    assert {name: value for name, value in row.items() if value is not None}.items() <= made.items()


def test_another_spelling_of_an_address_is_no_change() -> None:
    lead = {"email": "Ann@example.org", "email_norm": "ann@example.org"}
    assert rules().merge(lead, {"email": "ann@Example.org", "email_norm": "ann@example.org"}) == {}
    moved = rules().merge(lead, {"email": "Bob@example.org", "email_norm": "bob@example.org"})
    assert moved == {"email": "Bob@example.org", "email_norm": "bob@example.org"}


@pytest.mark.parametrize(
    ("document", "path", "code"),
    [
        ({"existing": "max"}, "existing", "not_allowed"),
        ({"policies": {"name": "append_unique"}}, "policies.name", "not_allowed"),
        ({"policies": {"country": "min"}}, "policies.country", "not_allowed"),
        ({"policies": {"nmae": "overwrite"}}, "policies.nmae", "unknown_field"),
        ({"policies": {"consent": "overwrite"}}, "policies.consent", "not_allowed"),
        ({"policies": {"ignore": "overwrite"}}, "policies.ignore", "unknown_field"),
        ({"mapping": {"A": "metadata."}}, "mapping.A", "unknown_field"),
        ({"mapping": {"A": "metadata.a.b"}}, "mapping.A", "unknown_field"),
        ({"mapping": {"A": "version"}}, "mapping.A", "unknown_field"),
        ({"region": "ZZ"}, "region", "not_a_country"),
        ({"nulltext": "x"}, "nulltext", "unknown_field"),
        ({"null_text": 5}, "null_text", "wrong_type"),
    ],
)
def test_options_that_mean_nothing_are_named(document: dict[str, Any], path: str, code: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ImportOptions.read(document)
    assert [(problem.path, problem.code) for problem in refused.value.problems] == [(path, code)]


def test_options_survive_being_kept() -> None:
    options = ImportOptions.read({"mapping": {"A": "name"}, "policies": {"score": "max"}, "region": "de"})
    assert ImportOptions.read(options.document()) == options


@pytest.mark.parametrize("kind", [None, FieldType.TEXT, FieldType.BOOLEAN])
def test_a_policy_of_an_own_field_fits_its_type(kind: FieldType | None) -> None:
    options = ImportOptions.read({"policies": {"metadata.x": "max"}})
    with pytest.raises(ValidationError, match=r"declare metadata\.x"):
        Rules(("metadata.x",), options, {} if kind is None else {"x": kind})


def test_columns_are_mapped_ignored_and_missed() -> None:
    options = ImportOptions.read(
        {"mapping": {"Kunde": "external_id", "Notes": "ignore"}, "policies": {"name": "ignore"}}
    )
    columns = match_header(["Kunde", "Notes", "Name", "Plan"], options)
    assert [(column.index, column.target) for column in columns] == [(0, "external_id"), (3, "metadata.plan")]
    with pytest.raises(ValidationError) as refused:
        match_header(["Kunden", "Notes"], options)
    assert [problem.path for problem in refused.value.problems] == ["mapping.Kunde", "header"]


class TestObjects:
    def read(self, document: Any, **options: Any) -> dict[str, Any]:
        return ObjectReader(lambda text: text, ImportOptions.read(options)).read(document)

    def test_keys_are_fields_by_name_or_by_mapping(self) -> None:
        values = self.read({"E-Mail": "A@example.org", "kd": "7", "planType": 1}, mapping={"kd": "external_id"})
        assert values == {
            "email": "A@example.org",
            "email_norm": "a@example.org",
            "external_id": "7",
            "metadata": {"planType": 1},
        }

    @pytest.mark.parametrize(
        ("document", "path", "code"),
        [
            ({"email": 7}, "email", "not_text"),
            ({"email": "a@example.org", "E-Mail": "b@example.org"}, "email", "duplicate_key"),
            ({"email": "a@example.org", "score": True}, "score", "not_a_number"),
            ({"email": "a@example.org", "score": "3"}, "score", "not_a_number"),
            ({"email": "a@example.org", "tags": "vip"}, "tags", "not_a_list"),
            ({"email": "a@example.org", "metadata": [1]}, "metadata", "not_an_object"),
            ({"email": "a@example.org", "consent": "maybe"}, "consent", "not_a_consent"),
            ({"email": "a@example.org", "consent": True, "consent_source": 5}, "consent_source", "not_text"),
            ({"email": None, "external_id": None}, "email", "required"),
        ],
    )
    def test_values_of_the_wrong_kind_are_named(self, document: Any, path: str, code: str) -> None:
        with pytest.raises(ValidationError) as refused:
            self.read(document)
        assert (refused.value.problems[0].path, refused.value.problems[0].code) == (path, code)

    def test_null_clears_and_blank_says_nothing(self) -> None:
        values = self.read({"external_id": "7", "name": None, "country": " ", "tags": None, "plan": None})
        assert values == {"external_id": "7", "name": None, "tags": [], "metadata": {"plan": None}}

    def test_policies_of_ignored_fields_leave_them_out(self) -> None:
        document = {"email": "a@example.org", "name": "A", "metadata": {"plan": 1, "x": 2}}
        values = self.read(document, policies={"name": "ignore", "metadata.plan": "ignore"})
        assert values == {"email": "a@example.org", "email_norm": "a@example.org", "metadata": {"x": 2}}
