"""What an outcome means for the ledger: final, or once more and when (BEHAVIOUR.md 5.2, Retry)."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState, FailReason, HoldReason, SkipReason
from nexus_marketing.db.queries.settling import Settlement

_FIRST_RETRY_SECONDS = 60.0
_LONGEST_RETRY_SECONDS = 6 * 3600.0
_THROTTLED_SECONDS = 30.0
_NOT_SENT_SECONDS = 5.0
#: Nobody is asked to wait longer by whoever answers.
_LONGEST_WAIT_SECONDS = 24 * 3600.0
_SKIP_REASONS = frozenset(SkipReason)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: attempts are refused hand-overs, throttling does not count."""

    max_attempts: int
    lease: timedelta
    #: The send is older than retries are worth: what is not accepted now fails.
    too_old: bool = False
    #: The channel sends a message with the same id once however often it is asked to.
    is_repeatable: bool = False
    #: Written beside a recipient whose message may have left: by which account.
    via: str | None = None


def understood(outcome: Outcome) -> Outcome:
    """An answer as it can be written down: what a provider or a plugin says may hold anything.

    One that no database takes would cost everybody beside it in the window their outcome.
    """
    if outcome.kind is OutcomeKind.REFUSED and outcome.code not in _SKIP_REASONS:
        outcome = outcome._replace(code=SkipReason.RENDER_ERROR)
    if not outcome.code.isprintable():
        outcome = outcome._replace(code="".join(each if each.isprintable() else "?" for each in outcome.code[:64]))
    wait = outcome.retry_after_seconds
    if wait is not None and not 0 <= wait <= _LONGEST_WAIT_SECONDS:
        longest = _LONGEST_WAIT_SECONDS if wait > 0 else None  # nothing of what is no number
        outcome = outcome._replace(retry_after_seconds=longest)
    return outcome


def settlement(
    outcome: Outcome,
    *,
    seq: int,
    attempts: int,
    mark: str | None,
    message_class: MessageClass,
    policy: RetryPolicy,
    rng: Random,
) -> Settlement:
    """The ledger row's next state.

    Args:
        outcome: what the channel answered.
        attempts: refused hand-overs before this one.
        mark: ``ambiguous`` if an earlier hand-over had no answer.
    """
    found = _settlement(
        outcome, seq=seq, attempts=attempts, mark=mark, message_class=message_class, policy=policy, rng=rng
    )
    # What was begun by one account goes on by it alone, whatever it waits for.
    is_marked = found.state == DeliveryState.PLANNED and found.reason == HoldReason.AMBIGUOUS
    return found._replace(code=policy.via) if is_marked else found


def _settlement(
    outcome: Outcome,
    *,
    seq: int,
    attempts: int,
    mark: str | None,
    message_class: MessageClass,
    policy: RetryPolicy,
    rng: Random,
) -> Settlement:
    kind, code = outcome.kind, outcome.code[:64] or None
    if kind is OutcomeKind.ACCEPTED:
        return Settlement(seq, DeliveryState.ACCEPTED, None if policy.is_repeatable else mark, code, attempts)
    if kind is OutcomeKind.REFUSED:
        return withheld(Settlement(seq, DeliveryState.SKIPPED, outcome.code, None, attempts), mark)
    if kind is OutcomeKind.PERMANENT_RECIPIENT:
        return Settlement(seq, DeliveryState.FAILED, FailReason.PERMANENT_RECIPIENT, code, attempts + 1)
    if kind is OutcomeKind.UNKNOWN:
        return unknown(seq, attempts, mark, message_class, policy, rng)
    if policy.too_old:
        return _exhausted(seq, attempts, mark, code)
    if kind is OutcomeKind.TRANSIENT:
        return _again_later(seq, attempts + 1, mark, code, policy, rng)
    wait = outcome.retry_after_seconds or (_NOT_SENT_SECONDS if kind is OutcomeKind.NOT_SENT else _THROTTLED_SECONDS)
    return Settlement(seq, DeliveryState.PLANNED, mark, code, attempts, due_in_seconds=wait * rng.uniform(1.0, 1.5))


def unknown(
    seq: int, attempts: int, mark: str | None, message_class: MessageClass, policy: RetryPolicy, rng: Random
) -> Settlement:
    """Handed over without an answer.

    A channel with idempotency keys is asked again until it answers; else marketing holds, and transactional goes
    out once more, later.
    """
    if policy.is_repeatable and not policy.too_old:
        again = _again_later(seq, attempts + 1, HoldReason.AMBIGUOUS, policy.via, policy, rng)
        if again.state == DeliveryState.PLANNED:
            return again
    elif message_class is MessageClass.TRANSACTIONAL and mark != HoldReason.AMBIGUOUS:
        wait = 2 * policy.lease.total_seconds()
        return Settlement(seq, DeliveryState.PLANNED, HoldReason.AMBIGUOUS, policy.via, attempts, due_in_seconds=wait)
    return Settlement(seq, DeliveryState.UNKNOWN, mark, None, attempts)


def withheld(settlement: Settlement, mark: str | None) -> Settlement:
    """What becomes of somebody who gets nothing now: if an earlier attempt may have left, that is what is said."""
    if mark is None or settlement.reason == mark:
        return settlement
    is_skipped = settlement.state == DeliveryState.SKIPPED
    return settlement._replace(state=DeliveryState.UNKNOWN if is_skipped else settlement.state, reason=mark)


def _again_later(
    seq: int, attempts: int, mark: str | None, code: str | None, policy: RetryPolicy, rng: Random
) -> Settlement:
    if attempts >= policy.max_attempts:
        return _exhausted(seq, attempts, mark, code)
    # Exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), never under
    # half of the step, so that a mailbox that asked for patience gets some.
    ceiling = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 4.0 ** (attempts - 1))
    return Settlement(
        seq, DeliveryState.PLANNED, mark, code, attempts, due_in_seconds=rng.uniform(ceiling / 2, ceiling)
    )


def crashed(seq: int, attempts: int, mark: str | None, crashes: int) -> Settlement:
    """Given up because so many workers ended over it: failed, unless an earlier hand-over had no answer."""
    code = f"{crashes} workers ended"
    if mark is not None:
        return Settlement(seq, DeliveryState.UNKNOWN, mark, code, attempts)
    return Settlement(seq, DeliveryState.FAILED, FailReason.CRASHED, code, attempts)


def _exhausted(seq: int, attempts: int, mark: str | None, code: str | None) -> Settlement:
    """Given up: failed, unless an attempt without an answer may have reached somebody."""
    if mark is not None:
        return Settlement(seq, DeliveryState.UNKNOWN, mark, code, attempts)
    return Settlement(seq, DeliveryState.FAILED, FailReason.EXHAUSTED, code, attempts)
