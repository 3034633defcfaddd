"""What an outcome means for the ledger."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState, HoldReason
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.delivery.outcomes import RetryPolicy, settlement, unknown, withheld
from nexus_marketing.delivery.pace import MAX_WINDOW, Pace

pytestmark = pytest.mark.req("REL-005", "REL-007")

POLICY = RetryPolicy(max_attempts=8, lease=timedelta(seconds=30))
kinds = st.sampled_from(list(OutcomeKind))
classes = st.sampled_from(list(MessageClass))


@given(kinds, classes, st.integers(0, 20), st.sampled_from([None, HoldReason.AMBIGUOUS]), st.integers(0, 1000))
def test_every_outcome_is_final_or_has_its_time(
    kind: OutcomeKind, message_class: MessageClass, attempts: int, mark: str | None, seed: int
) -> None:
    settled = settlement(
        Outcome(0, kind, "x"),
        seq=7,
        attempts=attempts,
        mark=mark,
        message_class=message_class,
        policy=POLICY,
        rng=Random(seed),
    )
    assert settled.seq == 7
    assert (settled.state == DeliveryState.PLANNED) == (settled.due_in_seconds is not None)
    assert settled.due_in_seconds is None or 0 < settled.due_in_seconds <= 6 * 3600
    if kind is OutcomeKind.UNKNOWN and message_class is MessageClass.MARKETING:
        assert settled.state == DeliveryState.UNKNOWN
    if attempts >= POLICY.max_attempts and kind is OutcomeKind.TRANSIENT:
        assert settled.state == (DeliveryState.FAILED if mark is None else DeliveryState.UNKNOWN)
    if mark is not None:
        # Whoever may have got it is never said to have got nothing, but by a server that knows the address is dead.
        assert (
            settled.state not in (DeliveryState.SKIPPED, DeliveryState.FAILED)
            or settled.reason == "permanent_recipient"
        )


@given(classes, st.integers(0, 20), st.integers(0, 1000))
def test_a_channel_with_idempotency_keys_is_asked_again_until_it_answers(
    message_class: MessageClass, attempts: int, seed: int
) -> None:
    policy = RetryPolicy(max_attempts=8, lease=timedelta(seconds=30), is_repeatable=True)
    settled = unknown(7, attempts, None, message_class, policy, Random(seed))
    if attempts + 1 < policy.max_attempts:
        assert (settled.state, settled.reason, settled.attempts) == ("planned", "ambiguous", attempts + 1)
        assert settled.due_in_seconds is not None
        assert settled.due_in_seconds > 0
    else:
        assert (settled.state, settled.due_in_seconds) == ("unknown", None)


def test_who_may_have_got_it_is_not_called_skipped() -> None:
    skipped = Settlement(7, DeliveryState.SKIPPED, "suppressed")
    assert withheld(skipped, None) == skipped
    assert withheld(skipped, "ambiguous")[:3] == (7, "unknown", "ambiguous")
    held = Settlement(7, DeliveryState.PLANNED, "quiet_hours", due_in_seconds=60.0)
    assert withheld(held, "ambiguous") == held._replace(reason="ambiguous")


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0.0001, 10)), max_size=30), classes)
def test_windows_stay_within_their_bounds(seen: list[tuple[int, float]], message_class: MessageClass) -> None:
    pace = Pace()
    for messages, seconds in seen:
        pace.saw(messages, seconds)
    width = pace.window(8, message_class)
    assert 8 <= width <= MAX_WINDOW
    assert message_class is MessageClass.MARKETING or width == 8
