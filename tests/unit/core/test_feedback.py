"""Ledger rows only go on, whatever order events come in; and what stops a send."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.contracts import ProviderEventKind
from nexus_marketing.core.deliveries import DeliveryState, read_message_id, soft_bounces_in_row, state_after
from nexus_marketing.core.pacing.feedback import Feedback, alarm_of, sample_needed

pytestmark = pytest.mark.req("BR-012", "US-018")

K = ProviderEventKind


def ended(state: str, kinds) -> str:
    for kind in kinds:
        state = state_after(state, kind) or state
    return state


@given(st.lists(st.sampled_from(list(K)), max_size=5), st.sampled_from(list(DeliveryState)))
def test_the_order_of_events_makes_no_difference(kinds, state):
    assert len({ended(state, order) for order in permutations(kinds)}) == 1


@pytest.mark.parametrize("state", ["planned", "skipped", "failed"])
def test_what_was_not_taken_stays_what_it_is(state):
    assert all(state_after(state, kind) is None for kind in K)


def test_a_complaint_counts_over_a_delivery_and_a_delivery_undoes_no_bounce():
    assert ended("accepted", [K.DELIVERED, K.COMPLAINED]) == "complained"
    assert ended("accepted", [K.BOUNCED_HARD, K.DELIVERED]) == "bounced_hard"
    assert ended("unknown", [K.DELIVERED]) == "delivered"
    assert ended("accepted", [K.DEFERRED, K.UNSUBSCRIBED, K.INBOUND_MESSAGE]) == "accepted"


@pytest.mark.parametrize(
    "text", ["<r7.s3.t1@example.com>", "r7.s3.t1@example.com", "r7.s3.t1", "bounce-r7.s3.t1@b.org", " r7.s3.t1 "]
)
def test_our_messages_are_known_again(text):
    assert read_message_id(text) == (1, 3, 7)


@pytest.mark.parametrize(
    "text",
    ["", "<x@example.com>", "xr7.s3.t1@a", "r7.s3.t1x", "r٧.s3.t1", "r7.s3", f"r{'9' * 30}.s3.t1", "r7.s3.t1@a b"],
)
def test_others_are_not(text):
    assert read_message_id(text) is None


def test_soft_bounces_count_by_sends_and_only_in_a_row():
    soft, good = "bounced_soft", "delivered"
    assert soft_bounces_in_row([(3, soft), (2, soft), (2, soft), (1, good), (0, soft)]) == 2
    assert soft_bounces_in_row([(3, good), (2, soft)]) == 0
    assert soft_bounces_in_row([]) == 0


@pytest.mark.parametrize(
    ("feedback", "reason", "must_pause"),
    [
        ((499, 0, 499), "too_many_bounces", None),
        ((500, 0, 1), "too_many_complaints", False),
        ((1001, 0, 1), "", None),
        ((1000, 0, 2), "too_many_complaints", False),
        ((1000, 0, 3), "too_many_complaints", True),
        ((199, 199, 0), "", None),
        ((200, 10, 0), "too_many_bounces", True),
        ((200, 9, 0), "", None),
    ],
)
def test_ratios_with_a_minimum_sample(feedback, reason, must_pause):
    alarm = alarm_of(Feedback(*feedback))
    if must_pause is None:
        assert alarm is None
    else:
        assert alarm is not None
        assert (alarm.reason.partition(":")[0], alarm.must_pause) == (reason, must_pause)


@given(st.integers(0, 50), st.integers(0, 50))
def test_beyond_the_sample_nothing_is_wrong(bounced, complained):
    assert alarm_of(Feedback(sample_needed(bounced, complained), bounced, complained)) is None
