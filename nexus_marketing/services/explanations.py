"""Why somebody got a message or did not, read from the ledger (BEHAVIOUR.md 5.2)."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.deliveries import DeliveryState, HoldReason, SkipReason
from nexus_marketing.db.models import Delivery, SegmentMember, Send
from nexus_marketing.runtime import Context

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
    HoldReason.AMBIGUOUS: "nobody knows whether the first attempt left; the second waits",
}


def explain_lead(ctx: Context, lead_id: int, campaign_id: int) -> dict[str, Any]:
    """What became of a lead in a campaign.

    Returns:
        ``sentence`` (for people, about the newest send) and ``deliveries``: per send ``send_id``,
        ``seq``, ``channel``, ``state``, ``reason``, ``attempts``, ``provider_code``, ``settled_at``
        and ``due_at``, newest first.
    """
    rows = ctx.session.execute(
        select(Delivery, Send.status)
        .join(Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id))
        .where(Send.campaign_id == campaign_id, Delivery.lead_id == lead_id)
        .order_by(Delivery.send_id.desc(), Delivery.seq)
    ).all()
    names = ("send_id", "seq", "channel", "state", "reason", "attempts", "provider_code", "settled_at", "due_at")
    deliveries = [{name: getattr(row.Delivery, name) for name in names} for row in rows]
    sentence = _sentence(rows[0].Delivery) if rows else _never_planned(ctx, lead_id, campaign_id)
    return {"lead_id": str(lead_id), "campaign_id": str(campaign_id), "sentence": sentence, "deliveries": deliveries}


def _sentence(row: Delivery) -> str:
    if row.state == DeliveryState.SKIPPED:
        return f"Nothing was sent: {_REASONS.get(row.reason or '', row.reason or 'no reason was kept')}."
    sentence = _STATES.get(row.state, f"The message is {row.state}.")
    if row.state == DeliveryState.FAILED and row.provider_code:
        return f"{sentence[:-1]}: the server answered {row.provider_code} ({row.reason})."
    if row.state == DeliveryState.PLANNED and row.due_at is not None:
        return f"{sentence[:-1]}: {_waiting(row)}."
    return sentence


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
