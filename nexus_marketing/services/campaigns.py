"""Campaigns: writing them down, and the moves of their life (DESIGN.md 4.17, Flows: Launch)."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignAction, CampaignStatus, MessageClass, move
from nexus_marketing.core.deliveries import OPEN_SENDS, SendStatus
from nexus_marketing.core.errors import Conflict, NotFound, Problem, StaleVersion, ValidationError
from nexus_marketing.core.events import (
    CampaignCancelled,
    CampaignCompleted,
    CampaignCreated,
    CampaignEvent,
    CampaignLaunched,
    CampaignPaused,
    CampaignResumed,
)
from nexus_marketing.core.messages import parse_message
from nexus_marketing.core.values import canonical
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import Campaign, ChannelAccount, History, Member, Segment, Send, Template
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record

_EVENTS: Mapping[CampaignAction, type[CampaignEvent]] = {
    CampaignAction.LAUNCH: CampaignLaunched,
    CampaignAction.PAUSE: CampaignPaused,
    CampaignAction.RESUME: CampaignResumed,
    CampaignAction.COMPLETE: CampaignCompleted,
    CampaignAction.CANCEL: CampaignCancelled,
}
_SEND_MOVES: Mapping[CampaignAction, tuple[tuple[SendStatus, SendStatus], ...]] = {
    CampaignAction.PAUSE: ((SendStatus.RUNNING, SendStatus.PAUSED), (SendStatus.PLANNING, SendStatus.PAUSED)),
    # A missed send waited for a person: resuming is that person's word.
    CampaignAction.RESUME: ((SendStatus.PAUSED, SendStatus.PLANNING), (SendStatus.MISSED, SendStatus.PLANNING)),
    CampaignAction.CANCEL: tuple((status, SendStatus.CANCELLED) for status in OPEN_SENDS),
}
_MINOR_DIGITS: Mapping[str, int] = {"JPY": 0, "KRW": 0, "ISK": 0, "CLP": 0, "VND": 0, "BHD": 3, "KWD": 3, "TND": 3}
_REFERENCES: Mapping[str, type[Base]] = {"segment_id": Segment, "template_id": Template, "owner_id": Member}
_EDITABLE = frozenset({CampaignStatus.DRAFT, CampaignStatus.QUEUED, CampaignStatus.PAUSED})


def create_campaign(ctx: Context, data: Mapping[str, Any]) -> Campaign:
    """Write down a campaign as a draft.

    Args:
        data: ``name``; optional ``message_class``, ``channel``, ``segment_id``, ``template_id``, ``owner_id``,
            ``subject_type``, ``subject_id``, ``data``, ``budget`` (major units) and ``currency``.

    Raises:
        ValidationError: a reference leads nowhere, or money has more decimals than its currency.
    """
    values = _canonical(ctx, data)
    campaign = Campaign(
        **{
            "message_class": MessageClass.MARKETING,
            "channel": "email",
            "data": {},
            **values,
            "status": CampaignStatus.DRAFT,
            "version": 1,
            "created_at": ctx.now,
            "updated_at": ctx.now,
        }
    )
    ctx.session.add(campaign)
    ctx.session.flush()
    _remember(ctx, campaign, "created", None)
    record(ctx, "campaign.created", "campaign", campaign.id, {name: (None, values[name]) for name in values})
    ctx.emit(CampaignCreated(campaign.tenant_id, ctx.now, campaign.id))
    return campaign


def update_campaign(
    ctx: Context, campaign_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> Campaign:
    """Change a campaign that is not sending.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: it is active or finished; pause it first.
    """
    campaign = _locked(ctx, campaign_id, expected_version)
    if CampaignStatus(campaign.status) not in _EDITABLE:
        remedy = "create another one" if campaign.status in FINAL_STATUSES else "pause it before changing it"
        raise Conflict(f"The campaign is {campaign.status}: {remedy}.", status=campaign.status)
    values = _canonical(ctx, {"currency": campaign.currency, **data} if "budget" in data else data)
    before = {name: getattr(campaign, name) for name in values}
    for name, value in values.items():
        setattr(campaign, name, value)
    _touch(ctx, campaign)
    record(ctx, "campaign.updated", "campaign", campaign.id, {n: (before[n], values[n]) for n in values})
    return campaign


def launch_campaign(ctx: Context, campaign_id: int, *, expected_version: int | None = None) -> Campaign:
    """Launch: the campaign becomes active and a send waits for its audience to be planned.

    Nothing else happens in the request; planning and sending are the workers' work (PR-001).

    Raises:
        TransitionRefused: it is not a draft.
        ValidationError: no audience, no template, no sender, no postal address or no unsubscribe link,
            each named with its remedy.
    """
    campaign = _locked(ctx, campaign_id, expected_version)
    status = move(CampaignStatus(campaign.status), CampaignAction.LAUNCH)
    template, sender = _check_launchable(ctx, campaign)
    _transition(ctx, campaign, CampaignAction.LAUNCH, status)
    campaign.started_at = ctx.now
    ctx.session.add(
        Send(
            campaign_id=campaign.id,
            campaign_version=campaign.version,
            occurrence_key="once",
            status=SendStatus.PLANNING,
            message_class=campaign.message_class,
            channel=campaign.channel,
            segment_id=campaign.segment_id,
            template_id=template.id,
            template_version=template.version,
            sender=sender,
            send_not_after=ctx.now + ctx.runtime.settings.grace,
            created_at=ctx.now,
        )
    )
    ctx.session.flush()
    ctx.ring("sends")
    return campaign


def pause_campaign(ctx: Context, campaign_id: int, *, expected_version: int | None = None) -> Campaign:
    """Hold everything that has not been handed over; workers see it at their next window."""
    return _act(ctx, campaign_id, CampaignAction.PAUSE, expected_version)


def resume_campaign(ctx: Context, campaign_id: int, *, expected_version: int | None = None) -> Campaign:
    """Go on where it stopped; planning that was interrupted goes on too."""
    campaign = _act(ctx, campaign_id, CampaignAction.RESUME, expected_version)
    ctx.ring("sends")
    return campaign


def cancel_campaign(ctx: Context, campaign_id: int, *, expected_version: int | None = None) -> Campaign:
    """Give up; recipients not handed over are settled as ``skipped(cancelled)`` by the workers."""
    campaign = _act(ctx, campaign_id, CampaignAction.CANCEL, expected_version)
    campaign.completed_at = ctx.now
    ctx.ring("sends")
    return campaign


def finish_campaign(ctx: Context, campaign_id: int) -> None:
    """Complete an active campaign whose sends are all finished; workers call it, nothing else may."""
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if campaign.status != CampaignStatus.ACTIVE or _open_sends(ctx, campaign):
        return
    _transition(ctx, campaign, CampaignAction.COMPLETE, CampaignStatus.COMPLETED)
    campaign.completed_at = ctx.now


def hold_campaign(ctx: Context, campaign_id: int, reason: str) -> None:
    """Pause a campaign because its send cannot go on, with the reason shown to people."""
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if campaign.status == CampaignStatus.ACTIVE:
        _transition(ctx, campaign, CampaignAction.PAUSE, CampaignStatus.PAUSED, reason)


def _act(ctx: Context, campaign_id: int, action: CampaignAction, expected_version: int | None) -> Campaign:
    campaign = _locked(ctx, campaign_id, expected_version)
    status = move(CampaignStatus(campaign.status), action)
    moves = dict(_SEND_MOVES[action])
    for send in _sends(ctx, campaign, tuple(moves)):
        send.status = moves[SendStatus(send.status)]
        send.status_reason = None
        if send.status == SendStatus.PLANNING:
            send.send_not_after = ctx.now + ctx.runtime.settings.grace
            if send.planned_at is not None:
                send.status = SendStatus.RUNNING  # the audience is frozen: nobody joins it now
    _transition(ctx, campaign, action, status)
    return campaign


def _open_sends(ctx: Context, campaign: Campaign) -> list[Send]:
    return _sends(ctx, campaign, OPEN_SENDS)


def _sends(ctx: Context, campaign: Campaign, statuses: tuple[SendStatus, ...]) -> list[Send]:
    statement = (
        select(Send)
        .where(Send.campaign_id == campaign.id, Send.status.in_(statuses))
        .order_by(Send.id)
        .with_for_update()
    )
    return list(ctx.session.scalars(statement))


def _locked(ctx: Context, campaign_id: int, expected_version: int | None) -> Campaign:
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if expected_version is not None and expected_version != campaign.version:
        raise StaleVersion(
            f"The campaign is at version {campaign.version}, not {expected_version}: load it and try again.",
            current=campaign.version,
        )
    return campaign


def _transition(
    ctx: Context, campaign: Campaign, action: CampaignAction, status: CampaignStatus, reason: str | None = None
) -> None:
    before = campaign.status
    campaign.status = status
    campaign.status_reason = reason
    _touch(ctx, campaign)
    _remember(ctx, campaign, action, before)
    record(ctx, f"campaign.{action}", "campaign", campaign.id, {"status": (before, str(status))})
    ctx.emit(_EVENTS[action](campaign.tenant_id, ctx.now, campaign.id))


def _touch(ctx: Context, campaign: Campaign) -> None:
    campaign.version += 1
    campaign.updated_at = ctx.now
    ctx.session.flush()


def _remember(ctx: Context, campaign: Campaign, event: str, before: str | None) -> None:
    ctx.session.add(
        History(
            campaign_id=campaign.id,
            event=event,
            before={"status": before} if before else {},
            after={"status": campaign.status},
            actor=ctx.actor.label,
            actor_id=ctx.actor.member_id,
            payload={"reason": campaign.status_reason} if campaign.status_reason else {},
            at=ctx.now,
        )
    )


def _check_launchable(ctx: Context, campaign: Campaign) -> tuple[Template, dict[str, Any]]:
    problems: list[Problem] = []
    template = _optional(ctx, Template, campaign.template_id)
    account = ctx.session.scalars(
        select(ChannelAccount)
        .where(ChannelAccount.type == campaign.channel, ChannelAccount.enabled.is_(True))
        .order_by(ChannelAccount.id)
        .limit(1)
    ).first()
    if campaign.segment_id is None:
        problems.append(
            Problem("segment_id", "no_audience", "The campaign has no audience: set segment_id to a segment first.")
        )
    if template is None:
        problems.append(
            Problem("template_id", "no_template", "The campaign has no message: set template_id to a template first.")
        )
    if account is None:
        problems.append(
            Problem("channel", "no_sender", f"No {campaign.channel} sender is set up: add a channel account first.")
        )
    if campaign.channel not in ctx.runtime.channels:
        problems.append(Problem("channel", "unknown_channel", f"There is no channel {campaign.channel!r} here."))
    if campaign.message_class == MessageClass.MARKETING and template is not None and account is not None:
        problems += _marketing_problems(template, account)
    if problems or template is None or account is None:
        raise ValidationError(problems=problems)
    return template, dict(account.config)


def _marketing_problems(template: Template, account: ChannelAccount) -> list[Problem]:
    """What the law asks of marketing mail (CAN-SPAM 15 USC 7704; CASL; RFC 8058)."""
    problems = []
    message = parse_message(template.content, template.variables)
    for name, pieces in message.parts.items():
        if name != "subject" and not any(getattr(piece, "path", "") == "unsubscribe_url" for piece in pieces):
            problems.append(
                Problem(
                    f"template.content.{name}",
                    "no_unsubscribe_link",
                    "Marketing mail needs a visible way out: put {{ unsubscribe_url }} in this part.",
                )
            )
    if not str(account.config.get("postal_address", "")).strip():
        problems.append(
            Problem("channel.postal_address", "no_postal_address", "Marketing mail needs the sender's postal address.")
        )
    elif not any("postal_address" in _paths(pieces) for name, pieces in message.parts.items() if name != "subject"):
        problems.append(Problem("template.content", "no_postal_address", "Put {{ postal_address }} in the message."))
    return problems


def _paths(pieces: tuple[Any, ...]) -> set[str]:
    return {getattr(piece, "path", "") for piece in pieces}


def _optional(ctx: Context, model: type[Template], id_: int | None) -> Template | None:
    if id_ is None:
        return None
    try:
        return find(ctx.session, model, id_)
    except NotFound:
        return None


def _canonical(ctx: Context, data: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = canonical(dict(data))
    problems: list[Problem] = []
    for name, model in _REFERENCES.items():
        if values.get(name) is not None:
            values[name] = int(values[name])
            if ctx.session.get(model, (ctx.tenant_id, values[name])) is None:
                problems.append(Problem(name, "not_found", f"There is no such {name.removesuffix('_id')}."))
    if "budget" in values:
        values["budget_minor"] = _minor(values.pop("budget"), values.get("currency"), problems)
    if problems:
        raise ValidationError(problems=problems)
    return values


def _minor(budget: Any, currency: str | None, problems: list[Problem]) -> int | None:
    """Major units as integer minor units (DESIGN.md 4.11)."""
    if budget is None:
        return None
    if currency is None:
        problems.append(Problem("currency", "required", "A budget needs a currency, for example EUR."))
        return None
    digits = _MINOR_DIGITS.get(currency, 2)
    try:
        minor = Decimal(str(budget)).scaleb(digits)
    except InvalidOperation:
        problems.append(Problem("budget", "not_money", f"{budget!r} is no amount: write 1000 or '1000.00'."))
        return None
    if minor != minor.to_integral_value() or minor < 0 or minor > 2**53:
        problems.append(
            Problem(
                "budget", "not_money", f"{budget} is no amount in {currency}: at most {digits} decimals, not negative."
            )
        )
        return None
    return int(minor)


def major(minor: int | None, currency: str | None) -> str | None:
    """Minor units as a decimal string in major units."""
    if minor is None:
        return None
    return f"{Decimal(minor).scaleb(-_MINOR_DIGITS.get(currency or '', 2)):f}"
