"""The vocabulary of the send ledger (BEHAVIOUR.md 5.2)."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from nexus_marketing.core.contracts import ProviderEventKind


class SendStatus(StrEnum):
    """One launch of a message to an audience."""

    SCHEDULED = "scheduled"
    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    MISSED = "missed"
    FAILED = "failed"


OPEN_SENDS = (SendStatus.SCHEDULED, SendStatus.PLANNING, SendStatus.RUNNING, SendStatus.PAUSED)


class DeliveryState(StrEnum):
    """Where one recipient of one send stands; written twice in its life: planned and outcome."""

    PLANNED = "planned"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    BOUNCED_SOFT = "bounced_soft"
    BOUNCED_HARD = "bounced_hard"
    COMPLAINED = "complained"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"


#: What a message that a provider has taken may still become, each over those before it. Whatever order events come
#: in, the row ends where the furthest of them leads: a complaint after a delivery counts, a delivery after a bounce does not.
_ONWARD: Final[Mapping[str, int]] = {
    DeliveryState.UNKNOWN: 0,  # that something is told of it proves that it was taken
    DeliveryState.ACCEPTED: 0,
    DeliveryState.DELIVERED: 1,
    DeliveryState.BOUNCED_SOFT: 2,
    DeliveryState.BOUNCED_HARD: 3,
    DeliveryState.COMPLAINED: 4,
}
_TOLD: Final[Mapping[ProviderEventKind, DeliveryState]] = {
    ProviderEventKind.DELIVERED: DeliveryState.DELIVERED,
    ProviderEventKind.BOUNCED_SOFT: DeliveryState.BOUNCED_SOFT,
    ProviderEventKind.BOUNCED_HARD: DeliveryState.BOUNCED_HARD,
    ProviderEventKind.COMPLAINED: DeliveryState.COMPLAINED,
}
#: The states of a row whose message was taken.
TAKEN: Final = tuple(state for state in _ONWARD if state != DeliveryState.UNKNOWN)
_MESSAGE = re.compile(
    r"<?(?:bounce-)?r([0-9]{1,18})\.s([0-9]{1,18})\.t([0-9]{1,18})(?:@[^<>\s]*)?>?", re.ASCII
).fullmatch


class MessageKey(NamedTuple):
    """The ledger row behind a Message-ID of ours, or behind a return path."""

    tenant_id: int
    send_id: int
    seq: int


def read_message_id(text: str) -> MessageKey | None:
    """Which message a provider speaks of; nothing where it is none of ours.

    >>> read_message_id("<r7.s3.t1@example.com>")
    MessageKey(tenant_id=1, send_id=3, seq=7)
    """
    found = _MESSAGE(text.strip())
    return None if found is None else MessageKey(int(found[3]), int(found[2]), int(found[1]))


def state_after(state: str, kind: ProviderEventKind) -> DeliveryState | None:
    """What a row becomes by an event; nothing where it stays.

    >>> state_after("delivered", ProviderEventKind.COMPLAINED), state_after("bounced_hard", ProviderEventKind.DELIVERED)
    (<DeliveryState.COMPLAINED: 'complained'>, None)
    """
    told = _TOLD.get(kind)
    if told is None or state not in _ONWARD or _ONWARD[told] <= _ONWARD[state]:
        return None
    return told


def soft_bounces_in_row(newest_first: Iterable[tuple[int, str]]) -> int:
    """How many sends in a row bounced softly, the newest first, until one arrived.

    Args:
        newest_first: (send, state) of one lead's messages.
    """
    sends: set[int] = set()
    for send_id, state in newest_first:
        if state == DeliveryState.DELIVERED:
            break
        if state == DeliveryState.BOUNCED_SOFT:
            sends.add(send_id)
    return len(sends)


class SkipReason(StrEnum):
    """Why somebody in the audience gets nothing."""

    NO_ADDRESS = "no_address"
    UNSUPPORTED_ADDRESS = "unsupported_address"
    SUPPRESSED = "suppressed"
    CONSENT_MISSING = "consent_missing"
    CONSENT_EXPIRED = "consent_expired"
    OBJECTED = "objected"
    RESTRICTED = "restricted"
    JURISDICTION = "jurisdiction"
    TOPIC_OFF = "topic_off"
    CAP = "cap"
    QUIET_EXPIRED = "quiet_expired"
    HOLDOUT = "holdout"
    BUDGET = "budget"
    DUPLICATE_ADDRESS = "duplicate_address"
    LEFT_AUDIENCE = "left_audience"
    MISSING_VARIABLE = "missing_variable"
    RENDER_ERROR = "render_error"
    LEAD_ERASED = "lead_erased"
    MISSED = "missed"
    CANCELLED = "cancelled"
    PLUGIN_MISSING = "plugin_missing"


class HoldReason(StrEnum):
    """Why a recipient who is planned waits until ``due_at``; without one it is a retry."""

    #: The first hand-over had no answer (transactional, ``resend_once``).
    AMBIGUOUS = "ambiguous"
    #: It begins by the lead's own clock.
    LOCAL_START = "local_start"
    QUIET_HOURS = "quiet_hours"
    CAP = "cap"
    #: Another send is due for the same lead and goes first.
    OUTRANKED = "outranked"
    #: The tenant's rate for the domain of the address is used up.
    RATE = "rate"
    #: The provider of the address asked for patience.
    THROTTLED = "throttled"


class FailReason(StrEnum):
    """Why a hand-over failed for good."""

    PERMANENT_RECIPIENT = "permanent_recipient"
    PERMANENT_SENDER = "permanent_sender"
    EXHAUSTED = "exhausted"
    #: Workers ended while they made this message, one after the other.
    CRASHED = "crashed"


#: Workers that may end over one message: then it is given up, and the others go on.
MAX_CRASHES: Final = 3
