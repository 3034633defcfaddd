"""Engagements: hits from messages judged after settling, and events that programs report."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.engagements import EngagementType, HitFact, MachineHint, Verdict, judge, machine_hint
from nexus_marketing.core.errors import NexusError, ValidationError
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import Campaign, Engagement, Hit, Lead, Send, TemplateVersion
from nexus_marketing.db.queries.engagements import (
    claim_event_id,
    count_recipients,
    handed_over_at,
    take_settled_hits,
    tenants_with_settled_hits,
)
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.db.types import from_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record

_TYPES = {TokenKind.OPEN: EngagementType.EMAIL_OPENED, TokenKind.CLICK: EngagementType.EMAIL_CLICKED}
#: How old a reported event may be, and how far a client's clock may run ahead.
_OLDEST = timedelta(days=35)
_FUTURE = timedelta(minutes=5)


def record_hit(ctx: Context, token: Token, *, user_agent: str = "", prefetch: bool = False) -> None:
    """Append an open or click as it arrives; it is judged after the settling delay."""
    ctx.session.add(
        Hit(
            at=ctx.now,
            type=_TYPES[token.kind],
            send_id=token.send_id,
            seq=token.seq,
            lead_id=token.lead_id,
            link=token.link if token.kind is TokenKind.CLICK else None,
            machine_hint=machine_hint(user_agent, prefetch=prefetch),
        )
    )


def click_destination(ctx: Context, token: Token) -> str | None:
    """Where a click token leads: the URL stored with the template version that was sent, or nowhere."""
    links = ctx.session.execute(
        select(TemplateVersion.links)
        .join(
            Send,
            (Send.tenant_id == TemplateVersion.tenant_id)
            & (Send.template_id == TemplateVersion.template_id)
            & (Send.template_version == TemplateVersion.number),
        )
        .where(Send.id == token.send_id)
    ).scalar()
    return str(links[token.link]) if links and token.link < len(links) else None


def judge_hits(runtime: Runtime) -> int:
    """Turn settled hits into engagements with a verdict; answers how many.

    Hits are taken out and engagements written in one transaction: each becomes exactly one.
    """
    settling = runtime.settings.settling.total_seconds()
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        tenants = tenants_with_settled_hits(session, settling)
    judged = 0
    for tenant_id in tenants:
        with runtime.work(tenant_id, SYSTEM) as ctx:
            judged += _judge(ctx, take_settled_hits(ctx.session, settling))
    return judged


def _judge(ctx: Context, hits: Sequence[Row[Any]]) -> int:
    recipients: dict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
    for hit in hits:
        recipients[(hit.send_id, hit.seq)].append(hit)
    verdicts: dict[int, Verdict] = {}
    for send_id in {send_id for send_id, _ in recipients}:
        seqs = [seq for each, seq in recipients if each == send_id]
        answered = handed_over_at(ctx.session, send_id, seqs)
        for seq in seqs:
            facts = [_fact(hit) for hit in recipients[(send_id, seq)]]
            verdicts |= judge(facts, _moment(answered.get(seq)))
    campaigns = _campaigns(ctx, {hit.send_id for hit in hits})
    rows = [_engagement(ctx, hit, verdicts[hit.id], campaigns.get(hit.send_id)) for hit in hits]
    if rows:
        ctx.session.execute(insert(Engagement), rows)
        count_recipients(ctx.session, [_first(hit, verdicts[hit.id]) for hit in hits])
    return len(rows)


def _fact(hit: Row[Any]) -> HitFact:
    hint = MachineHint(hit.machine_hint) if hit.machine_hint else None
    moment = _moment(hit.at)
    assert moment is not None  # the column is not null
    return HitFact(hit.id, EngagementType(hit.type), moment, hit.link, hint)


def _first(hit: Row[Any], verdict: Verdict) -> dict[str, Any]:
    return {"send_id": hit.send_id, "seq": hit.seq, "type": hit.type, "verdict": verdict, "at": hit.at}


def _engagement(ctx: Context, hit: Row[Any], verdict: Verdict, campaign_id: int | None) -> dict[str, Any]:
    return {
        "tenant_id": ctx.tenant_id,
        "tracked_at": _moment(hit.at),
        "type": hit.type,
        "lead_id": hit.lead_id,
        "campaign_id": campaign_id,
        "send_id": hit.send_id,
        "seq": hit.seq,
        "link": hit.link,
        "channel": "email",
        "verdict": str(verdict),
        "attributes": {},
    }


def _campaigns(ctx: Context, send_ids: set[int]) -> dict[int, int]:
    found = ctx.session.execute(select(Send.id, Send.campaign_id).where(Send.id.in_(send_ids)))
    return {row.id: row.campaign_id for row in found}


def _moment(value: Any) -> datetime | None:
    """Hand-written SQL gets canonical text on SQLite."""
    return from_text(value) if isinstance(value, str) else value


def record_engagements(ctx: Context, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Take in reported events; each row is accepted, a duplicate or rejected on its own.

    Args:
        rows: ``type``, ``lead_id`` and optionally ``event_id`` (makes a repeat harmless), ``campaign_id``,
            ``channel``, ``tracked_at``, ``notes``, ``metadata``.

    Returns:
        Per row ``status`` (``accepted``, ``duplicate``, ``rejected``), and ``id`` or ``errors``.
    """
    answers = [_take_in(ctx, dict(row)) for row in rows]
    accepted = sum(answer["status"] == "accepted" for answer in answers)
    if accepted:
        record(ctx, "engagements.recorded", "engagement", "batch", {"count": (None, accepted)})
    return answers


def _take_in(ctx: Context, row: dict[str, Any]) -> dict[str, Any]:
    try:
        engagement = _reported(ctx, row)
    except NexusError as error:
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in error.problems]
        return {"status": "rejected", "errors": problems}
    event_id = row.get("event_id")
    if event_id is not None and not claim_event_id(ctx.session, str(event_id), ctx.now.date()):
        return {"status": "duplicate", "event_id": event_id}
    ctx.session.add(engagement)
    ctx.session.flush()
    return {"status": "accepted", "id": str(engagement.id)}


def _reported(ctx: Context, row: dict[str, Any]) -> Engagement:
    values = canonical(row)
    tracked_at = _tracked_at(ctx, values.get("tracked_at"))
    lead_id = int(values["lead_id"])
    if ctx.session.get(Lead, (ctx.tenant_id, lead_id)) is None:
        raise ValidationError.at("lead_id", "not_found", "There is no such lead.")
    campaign_id = None if values.get("campaign_id") is None else int(values["campaign_id"])
    if campaign_id is not None and ctx.session.get(Campaign, (ctx.tenant_id, campaign_id)) is None:
        raise ValidationError.at("campaign_id", "not_found", "There is no such campaign.")
    return Engagement(
        tracked_at=tracked_at,
        type=values["type"],
        lead_id=lead_id,
        campaign_id=campaign_id,
        channel=values.get("channel"),
        verdict=Verdict.HUMAN,
        notes=values.get("notes"),
        attributes=values.get("metadata") or {},
    )


def _tracked_at(ctx: Context, text: str | None) -> datetime:
    if text is None:
        return ctx.now
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValidationError.at(
            "tracked_at", "not_a_moment", f"{text!r}: write a moment with zone, like 2026-03-02T10:00:00Z."
        )
    if not ctx.now - _OLDEST <= moment <= ctx.now + _FUTURE:
        raise ValidationError.at("tracked_at", "out_of_bounds", f"{text} must lie within the last {_OLDEST.days} days.")
    return moment
