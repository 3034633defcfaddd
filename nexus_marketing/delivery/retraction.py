"""Taking back what a send has handed over, by a channel that can (FR-P3-004): a piece at a time, the last message first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nexus_marketing.core.accounts import marked_account, unspoken
from nexus_marketing.core.contracts import CompensatingChannel, Outcome, OutcomeKind, Retraction
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.queries.retractions import handed_over_before
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.composing import end_of_message_ids
from nexus_marketing.delivery.senders import AskedWith, asked_with
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
    """How far a piece came: everything from ``before`` on is through. ``again`` is the outcome that it stopped at.

    ``why`` is what was said of the last one that could not be taken back.
    """

    before: int
    done: int
    refused: int
    is_last: bool
    again: Outcome | None = None
    why: str = ""


def retract_piece(runtime: Runtime, tenant_id: int, send_id: int, before: int) -> RetractedPiece:
    """Take back up to a hundred messages whose numbers are below ``before``; no transaction is open meanwhile.

    Raises:
        NexusError: the channel cannot take anything back, or is not there; or its account is off or gone.
    """
    with open_session(runtime.engines.worker, tenant_id=tenant_id, mode="read") as session:
        send = find(session, Send, send_id)
        channel = runtime.channels.get(send.channel)
        own = runtime.channel_settings(session, send.channel)
        if channel is None or own is None or not isinstance(channel, CompensatingChannel):
            raise NexusError(f"The channel {send.channel} cannot take back what it has handed over.")
        rows = handed_over_before(session, send_id, channel.capabilities.address_kind, before, _PIECE)
        ways = asked_with(runtime, session, channel, accounts_of(session).get(send.channel, ()), send.sender)
        end = end_of_message_ids(tenant_id, send_id, send.sender)
    done, refused, why = 0, 0, ""
    for row in rows:
        outcome = _taken_back(channel, ways, row, end)
        if outcome.kind in _AGAIN:
            return RetractedPiece(row.seq + 1, done, refused, False, outcome, why)
        if outcome.kind is OutcomeKind.ACCEPTED:
            done += 1
        else:
            refused, why = refused + 1, outcome.detail or outcome.code or str(outcome.kind)
    return RetractedPiece(rows[-1].seq if rows else 0, done, refused, len(rows) < _PIECE, why=why)


def _taken_back(channel: CompensatingChannel, ways: Sequence[AskedWith], row: Any, end: str) -> Outcome:
    """Ask with each account that may have carried it, until one has taken it back.

    Which of several did is written down only where a message may have left and nobody answered: there the others are
    not asked. Of their answers it is the one that may become another which counts.
    """
    carried = marked_account(row.provider_code)
    asked = [each for each in ways if carried is not None and each.account_id == carried] or ways
    code = row.provider_code if carried is None else None
    retraction = Retraction(f"<r{row.seq}{end}", row[2] or "", code or "")
    found: list[Outcome] = []
    for each in asked:
        outcome = _answer(channel, each, retraction)
        if outcome.kind is OutcomeKind.ACCEPTED:
            return outcome
        found.append(outcome)
    return next((each for each in found if each.kind in _AGAIN), found[-1])


def _answer(channel: CompensatingChannel, way: AskedWith, retraction: Retraction) -> Outcome:
    try:
        outcome = channel.compensate(way.settings, retraction)
        return outcome._replace(code=unspoken(outcome.code, way.secrets), detail=unspoken(outcome.detail, way.secrets))
    except Exception as error:  # noqa: BLE001 - isolation boundary: a plugin's bug must not end the worker
        log.warning("retraction_raised", message_id=retraction.message_id, error=type(error).__name__)
        return Outcome(0, OutcomeKind.UNKNOWN, type(error).__name__)
