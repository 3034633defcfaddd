"""Escalation: a campaign's rules are looked at by its one timer, and each that acts is written down with its action.

The condition is read with the campaign's figures as they are at that moment: ``data.engagement_rate``, ``data.emails_sent``
and ``campaign.metrics``. The look, the line and the request of the action are one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.escalation import EscalationDecision, EscalationTerms, Raised, decide
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime, parse_datetime
from nexus_marketing.db.models import Campaign, Escalation
from nexus_marketing.db.queries.timers import take_timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.assignees import next_above
from nexus_marketing.services.actions.requests import ActionRequest, request_action
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.rows import note, state_of
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.timers import Locking, set_timer

#: The timer of a campaign whose rules are to be looked at; its payload says since when conditions hold.
TYPE: Final = "campaign.escalation"
_ENTITY: Final = "campaign"
#: While a campaign is paused it is not looked at; becoming active again sets the timer.
_LOOKED_AT: Final = (CampaignStatus.ACTIVE, CampaignStatus.COMPLETED)


def watch(ctx: Context, campaign: Campaign, definition: Definition) -> None:
    """Have the rules of a campaign that became active looked at when the first of them may act."""
    if not definition.automation.escalation:
        return
    begun = campaign.started_at or ctx.now
    decision = decide(terms_of(definition), [], (), {}, begun, ctx.now)
    if decision.look_at is not None:
        set_timer(ctx, TYPE, str(campaign.id), decision.look_at, campaign_id=campaign.id)


def terms_of(definition: Definition) -> list[EscalationTerms]:
    """When each rule of a definition may act, in the order of the document."""
    return [
        EscalationTerms(index, each.level, each.after, each.hold_for, each.minimum, each.cool_down)
        for index, each in enumerate(definition.automation.escalation)
    ]


def _escalate(ctx: Context, timer: TimerFact) -> None:
    """Look at a campaign's rules: ask for the action of the one that acts, and look again later."""
    campaign = find(ctx.session, Campaign, int(timer.key), lock=True)
    if not take_timer(ctx.session, timer):
        return
    if campaign.status not in _LOOKED_AT or campaign.started_at is None:
        return
    definition = definition_of(ctx, campaign)
    figures = _figures(ctx, campaign)
    facts = _facts(campaign, definition, figures, ctx.now)
    rules = definition.automation.escalation
    holding = {index for index, rule in enumerate(rules) if rule.condition is None or rule.condition(*facts)}
    since = {int(index): parse_datetime(at) for index, at in timer.payload.get("since", {}).items()}
    lines = escalations_of(ctx, campaign.id)
    decision = decide(
        terms_of(definition),
        [Raised(each.level, each.at, each.acknowledged_at) for each in lines],
        holding,
        since,
        campaign.started_at,
        ctx.now,
        sample=figures["accepted"],
        ended_at=campaign.completed_at,
    )
    for index in decision.acts:
        _raise(ctx, campaign, definition, index, len(lines), figures)
    _look_again(ctx, campaign, decision)


#: What the timer of a campaign's rules does.
ESCALATION_DUE: Final = Locking(_escalate)


def _look_again(ctx: Context, campaign: Campaign, decision: EscalationDecision) -> None:
    if decision.look_at is not None:
        since = {str(index): canonical_datetime(at) for index, at in decision.since.items()}
        set_timer(ctx, TYPE, str(campaign.id), decision.look_at, {"since": since}, campaign_id=campaign.id)


def _raise(
    ctx: Context, campaign: Campaign, definition: Definition, index: int, number: int, figures: Mapping[str, Any]
) -> None:
    rule = definition.automation.escalation[index]
    above = next_above(ctx, campaign)
    condition = rule.condition.spelling if rule.condition is not None else "whatever the figures"
    reason = f"{condition}, with {figures['accepted']} messages taken and an engagement rate of {figures['rate']:.3g}"
    told: dict[str, Any] = {"level": rule.level, "reason": reason, "from": campaign.owner_id, "to": above, **rule.data}
    request = ActionRequest(
        rule.action,
        f"escalation:{campaign.id}:{number + 1}",
        ActionSource.ESCALATION,
        campaign_id=campaign.id,
        data={name: value for name, value in told.items() if value is not None},
        compensation=rule.compensate,
    )
    action_id = request_action(ctx, request)
    line = Escalation(
        entity_type=_ENTITY,
        entity_id=campaign.id,
        level=rule.level,
        rule=index,
        action=rule.action,
        action_id=action_id,
        from_user_id=campaign.owner_id,
        to_user_id=above,
        reason=reason,
        at=ctx.now,
    )
    ctx.session.add(line)
    note(ctx, campaign, "escalated", {"level": rule.level, "action": rule.action, "reason": reason})
    record(ctx, "campaign.escalated", "campaign", campaign.id, {"level": (None, rule.level)})


def acknowledge(ctx: Context, escalation_id: int) -> Escalation:
    """Say that somebody has seen an escalation: higher levels keep quiet, its own may act again after the cool-down.

    A second time changes nothing.

    Raises:
        NotFound: there is none.
    """
    line = find(ctx.session, Escalation, escalation_id, lock=True)
    if line.acknowledged_at is None:
        line.acknowledged_at, line.acknowledged_by = ctx.now, ctx.actor.label
        ctx.session.flush()
        record(ctx, "escalation.acknowledged", "escalation", line.id, {"by": (None, ctx.actor.label)})
    return line


def rules_of(ctx: Context, campaign_id: int) -> list[dict[str, Any]]:
    """A campaign's rules as its definition has them, each with when its level acted last and whether that is open."""
    campaign = find(ctx.session, Campaign, campaign_id)
    latest = {each.level: each for each in escalations_of(ctx, campaign_id)}
    return [
        {
            "level": rule.level,
            "after_seconds": rule.after.total_seconds(),
            "for_seconds": rule.hold_for.total_seconds(),
            "cool_down_seconds": rule.cool_down.total_seconds(),
            "minimum": rule.minimum,
            "condition": None if rule.condition is None else rule.condition.spelling,
            "action": rule.action,
            "acted_at": latest[rule.level].at if rule.level in latest else None,
            "is_open": rule.level in latest and latest[rule.level].acknowledged_at is None,
        }
        for rule in definition_of(ctx, campaign).automation.escalation
    ]


def escalations_of(ctx: Context, campaign_id: int) -> Sequence[Escalation]:
    """What a campaign's rules did, the oldest first."""
    about = (Escalation.entity_type == _ENTITY, Escalation.entity_id == campaign_id)
    return ctx.session.scalars(select(Escalation).where(*about).order_by(Escalation.id)).all()


def _figures(ctx: Context, campaign: Campaign) -> dict[str, Any]:
    """The campaign's numbers by the ledger, or those that its program recorded itself, whichever saw more."""
    found = campaign_analytics(ctx, campaign.id)
    counted = campaign.counters
    opened = max(found["opens"]["unique"], counted.get("email_opened", 0))
    clicked = max(found["clicks"]["unique"], counted.get("email_clicked", 0))
    accepted = max(found["accepted"], counted.get("email_sent", 0))
    numbers = ("planned", "open", "delivered", "bounced", "complained", "failed", "unknown", "unsubscribes")
    return {
        **{name: found[name] for name in numbers},
        "accepted": accepted,
        "opened": opened,
        "clicked": clicked,
        "rate": (opened + clicked) / accepted if accepted else 0.0,
        **{
            f"{name}_rate": count / accepted if accepted else 0.0
            for name, count in {"open": opened, "click": clicked, "bounce": found["bounced"]}.items()
        },
    }


def _facts(campaign: Campaign, definition: Definition, figures: Mapping[str, Any], now: datetime) -> tuple[Any, Any]:
    counters = {
        **campaign.counters,
        "email_sent": figures["accepted"],
        "email_opened": figures["opened"],
        "email_clicked": figures["clicked"],
    }
    metrics = {name: value for name, value in figures.items() if name != "rate"}
    return lifecycle.facts(definition, replace(state_of(campaign), counters=counters), now, metrics)
