"""Operators' work on many runs: migrations to the newest version, and what a pause made late. A piece in each transaction."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update

from nexus_marketing.core.campaigns import CampaignAction
from nexus_marketing.core.engine.journey_moves import destination, leave_or_hold, leave_out_late, migrate, shift
from nexus_marketing.core.errors import Conflict, Problem, ValidationError, hint
from nexus_marketing.core.journeys import END, Journey, RunState
from nexus_marketing.core.journeys.runs import LIVE, RunDecision
from nexus_marketing.core.journeys.statuses import JourneyStatus, ResumePolicy, Unmapped
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import join
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyApproval, JourneyRun, Timer
from nexus_marketing.db.queries.journeys import hurry_others, hurry_runs
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.approvals import close_questions
from nexus_marketing.services.journeys.effects import take_effect
from nexus_marketing.services.journeys.facts import facts_of
from nexus_marketing.services.journeys.messages import move_campaign_along
from nexus_marketing.services.journeys.rows import journey_version, run_of, write_decision
from nexus_marketing.services.timers import set_timer

MIGRATE: Final = "journey.migrate"
RESUME: Final = "journey.resume"
#: A journey that was resumed has runs that its pause made late.
HURRY: Final = "journey.hurry"
_PIECE: Final = 200
_HURRIED: Final = 2_000
#: Runs that are sending are moved once that is over.
_AGAIN: Final = timedelta(minutes=1)
_WHAT: Final = {Unmapped.STAY: "stays", Unmapped.EXIT: "exits", Unmapped.HOLD: "held"}


def migrate_runs(ctx: Context, journey_id: int, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Take runs of older versions to the newest one, or say what would become of them.

    Runs at a node that the newest version has too, of the same type, go there; ``map`` says where others go.

    Args:
        ctx: the unit of work.
        journey_id: which journey.
        wish: ``map`` (old node to new, or ``end``), ``unmapped`` (``stay``, ``exit`` or ``hold``), ``version`` (only runs
            of this one) and ``dry_run``.

    Returns:
        The version they come to, and for each version and node how many runs there are, where to, and ``what`` becomes of
        them: ``moves``, ``stays``, ``exits`` or ``held``.

    Raises:
        Conflict: there is no version to come to.
        ValidationError: a node that ``map`` names is not there.
    """
    row = find(ctx.session, JourneyRow, journey_id, lock=True)
    if row.published is None or row.status == JourneyStatus.STOPPED:
        raise Conflict("There is no version to migrate to: publish one first.", status=row.status)
    mapped, unmapped = dict(wish.get("map", {})), Unmapped(wish.get("unmapped", Unmapped.STAY))
    newest = journey_version(ctx, row.id, row.published)
    _check_map(ctx, row, newest, mapped)
    plan: list[dict[str, Any]] = []
    moving = 0
    for version, node, count in _standing(ctx, row, wish.get("version")):
        to = destination(journey_version(ctx, row.id, version), newest, node, mapped)
        what = "moves" if to is not None else _WHAT[unmapped]
        moving += 0 if what == "stays" else count
        plan.append({"version": version, "node": node, "runs": count, "to": to, "what": what})
    if not wish.get("dry_run", False):
        payload = {"to": row.published, "map": mapped, "unmapped": str(unmapped), "version": wish.get("version")}
        set_timer(ctx, MIGRATE, str(row.id), ctx.now, {**payload, "after": 0, "left": 0})
        ctx.ring("timers")
        record(ctx, "journey.migrated", "journey", row.id, {"version": (None, row.published), "runs": (None, moving)})
    return {"version": row.published, "dry_run": bool(wish.get("dry_run", False)), "nodes": plan}


def migrate_due(ctx: Context, timer: TimerFact) -> None:
    """Move the next runs of a migration."""
    wish = timer.payload
    row = find(ctx.session, JourneyRow, int(timer.key))
    number = int(wish["to"])
    if row.published != number or row.status == JourneyStatus.STOPPED:
        return  # a newer version came: whoever published it says what becomes of runs
    newest = journey_version(ctx, row.id, number)
    runs = _older(row, wish["version"])
    wanted = select(JourneyRun).where(*runs, JourneyRun.id > wish["after"]).order_by(JourneyRun.id).limit(_PIECE)
    found = list(ctx.session.scalars(wanted.with_for_update()))
    left = int(wish["left"]) + sum(not _move(ctx, each, newest, number, wish) for each in found)
    if len(found) == _PIECE:
        set_timer(ctx, MIGRATE, timer.key, ctx.now, {**wish, "after": found[-1].id, "left": left})
    elif left:
        set_timer(ctx, MIGRATE, timer.key, ctx.now + _AGAIN, {**wish, "after": 0, "left": 0})


def begin_resuming(ctx: Context, row: JourneyRow, policy: ResumePolicy) -> None:
    """Let a paused journey go on; where runs have to be looked at first it stays paused until that is done.

    Raises:
        Conflict: it is being resumed already.
    """
    waiting = select(Timer.id).where(Timer.type == RESUME, Timer.key == str(row.id))
    if ctx.session.scalars(waiting).first() is not None:
        raise Conflict("The journey is being resumed already: its runs are looked at.", status=row.status)
    began, row.paused_at = row.paused_at or ctx.now, None
    if policy is ResumePolicy.CATCH_UP:
        _go_on(ctx, row)
        return
    payload = {"policy": str(policy), "by_seconds": (ctx.now - began).total_seconds(), "after": 0}
    resume_some(ctx, row, {**payload, "at": ctx.now.isoformat()})


def resume_due(ctx: Context, timer: TimerFact) -> None:
    """Look at the next runs of a journey that is being resumed."""
    row = find(ctx.session, JourneyRow, int(timer.key), lock=True)
    if row.status == JourneyStatus.PAUSED:
        resume_some(ctx, row, timer.payload)


def resume_some(ctx: Context, row: JourneyRow, wish: Mapping[str, Any]) -> None:
    """Do a piece of it; with the last one the journey goes on."""
    live = (JourneyRun.journey_id == row.id, JourneyRun.state.in_(sorted(LIVE)), JourneyRun.id > wish["after"])
    wanted = select(JourneyRun).where(*live).order_by(JourneyRun.id).limit(_PIECE).with_for_update()
    found = list(ctx.session.scalars(wanted))
    by, at = timedelta(seconds=wish["by_seconds"]), datetime.fromisoformat(wish["at"])
    for each in found:
        run = run_of(each, journey_version(ctx, each.journey_id, each.version_number))
        is_shift = wish["policy"] == ResumePolicy.SHIFT
        write_move(ctx, each, shift(run, by, at) if is_shift else leave_out_late(run, at))
        if is_shift:
            open_ones = (JourneyApproval.run_id == each.id, JourneyApproval.closed_at.is_(None))
            ctx.session.execute(update(JourneyApproval).where(*open_ones).values(due_at=each.wake_at))
    if len(found) == _PIECE:
        set_timer(ctx, RESUME, str(row.id), ctx.now, {**wish, "after": found[-1].id})
        ctx.ring("timers")
    else:
        _go_on(ctx, row)


def _go_on(ctx: Context, row: JourneyRow) -> None:
    row.status, row.resumes_to = row.resumes_to or JourneyStatus.PUBLISHED, None
    ctx.session.flush()
    move_campaign_along(ctx, row, CampaignAction.RESUME)
    hurry_others(ctx.session, row.id, ctx.now)
    set_timer(ctx, HURRY, str(row.id), ctx.now, {"after": 0})
    ctx.ring("timers")


def hurry_due(ctx: Context, timer: TimerFact) -> None:
    """Have the next runs go on that a pause made late, as long as the journey was not paused again."""
    row = find(ctx.session, JourneyRow, int(timer.key))
    if row.status == JourneyStatus.PAUSED:
        return
    last = hurry_runs(ctx.session, row.id, ctx.now, int(timer.payload["after"]), _HURRIED)
    if last is not None:
        set_timer(ctx, HURRY, timer.key, ctx.now, {"after": last})
        ctx.ring("timers")


def _move(ctx: Context, row: JourneyRun, newest: Journey, number: int, wish: Mapping[str, Any]) -> bool:
    """Move one run; ``False``: it is sending, and has to be looked at again."""
    if row.state == RunState.SENDING:
        return False
    old = journey_version(ctx, row.journey_id, row.version_number)
    to = destination(old, newest, row.node, dict(wish["map"]))
    unmapped, run = Unmapped(wish["unmapped"]), run_of(row, old)
    if to is not None:
        facts = facts_of(ctx, row.lead_id, newest)
        if facts is not None:  # erased meanwhile: its runs end by themselves
            decision = migrate(newest, run, facts, to, ctx.now)
            row.version_number = number
            write_move(ctx, row, decision)
    elif unmapped is Unmapped.EXIT or (unmapped is Unmapped.HOLD and row.state != RunState.MIGRATING):
        write_move(ctx, row, leave_or_hold(run, ctx.now, hold=unmapped is Unmapped.HOLD))
    return True


def write_move(ctx: Context, row: JourneyRun, decision: RunDecision) -> None:
    """Write what an operator makes of a locked run, with what leaves it, and close what it asked."""
    if decision.is_ignored:
        return
    close_questions(ctx, row.id, decision.run.wait_token, ctx.now)
    ctx.session.flush()
    write_decision(ctx, row, decision)
    for effect in decision.effects:
        take_effect(ctx, row, effect)


def _standing(ctx: Context, row: JourneyRow, version: int | None) -> list[tuple[int, str, int]]:
    columns = (JourneyRun.version_number, JourneyRun.node)
    counted = select(*columns, func.count()).where(*_older(row, version)).group_by(*columns).order_by(*columns)
    return [(found[0], found[1], found[2]) for found in ctx.session.execute(counted)]


def _older(row: JourneyRow, version: int | None) -> tuple[Any, ...]:
    mine = (JourneyRun.journey_id == row.id, JourneyRun.state.in_(sorted(LIVE)))
    wanted = JourneyRun.version_number < row.published
    return (*mine, wanted) if version is None else (*mine, wanted, JourneyRun.version_number == version)


def _check_map(ctx: Context, row: JourneyRow, newest: Journey, mapped: Mapping[str, str]) -> None:
    problems = []
    numbers = range(max(1, (row.published or 1) - 50), row.published or 1)
    old = {name for number in numbers for name in journey_version(ctx, row.id, number).nodes}
    for before, after in mapped.items():
        path = join("map", before)
        if before not in old:
            problems.append(
                Problem(path, "unknown_node", f"No older version has a node {before!r}{hint(before, old)}.")
            )
        if after != END and after not in newest.nodes:
            said = f"Version {row.published} has no node {after!r}{hint(after, [*newest.nodes, END])}."
            problems.append(Problem(path, "unknown_node", said))
    if problems:
        raise ValidationError(problems=problems)
