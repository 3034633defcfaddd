"""Taking back what a send has handed over, by a channel that can (FR-P3-004): a piece at a time, the last message first."""

from dataclasses import dataclass
from typing import Final

from nexus_marketing.core.contracts import CompensatingChannel, Outcome, OutcomeKind, Retraction
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.retractions import handed_over_before
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.composing import end_of_message_ids
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Behind the last recipient of any send.
FROM_THE_END: Final = 1 << 62
_PIECE: Final = 100
#: What may go better later, or of which nobody knows: the message is asked for again, under its own id.
_AGAIN: Final = frozenset(
    {OutcomeKind.TRANSIENT, OutcomeKind.THROTTLED, OutcomeKind.PERMANENT_SENDER, OutcomeKind.UNKNOWN}
)


@dataclass(frozen=True, slots=True)
class RetractedPiece:
    """How far a piece came: everything from ``before`` on is through. ``again`` is the outcome that it stopped at."""

    before: int
    done: int
    refused: int
    is_last: bool
    again: Outcome | None = None


def retract_piece(runtime: Runtime, tenant_id: int, send_id: int, before: int) -> RetractedPiece:
    """Take back up to a hundred messages whose numbers are below ``before``; no transaction is open meanwhile.

    Raises:
        NexusError: the channel cannot take anything back, or is not there.
    """
    with open_session(runtime.engines.worker, tenant_id=tenant_id, mode="read") as session:
        send = find(session, Send, send_id)
        channel = runtime.channels.get(send.channel)
        own = runtime.channel_settings(session, send.channel)
        if own is None or not isinstance(channel, CompensatingChannel):
            raise NexusError(f"The channel {send.channel} cannot take back what it has handed over.")
        kind = runtime.channels[send.channel].capabilities.address_kind
        rows = handed_over_before(session, send_id, kind, before, _PIECE)
        settings = {**send.sender, **own}
        end = end_of_message_ids(tenant_id, send_id, send.sender)
    done = refused = 0
    for row in rows:
        outcome = _taken_back(channel, settings, Retraction(f"<r{row.seq}{end}", row[2] or "", row.provider_code or ""))
        if outcome.kind in _AGAIN:
            return RetractedPiece(row.seq + 1, done, refused, False, outcome)
        done += outcome.kind is OutcomeKind.ACCEPTED
        refused += outcome.kind is not OutcomeKind.ACCEPTED
    return RetractedPiece(rows[-1].seq if rows else 0, done, refused, len(rows) < _PIECE)


def _taken_back(channel: CompensatingChannel, settings: dict[str, object], retraction: Retraction) -> Outcome:
    try:
        return channel.compensate(settings, retraction)
    except Exception as error:  # noqa: BLE001 - isolation boundary: a plugin's bug must not end the worker
        log.warning("retraction_raised", message_id=retraction.message_id, error=type(error).__name__)
        return Outcome(0, OutcomeKind.UNKNOWN, type(error).__name__)
