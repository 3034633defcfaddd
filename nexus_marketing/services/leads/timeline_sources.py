"""The sources of a lead's timeline, one class each; none loads more than a page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import func, literal, select, tuple_

from nexus_marketing.core.audience import RemovalKind
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.segments import SegmentMove
from nexus_marketing.db.models import (
    AuditEntry,
    Consent,
    Delivery,
    Engagement,
    Lead,
    LeadRemoval,
    Segment,
    SegmentChange,
    SegmentMember,
    Send,
    Suppression,
)
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.removals import addresses_of
from nexus_marketing.services.privacy import address_hash

#: Told by sources of their own.
_TOLD_ELSEWHERE = ("consent.granted", "consent.revoked", "lead.merged")


@dataclass(frozen=True, slots=True)
class Before:
    """Entries before a moment: without a key all of them, with ``with_moment`` those of that moment too."""

    at: datetime | None = None
    key: tuple[int, ...] | None = None
    with_moment: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a source knows of one event."""

    at: datetime
    key: tuple[int, ...]
    type: str
    data: dict[str, Any] = field(default_factory=dict)


def _page(statement: Any, before: Before, at: Any, key: Sequence[Any], limit: int) -> Any:
    """The page of a statement; ``at`` and ``key`` order its rows."""
    if before.at is not None:
        moment = literal(before.at, at.type)
        if before.key is not None:
            last = (literal(value, column.type) for value, column in zip(before.key, key, strict=True))
            statement = statement.where(tuple_(at, *key) < tuple_(moment, *last))
        else:
            statement = statement.where(at <= moment if before.with_moment else at < moment)
    return statement.order_by(at.desc(), *(column.desc() for column in key)).limit(limit)


def _id(value: int | None) -> str | None:
    return None if value is None else str(value)


class Engagements:
    """What the lead did."""

    name: ClassVar[str] = "engagements"
    permission: ClassVar[Permission] = Permission.ENGAGEMENTS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment at which it was tracked."""
        statement = select(Engagement).where(Engagement.lead_id.in_(lead_ids))
        columns = (Engagement.tracked_at, [Engagement.id])
        rows = ctx.session.scalars(_page(statement, before, *columns, limit))
        return [Found(row.tracked_at, (row.id,), row.type, _engagement(row)) for row in rows]


def _engagement(row: Engagement) -> dict[str, Any]:
    ids = {"campaign_id": _id(row.campaign_id), "send_id": _id(row.send_id)}
    return {**ids, "channel": row.channel, "verdict": row.verdict, "link": row.link, "notes": row.notes}


class Messages:
    """What was sent to the lead, or why not; what is still to leave stands by the beginning of its send."""

    name: ClassVar[str] = "messages"
    permission: ClassVar[Permission] = Permission.CAMPAIGNS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of the outcome."""
        at = func.coalesce(Delivery.settled_at, Send.created_at)
        statement = (
            select(
                at.label("at"),
                Delivery.send_id,
                Delivery.seq,
                Delivery.state,
                Delivery.reason,
                Delivery.channel,
                Send.campaign_id,
            )
            .join(Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id))
            .where(Delivery.lead_id.in_(lead_ids))
        )
        rows = ctx.session.execute(_page(statement, before, at, [Delivery.send_id, Delivery.seq], limit))
        return [Found(row.at, (row.send_id, row.seq), f"message_{row.state}", _message(row)) for row in rows]


def _message(row: Any) -> dict[str, Any]:
    ids = {"send_id": _id(row.send_id), "campaign_id": _id(row.campaign_id)}
    return {**ids, "channel": row.channel, "state": row.state, "reason": row.reason}


class Consents:
    """What the lead allowed and withdrew."""

    name: ClassVar[str] = "consents"
    permission: ClassVar[Permission] = Permission.LEADS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of the act."""
        statement = select(Consent).where(Consent.lead_id.in_(lead_ids))
        rows = ctx.session.scalars(_page(statement, before, Consent.at, [Consent.id], limit))
        return [Found(row.at, (row.id,), _act(row), _consent(row)) for row in rows]


def _act(row: Consent) -> str:
    return "consent_granted" if row.granted_at is not None else "consent_revoked"


def _consent(row: Consent) -> dict[str, Any]:
    said = {"channel": row.channel, "type": row.type, "source": row.source}
    return {**said, "text_version": row.text_version, "expires_at": row.expires_at}


class Suppressions:
    """What keeps messages from the lead's present addresses, and what lifted it."""

    name: ClassVar[str] = "suppressions"
    permission: ClassVar[Permission] = Permission.LEADS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of the act."""
        lead = find(ctx.session, Lead, lead_ids[0])
        hashes = [address_hash(ctx, address) for _, address in addresses_of(ctx, lead)]
        at = func.coalesce(Suppression.suppressed_at, Suppression.lifted_at)
        statement = select(Suppression).where(Suppression.address_hash.in_(hashes))
        rows = ctx.session.scalars(_page(statement, before, at, [Suppression.id], limit)) if hashes else ()
        return [_suppression(row) for row in rows]


def _suppression(row: Suppression) -> Found:
    at = row.suppressed_at or row.lifted_at
    assert at is not None  # each act is one of the two
    data = {"channel": row.channel, "type": row.type, "reason": row.reason, "source": row.source}
    return Found(at, (row.id,), "suppressed" if row.suppressed_at is not None else "suppression_lifted", data)


class Changes:
    """Who changed what of the lead: names of fields, never values."""

    name: ClassVar[str] = "changes"
    permission: ClassVar[Permission] = Permission.LEADS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of the change."""
        statement = select(AuditEntry).where(
            AuditEntry.subject_type == "lead",
            AuditEntry.subject_id.in_([str(each) for each in lead_ids]),
            AuditEntry.action.not_in(_TOLD_ELSEWHERE),
        )
        rows = ctx.session.scalars(_page(statement, before, AuditEntry.at, [AuditEntry.id], limit))
        return [
            Found(row.at, (row.id,), row.action.replace(".", "_"), {"actor": row.actor, "fields": sorted(row.body)})
            for row in rows
        ]


class Merges:
    """Leads that were merged into this one."""

    name: ClassVar[str] = "merges"
    permission: ClassVar[Permission] = Permission.LEADS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of the merge."""
        wanted = (LeadRemoval.into_id.in_(lead_ids), LeadRemoval.kind == RemovalKind.MERGED)
        statement = select(LeadRemoval).where(*wanted)
        rows = ctx.session.scalars(_page(statement, before, LeadRemoval.at, [LeadRemoval.id], limit))
        return [
            Found(row.at, (row.id,), "lead_merged", {"merged_id": str(row.lead_id), "actor": row.actor}) for row in rows
        ]


class Segments:
    """Segments that the lead entered and left."""

    name: ClassVar[str] = "segments"
    permission: ClassVar[Permission] = Permission.SEGMENTS_READ

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> list[Found]:
        """By the moment of entering or leaving.

        Who was there when a segment was first computed has a membership and no change: its key is below zero.
        """
        of_segment = (Segment.tenant_id == SegmentChange.tenant_id) & (Segment.id == SegmentChange.segment_id)
        noted = select(SegmentChange, Segment.name).join(Segment, of_segment).where(SegmentChange.lead_id.in_(lead_ids))
        rows = ctx.session.execute(_page(noted, before, SegmentChange.at, [SegmentChange.id], limit))
        found = [_move(change.at, change.id, change.segment_id, name, change) for change, name in rows]
        entered = select(SegmentChange.id).where(
            SegmentChange.lead_id == SegmentMember.lead_id,
            SegmentChange.segment_id == SegmentMember.segment_id,
            SegmentChange.change == SegmentMove.ENTERED,
        )
        key = (-SegmentMember.segment_id).label("key")
        first = (
            select(SegmentMember.entered_at, key, SegmentMember.segment_id, Segment.name)
            .join(Segment, (Segment.tenant_id == SegmentMember.tenant_id) & (Segment.id == SegmentMember.segment_id))
            .where(SegmentMember.lead_id == lead_ids[0], ~entered.exists())
        )
        rows = ctx.session.execute(_page(first, before, SegmentMember.entered_at, [key.element], limit))
        found += [_move(row.entered_at, row.key, row.segment_id, row.name) for row in rows]
        return sorted(found, key=lambda each: (each.at, each.key), reverse=True)[:limit]


def _move(at: datetime, key: int, segment_id: int, name: str, change: SegmentChange | None = None) -> Found:
    move, cause = (SegmentMove.ENTERED, None) if change is None else (change.change, change.cause)
    return Found(at, (key,), f"segment_{move}", {"segment_id": _id(segment_id), "name": name, "cause": cause})
