"""The vocabulary of the send ledger (BEHAVIOUR.md 5.2)."""

from enum import StrEnum


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
