"""Campaigns written down: made, and changed while they are nobody's message yet (DESIGN.md 4.17)."""

from collections.abc import Mapping
from typing import Any

from nexus_marketing.core.campaigns import (
    CREATED,
    FINAL_STATUSES,
    CampaignStatus,
    HistoryEntry,
    MessageClass,
)
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.errors import Conflict, Problem, ValidationError
from nexus_marketing.core.events import CampaignCreated
from nexus_marketing.core.fan_out import ALL, legs_of
from nexus_marketing.core.money import minor_units
from nexus_marketing.core.pacing.frequency import DEFAULT_PRIORITY
from nexus_marketing.core.values import canonical
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import Campaign, Member, Segment, Template
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.forms import own_rate_faults, settle_channels, settle_times
from nexus_marketing.services.campaigns.recurring import recurrence_faults
from nexus_marketing.services.campaigns.rows import key_of, remember
from nexus_marketing.services.definitions import chosen_definition, definition_of
from nexus_marketing.services.versions import find_to_change

_REFERENCES: Mapping[str, type[Base]] = {"segment_id": Segment, "template_id": Template, "owner_id": Member}
_EDITABLE = frozenset({CampaignStatus.DRAFT, CampaignStatus.QUEUED, CampaignStatus.PAUSED})


def create_campaign(ctx: Context, data: Mapping[str, Any]) -> Campaign:
    """Write down a campaign as a draft.

    Args:
        data: ``name``; optional ``message_class``, ``channel``, or ``channels`` (several at once, each with its
            ``template_id``) with ``wait_for`` (``all``, ``any`` or how many of them), ``recurrence`` (sent again and again:
            ``core.pacing.recurrence``), ``local_start`` (each lead gets it when its own clock
            shows this), ``send_rates`` (how fast each of its sends may be: ``core.pacing.rates.check_own_rates``),
            ``priority`` (0 to 100), ``obeys_caps``,
            ``counts_toward_caps``, ``segment_id``, ``template_id``, ``owner_id``,
            ``subject_type``, ``subject_id``, ``data``, ``budget`` (major units) and ``currency``. With
            ``definition_id`` (and ``definition_version``; the one in force where it is left out) the
            definition gives what is left out here, and ``data`` are held against its ``dataSchema``.

    Raises:
        ValidationError: a reference leads nowhere, the data are not as the definition asks, or money has
            more decimals than its currency.
        Conflict: the subject has a campaign of this definition already.
    """
    document, definition = chosen_definition(ctx, data)
    values = _canonical(ctx, document)
    settle_channels(values, "email", None, ALL)
    settle_times(values, None, None)
    campaign = Campaign(
        **{
            "message_class": MessageClass.MARKETING,
            "channel": "email",
            "priority": DEFAULT_PRIORITY,
            "obeys_caps": True,
            "counts_toward_caps": True,
            "wait_for": ALL,
            "data": {},
            **values,
            "status": CampaignStatus.DRAFT,
            "stage": definition.entry(CampaignStatus.DRAFT),
            "counters": {},
            "version": 1,
            "created_at": ctx.now,
            "updated_at": ctx.now,
        }
    )
    ctx.session.add(campaign)
    ctx.session.flush()
    after = {"stage": campaign.stage, "status": campaign.status}
    remember(ctx, campaign, HistoryEntry(1, CREATED, {}, after, ctx.actor.label, ctx.now))
    record(ctx, "campaign.created", "campaign", campaign.id, {name: (None, values[name]) for name in values})
    ctx.emit(CampaignCreated(campaign.tenant_id, ctx.now, str(campaign.id), key_of(campaign), ctx.actor.label))
    return campaign


def update_campaign(
    ctx: Context, campaign_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> Campaign:
    """Change a campaign that is not sending.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: it is active or finished; pause it first.
    """
    campaign = find_to_change(ctx, Campaign, campaign_id, expected_version)
    if CampaignStatus(campaign.status) not in _EDITABLE:
        remedy = "create another one" if campaign.status in FINAL_STATUSES else "pause it before changing it"
        raise Conflict(f"The campaign is {campaign.status}: {remedy}.", status=campaign.status)
    values = _canonical(ctx, {"currency": campaign.currency, **data} if "budget" in data else data)
    settle_channels(values, campaign.channel, campaign.channels, campaign.wait_for)
    settle_times(values, campaign.recurrence, campaign.local_start)
    if campaign.status == CampaignStatus.PAUSED:
        _check_same_kind(campaign, values)
    if "data" in values:
        definition = definition_of(ctx, campaign)
        _check_data(definition, values["data"])
        if campaign.status == CampaignStatus.QUEUED:
            campaign.starts_at = lifecycle.starts_at(definition, values["data"])
            campaign.tick_at = ctx.now
    before = {name: getattr(campaign, name) for name in values}
    for name, value in values.items():
        setattr(campaign, name, value)
    campaign.version += 1
    campaign.updated_at = ctx.now
    if campaign.tick_at is not None:
        campaign.tick_at = ctx.now  # what was changed may be what a condition waits for
    ctx.session.flush()
    record(ctx, "campaign.updated", "campaign", campaign.id, {n: (before[n], values[n]) for n in values})
    return campaign


def _check_data(definition: Definition, data: Mapping[str, Any]) -> None:
    problems = definition.form.faults({**definition.defaults, **data}, path="data")
    if problems:
        raise ValidationError(problems=problems)


def _canonical(ctx: Context, data: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = canonical(dict(data))
    problems: list[Problem] = []
    for name, model in _REFERENCES.items():
        if values.get(name) is not None:
            values[name] = int(values[name])
            if ctx.session.get(model, (ctx.tenant_id, values[name])) is None:
                problems.append(Problem(name, "not_found", f"There is no such {name.removesuffix('_id')}."))
    problems += [
        Problem(leg.path("template_id"), "not_found", "There is no such template.")
        for leg in legs_of("", None, values.get("channels"))
        if leg.template_id is not None and ctx.session.get(Template, (ctx.tenant_id, leg.template_id)) is None
    ]
    if values.get("recurrence") is not None:
        problems += recurrence_faults(ctx, values["recurrence"])
    if values.get("send_rates") is not None:
        problems += own_rate_faults(values["send_rates"])
    if "budget" in values:
        values["budget_minor"] = _minor(values.pop("budget"), values.get("currency"), problems)
    if problems:
        raise ValidationError(problems=problems)
    return values


def _check_same_kind(campaign: Campaign, values: Mapping[str, Any]) -> None:
    """What was sent once does not begin to recur, nor does what recurs end by losing its rule: nothing would complete it."""
    if "recurrence" in values and (values["recurrence"] is None) is not (campaign.recurrence is None):
        said = "A launched campaign keeps its kind: change the rule, end it by until or count, or cancel the campaign."
        raise ValidationError.at("recurrence", "not_allowed", said)


def _minor(budget: Any, currency: str | None, problems: list[Problem]) -> int | None:
    if budget is None:
        return None
    if currency is None:
        problems.append(Problem("currency", "required", "A budget needs a currency, for example EUR."))
        return None
    try:
        return minor_units(budget, currency)
    except ValidationError as error:
        problems += error.problems
        return None
