"""Why somebody got a message or did not, read from the ledger (BEHAVIOUR.md 5.2)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.deliveries import DeliveryState, HoldReason, SkipReason
from nexus_marketing.core.fan_out import legs_of
from nexus_marketing.db.models import Campaign, Delivery, DeliveryChunk, SegmentMember, Send, Template
from nexus_marketing.db.queries.deliveries import GATHERED
from nexus_marketing.db.tenancy import find
from nexus_marketing.db.types import read_moment
from nexus_marketing.delivery.forecast import trace_lead
from nexus_marketing.delivery.gate import Check
from nexus_marketing.runtime import Context

#: Why somebody is not in the audience.
NOT_A_MEMBER: Final = "not_a_member"

_NEVER: Final = read_moment(GATHERED)
_STATES: Final[Mapping[str, str]] = {
    DeliveryState.PLANNED: "The message is planned and has not been handed over yet.",
    DeliveryState.ACCEPTED: "The message was handed over and accepted.",
    DeliveryState.DELIVERED: "The message was delivered.",
    DeliveryState.BOUNCED_SOFT: "The message bounced; the address may work again.",
    DeliveryState.BOUNCED_HARD: "The message bounced for good.",
    DeliveryState.COMPLAINED: "The message was delivered and the recipient complained.",
    DeliveryState.FAILED: "The message could not be handed over.",
    DeliveryState.UNKNOWN: "Nobody knows whether the message left: the connection broke at that moment; "
    "marketing is not repeated.",
}
_REASONS: Final[Mapping[str, str]] = {
    SkipReason.NO_ADDRESS: "the lead has no address for this channel",
    SkipReason.UNSUPPORTED_ADDRESS: "the mail server cannot take this address",
    SkipReason.SUPPRESSED: "the address is suppressed: an unsubscribe, a complaint or a bounce",
    SkipReason.CONSENT_MISSING: "marketing to this country needs consent and there is none",
    SkipReason.CONSENT_EXPIRED: "the consent had expired",
    SkipReason.OBJECTED: "the lead has withdrawn consent",
    SkipReason.CAP: "the lead had enough messages in that time",
    SkipReason.QUIET_EXPIRED: "quiet hours would have held it back for too long",
    SkipReason.HOLDOUT: "the lead was drawn into the control group",
    SkipReason.DUPLICATE_ADDRESS: "another lead with the same address got it",
    SkipReason.MISSING_VARIABLE: "the message needs a value that the lead does not have",
    SkipReason.RENDER_ERROR: "the message could not be made from the lead's values",
    SkipReason.MISSED: "the send came too late",
    SkipReason.CANCELLED: "the campaign was cancelled",
}

_HOLDS: Final[Mapping[str, str]] = {
    HoldReason.LOCAL_START: "the campaign begins by the lead's own clock, it waits",
    HoldReason.QUIET_HOURS: "it is held for quiet hours",
    HoldReason.CAP: "the lead had enough messages, it waits for room",
    HoldReason.RATE: "the rate for the domain of its address is used up, it waits for room",
    HoldReason.THROTTLED: "the provider of its address asked for patience, it waits",
    HoldReason.AMBIGUOUS: "nobody knows whether the first attempt left; the second waits",
}


def explain_lead(ctx: Context, lead_id: int, campaign_id: int) -> dict[str, Any]:
    """What became of a lead in a campaign, and what would if it were launched now.

    Returns:
        ``sentence`` (for people, about the newest send) and ``deliveries``: per send ``send_id``,
        ``seq``, ``channel``, ``state``, ``reason``, ``attempts``, ``provider_code``, ``settled_at``
        and ``due_at``, newest first. ``now``: for each channel that the campaign could go out by, ``checks`` (every
        question of the gate with ``reason``, empty where it passes, and ``until`` where time mends it), and
        ``eligible_at``: now, when the last of them passes, or never unless somebody does something (``null``).
    """
    campaign = find(ctx.session, Campaign, campaign_id)
    rows = ctx.session.execute(
        select(Delivery, Send.status)
        .join(Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id))
        .where(Send.campaign_id == campaign_id, Delivery.lead_id == lead_id)
        .order_by(Delivery.send_id.desc(), Delivery.seq)
    ).all()
    names = ("send_id", "seq", "channel", "state", "reason", "attempts", "provider_code", "settled_at", "due_at")
    deliveries = [{name: getattr(row.Delivery, name) for name in names} for row in rows]
    for each in deliveries:  # of whoever is in a piece of work no moment is known
        each["due_at"] = None if each["due_at"] == _NEVER else each["due_at"]
    sentence = _sentence(ctx, rows[0].Delivery) if rows else _never_planned(ctx, lead_id, campaign_id)
    return {
        "lead_id": str(lead_id),
        "campaign_id": str(campaign_id),
        "sentence": sentence,
        "deliveries": deliveries,
    } | {"now": _now(ctx, campaign, lead_id)}


def _now(ctx: Context, campaign: Campaign, lead_id: int) -> list[dict[str, Any]]:
    if campaign.segment_id is None:
        return []
    is_member = ctx.session.get(SegmentMember, (ctx.tenant_id, campaign.segment_id, lead_id)) is not None
    audience = Check("audience", None if is_member else NOT_A_MEMBER)
    found = []
    for leg in legs_of(campaign.channel, campaign.template_id, campaign.channels):
        template = None if leg.template_id is None else ctx.session.get(Template, (ctx.tenant_id, leg.template_id))
        channel = ctx.runtime.channels.get(leg.channel)
        if template is None or channel is None or template.type != channel.capabilities.template_type:
            continue  # a launch is refused
        checks = [audience, *trace_lead(ctx.runtime, ctx.session, campaign, leg, template.version, lead_id)]
        found.append(
            {
                "channel": leg.channel,
                "eligible_at": _eligible_at(ctx, checks),
                "checks": [each._asdict() for each in checks],
            }
        )
    return found


def _eligible_at(ctx: Context, checks: Sequence[Check]) -> datetime | None:
    """When every check passes, as far as time alone decides it."""
    held = [each for each in checks if each.reason is not None]
    moments = [each.until for each in held if each.until is not None]
    if len(moments) < len(held):
        return None
    return max(moments, default=ctx.now)


def _sentence(ctx: Context, row: Delivery) -> str:
    if row.state == DeliveryState.SKIPPED:
        return f"Nothing was sent: {_REASONS.get(row.reason or '', row.reason or 'no reason was kept')}."
    sentence = _STATES.get(row.state, f"The message is {row.state}.")
    if row.state == DeliveryState.FAILED and row.provider_code:
        return f"{sentence[:-1]}: the server answered {row.provider_code} ({row.reason})."
    if row.state == DeliveryState.PLANNED and (row.reason == HoldReason.RATE or _waits_for_domain(ctx, row)):
        return f"{sentence[:-1]}: {_HOLDS[HoldReason.RATE]}."
    if row.state == DeliveryState.PLANNED and row.due_at is not None:
        return f"{sentence[:-1]}: {_waiting(row)}."
    return sentence


def _waits_for_domain(ctx: Context, row: Delivery) -> bool:
    """Whether all who are left of the recipient's chunk wait for the rate of a domain, of whom nothing is written."""
    if row.due_at is not None:
        return False
    chunks = select(DeliveryChunk.chunk_no).where(
        DeliveryChunk.send_id == row.send_id,
        DeliveryChunk.closed_at.is_(None),
        DeliveryChunk.waits_for.is_not(None),
        DeliveryChunk.seqs.is_(None),
        DeliveryChunk.seq_lo <= row.seq,
        DeliveryChunk.seq_hi >= row.seq,
    )
    return ctx.session.scalars(chunks.limit(1)).first() is not None


def _waiting(row: Delivery) -> str:
    at = row.due_at.isoformat() if row.due_at is not None else ""
    if row.reason == HoldReason.OUTRANKED:
        return f"{row.provider_code} is due for the same lead and goes first; it is looked at again at {at}"
    held = _HOLDS.get(row.reason or "")
    return f"{held} until {at}" if held else f"attempt {row.attempts + 1} is due at {at}"


def _never_planned(ctx: Context, lead_id: int, campaign_id: int) -> str:
    send = ctx.session.scalars(
        select(Send).where(Send.campaign_id == campaign_id).order_by(Send.id.desc()).limit(1)
    ).first()
    if send is None:
        return "The campaign has not been launched."
    is_member = ctx.session.scalars(
        select(SegmentMember.lead_id).where(
            SegmentMember.segment_id == send.segment_id, SegmentMember.lead_id == lead_id
        )
    ).first()
    if send.planned == 0 and send.finished_at is None:
        return "The audience has not been planned yet."
    if is_member is None:
        return "The lead was not in the campaign's segment when its audience was planned."
    return "The lead joined the segment after the audience was frozen."
