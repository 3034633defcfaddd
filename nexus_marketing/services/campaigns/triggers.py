"""Triggers of campaigns: while one is active, what leads do sets actions off (FR-P3-010).

What is heard is a timer, set in the transaction of what happened; each rule that it sets off is an action, known by the
event: told twice it is the same one.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.conditions.facts import HUMAN
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Campaign, TakenAction
from nexus_marketing.db.queries.upkeep import lead_records
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.requests import ActionRequest, request_action
from nexus_marketing.services.campaigns.listening import SCORE_INCREASED, campaigns_listening
from nexus_marketing.services.campaigns.rows import state_of
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.journeys.entries import event_due
from nexus_marketing.services.journeys.facts import happened_at


def happened(ctx: Context, timer: TimerFact) -> None:
    """A lead did something: journeys hear of it, and campaigns."""
    event_due(ctx, timer)
    lead_id, name = int(timer.payload["lead"]), str(timer.payload["name"])
    campaigns = campaigns_listening(ctx, name)
    if not campaigns:
        return
    for event in happened_at(ctx, lead_id, datetime.fromisoformat(timer.payload["at"]), name):
        if event["verdict"] == HUMAN:
            _set_off(ctx, campaigns, lead_id, {**event, "name": name}, f"event:{event['id']}")


def scored(ctx: Context, timer: TimerFact) -> None:
    """A lead's own score went up: campaigns hear of it."""
    payload = timer.payload
    event = {"name": SCORE_INCREASED, "before": payload["before"], "after": payload["after"]}
    _set_off(ctx, campaigns_listening(ctx, SCORE_INCREASED), int(payload["lead"]), event, f"score:{payload['at']}")


def _set_off(
    ctx: Context, campaigns: Sequence[Campaign], lead_id: int, event: Mapping[str, Any], occurrence: str
) -> None:
    leads = lead_records(ctx.session, [lead_id])
    for campaign in campaigns if leads else ():
        definition = definition_of(ctx, campaign)
        record, evaluation = lifecycle.facts(definition, state_of(campaign), ctx.now, {})
        facts = {**leads[0], **record, "event": event, "data": {**record["data"], "lead_score": leads[0]["score"]}}
        for index, rule in enumerate(definition.automation.triggers):
            if rule.event != event["name"] or (rule.condition is not None and not rule.condition(facts, evaluation)):
                continue
            about = f"trigger:{campaign.id}:{index}:{lead_id}:"
            if rule.cool_down and _is_cooling(ctx, about, lead_id, ctx.now - rule.cool_down):
                continue
            wanted = ActionRequest(
                rule.action,
                f"{about}{occurrence}",
                ActionSource.TRIGGER,
                campaign.id,
                lead_id,
                {"event": event["name"], **rule.data},
                rule.compensate,
            )
            request_action(ctx, wanted)


def _is_cooling(ctx: Context, about: str, lead_id: int, since: datetime) -> bool:
    """Whether the rule was set off by the lead after a moment."""
    own = (TakenAction.lead_id == lead_id, TakenAction.key.startswith(about, autoescape=True))
    latest = ctx.session.scalar(select(func.max(TakenAction.created_at)).where(*own))
    return latest is not None and latest > since
