"""What follows from what providers report (DESIGN.md 5, Inbound provider events).

Each event is acted on once, by its id, and in any order: ledger rows only go on. An event that comes before the worker has
written down what became of its message waits for that.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.contracts import AddressKind, ProviderEventKind
from nexus_marketing.core.deliveries import (
    DeliveryState,
    MessageKey,
    read_message_id,
    soft_bounces_in_row,
    state_after,
)
from nexus_marketing.core.engagements import EngagementType, Verdict
from nexus_marketing.core.engagements.reported import OLDEST, receipt_days
from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.privacy import SuppressionReason, SuppressionType
from nexus_marketing.core.values import email_norm
from nexus_marketing.db.models import Delivery, Lead
from nexus_marketing.db.queries import provider_reports as queries
from nexus_marketing.db.queries.event_batches import claim_event_ids
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.types import from_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.engagements import write_engagements
from nexus_marketing.services.keywords import answer_keyword
from nexus_marketing.services.leads.lookup import follow_lead
from nexus_marketing.services.privacy import address_hash, suppress_hash, suppress_once, unsubscribe
from nexus_marketing.services.send_alarms import judge_send
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PIECE: Final = 500
#: A message is settled a moment after its provider took it; what is not by then never will be.
_WAITS_SECONDS: Final = (2.0, 10.0, 60.0, 300.0, 1800.0)
#: A code that nobody knows by the third look is of somebody else's message.
_TRIES_OF_CODES: Final = 3
_SOFT_WINDOW: Final = timedelta(days=30)
_MOST_LEADS: Final = 20


@dataclass(frozen=True, slots=True)
class _Event:
    """A report, read back."""

    row: Row[Any]
    kind: ProviderEventKind
    key: MessageKey | None
    at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> "_Event":
        key = read_message_id(row.body["message_id"])
        return cls(row, ProviderEventKind(row.body["kind"]), key, from_text(row.body["at"]))

    @property
    def source(self) -> str:
        """Who told it, as suppressions and consents say where they come from."""
        return f"{self.row.channel}:{self.row.provider}" if self.row.provider else self.row.channel

    @property
    def id(self) -> str:
        """Its id among those of all channels, providers and programs."""
        digest = sha256(self.row.body["event_id"].encode()).hexdigest()
        return f"hook:{self.row.channel}:{self.row.provider}:{digest}"


@dataclass(slots=True)
class _Piece:
    """What a piece of reports leads to, gathered while each is acted on."""

    #: Where each message's row stands now, and of these what is not written yet.
    states: dict[tuple[int, int], DeliveryState] = field(default_factory=dict)
    unwritten: set[tuple[int, int]] = field(default_factory=set)
    counts: dict[int, Counter[str]] = field(default_factory=dict)
    engagements: list[dict[str, Any]] = field(default_factory=list)
    early: list[Row[Any]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)


def take_in_reports(runtime: Runtime, tenant_id: int) -> int:
    """Act on a piece of what was reported to a tenant; answers how many there were."""
    try:
        return _take_in(runtime, tenant_id, _PIECE)
    except Exception as error:
        if isinstance(error, DBAPIError) and is_transient(error):
            raise
        log.exception("reports_failed", tenant_id=tenant_id)
    return _take_in_first(runtime, tenant_id)


def _take_in_first(runtime: Runtime, tenant_id: int) -> int:
    """The oldest alone; if it is what nobody can act on, it is dropped, so that those behind it have their turn."""
    try:
        return _take_in(runtime, tenant_id, 1)
    except Exception as error:
        if isinstance(error, DBAPIError) and is_transient(error):
            raise
        log.exception("report_dropped", tenant_id=tenant_id)
        runtime.telemetry.count("hooks.dropped", channel="", why="failed")
    with runtime.work(tenant_id, SYSTEM) as ctx:
        return len(queries.take_reports(ctx.session, 1))


def _take_in(runtime: Runtime, tenant_id: int, size: int) -> int:
    """One worker at a time, because what follows depends on what was reported before."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if not try_alone(ctx.session, "reports"):
            return 0
        taken = queries.take_reports(ctx.session, size)
        piece = _Piece()
        if taken:
            _act_on(ctx, _unknown(ctx, [_Event.of(row) for row in taken], piece), piece)
            _write(ctx, piece)
    for told, count in piece.told.items():
        runtime.telemetry.count("hooks.events", count, kind=told)
    for send_id in sorted(piece.counts):
        judge_send(runtime, tenant_id, send_id)
    return len(taken)


def _unknown(ctx: Context, events: Sequence[_Event], piece: _Piece) -> list[_Event]:
    """Those that nobody has acted on; what is older than ids are kept cannot be told apart from a repeat."""
    first = {event.id: event for event in reversed(events) if not event.row.tries}
    new = claim_event_ids(ctx.session, first, receipt_days(ctx.now))()
    found = [event for event in events if event.row.tries or (event.id in new and first[event.id] is event)]
    piece.told["known"] += len(events) - len(found)
    fresh = [event for event in found if event.at > ctx.now - OLDEST]
    piece.told["too_old"] += len(found) - len(fresh)
    return fresh


def _act_on(ctx: Context, events: Sequence[_Event], piece: _Piece) -> None:
    keys = {id(event): _message_key(ctx, event) for event in events}
    messages = queries.messages_of(ctx.session, [key for key in keys.values() if key is not None])
    for event in events:
        key = keys[id(event)]
        message = None if key is None else messages.get(key)
        if message is not None and message.channel != event.row.channel:
            message = None
        if _is_early(ctx, event, message):
            piece.early.append(event.row)
            continue
        piece.told[event.kind] += 1
        if message is not None:
            _move(event, message, piece)
        _follow(ctx, event, message, piece)


def _is_early(ctx: Context, event: _Event, message: Row[Any] | None) -> bool:
    """Whether the worker may not have written down yet what became of the message.

    Until then nothing has the provider's code. By e-mail a code comes with a Message-ID of ours, or is of no message of ours.
    """
    if message is not None:
        return bool(message.state == DeliveryState.PLANNED) and bool(event.row.tries < len(_WAITS_SECONDS))
    names_a_message = event.key is None and bool(event.row.body["code"] and event.row.body["address"])
    is_young: bool = event.row.tries < _TRIES_OF_CODES
    return names_a_message and is_young and _is_phone(ctx, str(event.row.channel))


def _message_key(ctx: Context, event: _Event) -> tuple[int, int] | None:
    """The message's (send, seq): by our id that came back, else by the provider's code for the address."""
    if event.key is not None:
        return event.key.send_id, event.key.seq
    address, code = event.row.body["address"], event.row.body["code"]
    if not address or not code:
        return None
    column, known = _as_known(ctx, event.row.channel, address)
    return queries.message_by_code(ctx.session, event.row.channel, column, known, code)


def _as_known(ctx: Context, channel: str, address: str) -> tuple[str, str]:
    """The column of leads in which an address of the channel stands, and how it does there."""
    return ("phone", address) if _is_phone(ctx, channel) else ("email_norm", email_norm(address))


def _is_phone(ctx: Context, channel: str) -> bool:
    about = ctx.runtime.channels.get(channel)
    return about is not None and about.capabilities.address_kind is AddressKind.PHONE


def _move(event: _Event, message: Row[Any], piece: _Piece) -> None:
    key = (message.send_id, message.seq)
    before = piece.states.get(key, message.state)
    after = state_after(before, event.kind)
    if after is None:
        return
    piece.states[key] = after
    piece.unwritten.add(key)
    counts = piece.counts.setdefault(message.send_id, Counter())
    counts["moves"] += 1
    for name, state in (("bounced", DeliveryState.BOUNCED_HARD), ("complained", DeliveryState.COMPLAINED)):
        counts[name] += (after == state) - (before == state)


def _follow(ctx: Context, event: _Event, message: Row[Any] | None, piece: _Piece) -> None:
    """What an event means beyond its message: for the address, and for whoever reads the lead's history."""
    kind = event.kind
    if kind is ProviderEventKind.INBOUND_MESSAGE:
        piece.engagements += answer_keyword(ctx, event.row.channel, event.row.body, event.at)
    elif kind is ProviderEventKind.UNSUBSCRIBED:
        _unsubscribe(ctx, event, message)
    elif kind in (ProviderEventKind.BOUNCED_HARD, ProviderEventKind.COMPLAINED):
        _suppress(ctx, event, message)
    elif kind is ProviderEventKind.BOUNCED_SOFT and message is not None:
        _write_states(ctx, piece)
        _count_soft(ctx, event, message)
    elif kind is ProviderEventKind.DELIVERED and message is not None and event.row.channel == "sms":
        piece.engagements.append(_delivered(event, message))


def _suppress(ctx: Context, event: _Event, message: Row[Any] | None, *, source: str = "") -> None:
    """A bounce says that the address is no more, a complaint that its owner wants no marketing."""
    hashed = _hash(ctx, event, message)
    if hashed is None:
        return
    is_complaint = event.kind is ProviderEventKind.COMPLAINED
    suppress_hash(
        ctx,
        hashed,
        reason=SuppressionReason.COMPLAINED if is_complaint else SuppressionReason.BOUNCED,
        type=SuppressionType.MARKETING if is_complaint else SuppressionType.ALL,
        source=source or event.source,
        channel=event.row.channel,
    )


def _hash(ctx: Context, event: _Event, message: Row[Any] | None) -> bytes | None:
    """The address that a message went to, else the one that the provider names, if a lead of the tenant has it."""
    if message is not None and message.address_hash is not None:
        return bytes(message.address_hash)
    address = event.row.body["address"]
    if not address or (message is None and not _leads_of(ctx, event)):
        return None
    return address_hash(ctx, address)


def _leads_of(ctx: Context, event: _Event) -> list[int]:
    column, known = _as_known(ctx, event.row.channel, event.row.body["address"])
    wanted = (getattr(Lead, column) == known, Lead.gone_at.is_(None))
    return list(ctx.session.scalars(select(Lead.id).where(*wanted).order_by(Lead.id).limit(_MOST_LEADS)))


def _unsubscribe(ctx: Context, event: _Event, message: Row[Any] | None) -> None:
    address, channel = event.row.body["address"], event.row.channel
    leads = [message.lead_id] if message is not None else _leads_of(ctx, event) if address else []
    about = {} if message is None else {"send_id": message.send_id, "seq": message.seq}
    for lead_id in leads:
        try:
            unsubscribe(ctx, lead_id, source=event.source, channel=channel, **about)
        except NotFound:
            log.info("unsubscribe_without_lead", tenant_id=ctx.tenant_id)
    if address and leads:
        suppress_once(ctx, address, channel, event.source)


def _count_soft(ctx: Context, event: _Event, message: Row[Any]) -> None:
    """Enough soft bounces in a row, each of another send, and the address counts as one that is no more."""
    wanted = (
        Delivery.lead_id == message.lead_id,
        Delivery.channel == message.channel,
        Delivery.state.in_((DeliveryState.DELIVERED, DeliveryState.BOUNCED_SOFT)),
        Delivery.settled_at >= ctx.now - _SOFT_WINDOW,
    )
    newest = (Delivery.settled_at.desc(), Delivery.send_id.desc())
    allowed = ctx.runtime.settings.soft_bounces
    found = ctx.session.execute(
        select(Delivery.send_id, Delivery.state).where(*wanted).order_by(*newest).limit(10 * allowed)
    )
    if soft_bounces_in_row([(row.send_id, row.state) for row in found]) >= allowed:
        _suppress(ctx, event, message, source=f"{event.source}:soft")


def _delivered(event: _Event, message: Row[Any]) -> dict[str, Any]:
    return {
        "tracked_at": event.row.body["at"],
        "type": str(EngagementType.SMS_DELIVERED),
        "lead_id": message.lead_id,
        "campaign_id": message.campaign_id,
        "send_id": message.send_id,
        "seq": message.seq,
        "channel": message.channel,
        "verdict": str(Verdict.MACHINE),
        "metadata": {},
    }


def _write_states(ctx: Context, piece: _Piece) -> None:
    keys = sorted(piece.unwritten)
    moves = [{"send_id": key[0], "seq": key[1], "state": str(piece.states[key])} for key in keys]
    queries.move_messages(ctx.session, moves)
    piece.unwritten.clear()


def _write(ctx: Context, piece: _Piece) -> None:
    _write_states(ctx, piece)
    rows = [
        {"send_id": send_id, **{name: counts[name] for name in ("moves", "bounced", "complained")}}
        for send_id, counts in sorted(piece.counts.items())
    ]
    queries.count_feedback(ctx.session, rows)
    write_engagements(ctx, [row for row in piece.engagements if _is_there(ctx, row)])
    queries.put_back(ctx.session, piece.early, [_WAITS_SECONDS[row.tries] for row in piece.early])


def _is_there(ctx: Context, row: dict[str, Any]) -> bool:
    """Whether the lead is still somebody; who was merged is the other now."""
    try:
        row["lead_id"] = follow_lead(ctx, row["lead_id"]).id
    except NotFound:
        return False
    return True
