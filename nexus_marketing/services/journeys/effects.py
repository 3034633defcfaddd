"""What leaves a run beside its own row, in the transaction that moves it on."""

from collections.abc import Mapping
from typing import Any

from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.journeys.runs import (
    AddPoints,
    AskApproval,
    CallUrl,
    CancelMessages,
    Effect,
    PutInSegment,
    SendMessage,
    SetFields,
    TakeAction,
)
from nexus_marketing.db.models import JourneyRun, JourneyStep, Lead
from nexus_marketing.db.queries.journeys import CALL_DUE
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.requests import ActionRequest, request_action
from nexus_marketing.services.journeys.approvals import ask
from nexus_marketing.services.journeys.compensation import action_key
from nexus_marketing.services.journeys.messages import cancel_messages, send_messages
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.segments.records import change_members
from nexus_marketing.services.timers import set_timer
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def take_effect(ctx: Context, row: JourneyRun, effect: Effect) -> None:
    """Do it. What a lead or a segment refuses is told by the run's history and keeps nobody from going on."""
    match effect:
        case SendMessage():
            send_messages(ctx, [(row, effect)])
            return
        case CancelMessages():
            cancel_messages(ctx, row, effect.visit)
            return
        case CallUrl():
            set_timer(ctx, CALL_DUE, f"{row.id}:{effect.visit}", ctx.now)
            ctx.ring("timers")
            return
        case AskApproval():
            ask(ctx, row, effect)
            return
        case TakeAction():
            wanted = ActionRequest(
                effect.action,
                action_key(row.id, row.visit),
                ActionSource.JOURNEY,
                lead_id=row.lead_id,
                data=effect.arguments,
                compensation=effect.compensate,
                run_id=row.id,
            )
            request_action(ctx, wanted)
            return
    try:
        with ctx.session.begin_nested():
            _change(ctx, row, effect)
    except NexusError as error:
        log.warning("journey_effect_refused", tenant_id=ctx.tenant_id, run_id=row.id, code=error.code)
        detail = {"effect": type(effect).__name__, "code": error.code, "visit": row.visit}
        ctx.session.add(JourneyStep(run_id=row.id, at=ctx.now, said="refused", node=row.node, detail=detail))


def _change(ctx: Context, row: JourneyRun, effect: Effect) -> None:
    match effect:
        case SetFields():
            update_lead(ctx, row.lead_id, _fields(ctx, row.lead_id, effect.values))
        case PutInSegment():
            moved = {"add" if effect.is_member else "remove": [row.lead_id]}
            change_members(ctx, int(effect.segment), **moved)
        case AddPoints():
            lead = find(ctx.session, Lead, row.lead_id, lock=True)
            set_score(ctx, row.lead_id, lead.score + effect.points, f"journey {row.journey_id}, run {row.id}")
        case _:
            raise AssertionError(f"{effect!r} was to be refused when the journey was published")


def _fields(ctx: Context, lead_id: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Names as conditions spell them; keys of the metadata are put beside those that are there."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        first, _, key = name.removeprefix("lead.").partition(".")
        if key:
            metadata = found.setdefault("metadata", dict(find(ctx.session, Lead, lead_id).attributes or {}))
            metadata[key] = value
        else:
            found[first] = value
    return found
