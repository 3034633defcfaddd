"""Runs that failed are put back where they stood, one or many: nothing that they did is done again (BEHAVIOUR.md 5.1)."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import aliased

from nexus_marketing.core.engine.journey_moves import revive
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.journeys import RunState
from nexus_marketing.core.journeys.nodes import CALL
from nexus_marketing.core.journeys.runs import LIVE
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyRun, Lead
from nexus_marketing.db.queries.journey_dates import leads_locked
from nexus_marketing.db.queries.journeys import CALL_DUE
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.facts import facts_of
from nexus_marketing.services.journeys.moves import write_move
from nexus_marketing.services.journeys.rows import journey_version, newest_version, run_of
from nexus_marketing.services.timers import set_timer

REVIVE: Final = "journey.revive"
#: What becomes of those that are put back; the others say why they are not.
REVIVED: Final = "revived"
_PIECE: Final = 200
#: What a reason begins with is shown and asked for without the error behind it.
_DEAD: Final = "timer_dead"
#: Whoever has been through so many nodes fails again at once.
_HOPELESS: Final = ("too_many_steps",)


def revive_runs(ctx: Context, journey_id: int, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Put runs that failed back at their nodes, or say what would become of them.

    Whoever waited waits on as if nothing had been; what was sent, called or asked for is not again, and what became of it
    meanwhile counts. Not put back is who is inside again, whose steps were taken back, and who went round in a circle.

    Args:
        ctx: the unit of work.
        journey_id: which journey.
        wish: ``node``, ``reason`` (``timer_dead`` is any error of a timer) and ``run_ids`` choose among the runs that
            failed, ``why`` is what their history says, ``dry_run``.

    Returns:
        For each version, node and reason how many ``runs`` there are, and ``what``: ``revived``, or why not:
        ``already_inside``, ``taken_back``, ``too_many_steps``, ``lead_gone``, of a run that was named ``not_failed``.

    Raises:
        ValidationError: nothing says why.
        Conflict: the journey was stopped, or never published.
    """
    row = find(ctx.session, JourneyRow, journey_id, lock=True)
    if row.published is None or row.status == JourneyStatus.STOPPED:
        raise Conflict(f"The journey is {row.status}: its runs go on nowhere.", status=row.status)
    is_dry = bool(wish.get("dry_run", False))
    if not is_dry and not str(wish.get("why") or "").strip():
        said = 'Say why, for whoever reads the history of the runs: "why": "the template is repaired".'
        raise ValidationError.at("why", "required", said)
    run_ids = [parse_id(each, "run") for each in wish.get("run_ids", ())]
    chosen = {"node": wish.get("node"), "reason": wish.get("reason"), "run_ids": run_ids}
    plan = _plan(ctx, row, chosen)
    if not is_dry:
        payload = {**chosen, "why": wish["why"], "by": ctx.actor.label, "after": 0}
        set_timer(ctx, REVIVE, f"{row.id}:{ctx.request_id}", ctx.now, payload)
        ctx.ring("timers")
        count = sum(each["runs"] for each in plan if each["what"] == REVIVED)
        changes = {name: (None, value) for name, value in chosen.items() if value}
        record(
            ctx, "journey.revived", "journey", row.id, {**changes, "runs": (None, count), "why": (None, wish["why"])}
        )
    return {"dry_run": is_dry, "nodes": plan}


def revive_due(ctx: Context, timer: TimerFact) -> None:
    """Put the next runs back."""
    wish = timer.payload
    row = find(ctx.session, JourneyRow, int(timer.key.partition(":")[0]))
    if row.published is None or row.status == JourneyStatus.STOPPED:
        return
    after = (*_chosen(row, wish), JourneyRun.id > wish["after"], _hindrance(ctx, row) == REVIVED)
    wanted = select(JourneyRun.id, JourneyRun.lead_id).where(*after).order_by(JourneyRun.id).limit(_PIECE)
    found = ctx.session.execute(wanted).all()
    # Whoever lets a lead in locks it first: nobody comes in while it is looked whether somebody is inside.
    (locked,) = answers(ctx.session, leads_locked(ctx.session, {each.lead_id for each in found}, ()))
    living = {lead.id for lead in locked}
    ids = [each.id for each in found if each.lead_id in living]
    still = select(JourneyRun).where(JourneyRun.id.in_(ids), _hindrance(ctx, row) == REVIVED).order_by(JourneyRun.id)
    for each in list(ctx.session.scalars(still.with_for_update(of=JourneyRun))):
        _revive(ctx, each, wish)
    if len(found) == _PIECE:
        set_timer(ctx, REVIVE, timer.key, ctx.now, {**wish, "after": found[-1].id})
    ctx.ring("timers")


def _revive(ctx: Context, row: JourneyRun, wish: Mapping[str, Any]) -> None:
    journey = journey_version(ctx, row.journey_id, row.version_number)
    facts = facts_of(ctx, row.lead_id, journey)
    if facts is None:
        return
    write_move(ctx, row, revive(journey, run_of(row, journey), facts, wish["by"], wish["why"], ctx.now))
    if CALL in row.snapshot.get("open", ()):
        set_timer(ctx, CALL_DUE, f"{row.id}:{row.visit}", ctx.now, earliest=True)


def _plan(ctx: Context, row: JourneyRow, wish: Mapping[str, Any]) -> list[dict[str, Any]]:
    what = _hindrance(ctx, row).label("what")
    is_dead = JourneyRun.reason.startswith(f"{_DEAD}:")
    reason = case((is_dead, _DEAD), else_=func.coalesce(JourneyRun.reason, "")).label("reason")
    failed = select(JourneyRun.version_number, JourneyRun.node, reason, what).where(*_chosen(row, wish)).subquery()
    counted = select(failed, func.count().label("runs")).group_by(*failed.c).order_by(*failed.c)
    return [
        {"version": found[0], "node": found[1], "reason": found[2], "runs": found[4], "what": found[3]}
        for found in ctx.session.execute(counted)
    ]


def _chosen(row: JourneyRow, wish: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Those that failed, or that somebody names, as is wished."""
    chosen = [JourneyRun.journey_id == row.id]
    if not wish["run_ids"]:
        chosen.append(JourneyRun.state == RunState.FAILED)
    if wish["node"] is not None:
        chosen.append(JourneyRun.node == wish["node"])
    if wish["reason"] is not None:
        begins = JourneyRun.reason.startswith(f"{wish['reason']}:", autoescape=True)
        chosen.append(or_(JourneyRun.reason == wish["reason"], begins))
    if wish["run_ids"]:
        chosen.append(JourneyRun.id.in_(wish["run_ids"]))
    return chosen


def _hindrance(ctx: Context, row: JourneyRow) -> ColumnElement[str]:
    """Why a run is not put back, or :data:`REVIVED`; of several runs of a lead that failed the newest have their turn."""
    other, lead = aliased(JourneyRun), aliased(Lead)
    same = (other.journey_id == JourneyRun.journey_id, other.lead_id == JourneyRun.lead_id, other.id != JourneyRun.id)
    is_newer = (other.state == RunState.FAILED) & other.taken_back_at.is_(None) & (other.sequence > JourneyRun.sequence)
    inside = or_(other.state.in_(sorted(LIVE)), is_newer)
    count = select(func.count()).select_from(other).where(*same, inside).scalar_subquery()
    most = newest_version(ctx, row).entry.concurrency.most
    gone = select(lead.id).where(lead.id == JourneyRun.lead_id, lead.gone_at.is_not(None)).exists()
    return case(
        (JourneyRun.state != RunState.FAILED, "not_failed"),
        (JourneyRun.taken_back_at.is_not(None), "taken_back"),
        (JourneyRun.reason.in_(_HOPELESS), "too_many_steps"),
        (gone, "lead_gone"),
        (count >= case((JourneyRun.is_single, 1), else_=most), "already_inside"),
        else_=REVIVED,
    )
