"""Versions and runs of journeys as the engine knows them, read from their rows and written back."""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import insert, select, update

from nexus_marketing.core.engine.journey_entry import Entered
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.core.journeys import Journey, Outcome, Run, RunState, parse_journey
from nexus_marketing.core.journeys.model import ConcurrencyKind
from nexus_marketing.core.journeys.runs import HistoryLine, RunDecision
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import JourneyRun, JourneyStep, JourneyVersion
from nexus_marketing.db.queries.journeys import RUN_DUE
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import cancel_timer, set_timer

#: Versions kept as they were understood: a step must not read a document of a hundred nodes again.
_KEPT: Final = 500
_understood: "OrderedDict[tuple[int, int, int, str], Journey]" = OrderedDict()


def journey_version(ctx: Context, journey_id: int, number: int) -> Journey:
    """A published version, as the engine reads it."""
    row = ctx.session.get_one(JourneyVersion, (ctx.tenant_id, journey_id, number))
    key = (row.tenant_id, journey_id, number, row.digest)
    found = _understood.get(key)
    if found is None:
        found = _understood[key] = parse_journey(orjson.loads(row.document))
        if len(_understood) > _KEPT:
            _understood.popitem(last=False)
    return found


def run_of(row: JourneyRun, journey: Journey) -> Run:
    """A run's row as the engine knows it."""
    kept: Mapping[str, Any] = row.snapshot
    return Run(
        str(row.id),
        journey.code,
        journey.digest,
        str(row.lead_id),
        row.entered_at,
        row.node,
        RunState(row.state),
        row.sequence,
        row.key,
        kept.get("event") or {},
        _moment(kept, "arrived_at"),
        _moment(kept, "deadline"),
        row.wake_at,
        row.wait_token,
        row.visit,
        row.version,
        tuple(kept.get("open", ())),
        tuple(kept.get("left", ())),
        tuple(Outcome(each) for each in kept.get("outcomes", ())),
        frozenset(kept.get("held", ())),
        frozenset(kept.get("goals", ())),
        kept.get("visits") or {},
        bool(kept.get("is_late")),
        row.ended_at,
        row.reason,
    )


def insert_run(ctx: Context, journey_id: int, number: int, journey: Journey, entered: Entered) -> int:
    """Write a new run with its history and its timer; answers its id."""
    run = entered.run
    row = JourneyRun(
        journey_id=journey_id,
        version_number=number,
        lead_id=int(run.lead_id),
        sequence=run.sequence,
        is_single=journey.entry.concurrency.kind is not ConcurrencyKind.PARALLEL,
        key=run.key,
        entered_at=run.entered_at,
        **_changing(run),
    )
    ctx.session.add(row)
    ctx.session.flush()
    write_history(ctx, row.id, entered.history)
    arm(ctx, row.id, run)
    return row.id


def write_decision(ctx: Context, row: JourneyRun, decision: RunDecision) -> None:
    """Write what a run became, where it still is of the version that was decided on; its history and its timer.

    Raises:
        Unavailable: somebody else decided meanwhile: nothing of this transaction holds.
    """
    run = decision.run
    same = (JourneyRun.id == row.id, JourneyRun.version == decision.before)
    written = ctx.session.execute(update(JourneyRun).where(*same).values(**_changing(run)).returning(JourneyRun.id))
    if written.first() is None:
        raise Unavailable(f"Run {row.id} moved on while it was decided on: it is decided on again.")
    ctx.session.refresh(row)
    write_history(ctx, row.id, decision.history)
    arm(ctx, row.id, run)


def write_history(ctx: Context, run_id: int, lines: tuple[HistoryLine, ...]) -> None:
    """Add lines to a run's history."""
    rows = [
        {
            "tenant_id": ctx.tenant_id,
            "run_id": run_id,
            "at": line.at,
            "said": str(line.said),
            "node": line.node,
            "detail": {name: _plain(value) for name, value in line.detail.items()},
        }
        for line in lines
    ]
    if rows:
        ctx.session.execute(insert(JourneyStep), rows)


def arm(ctx: Context, run_id: int, run: Run) -> None:
    """The one timer that a run has, or none where it has ended."""
    if run.wake_at is None:
        cancel_timer(ctx, RUN_DUE, str(run_id))
    else:
        set_timer(ctx, RUN_DUE, str(run_id), run.wake_at, {"token": run.wait_token})


def live_runs(ctx: Context, journey_id: int, lead_id: int) -> list[JourneyRun]:
    """A lead's live runs in a journey, oldest first, locked."""
    live = [state for state in RunState if state not in (RunState.DONE, RunState.EXITED, RunState.FAILED)]
    wanted = (JourneyRun.journey_id == journey_id, JourneyRun.lead_id == lead_id, JourneyRun.state.in_(live))
    return list(ctx.session.scalars(select(JourneyRun).where(*wanted).order_by(JourneyRun.id).with_for_update()))


def _changing(run: Run) -> dict[str, Any]:
    return {
        "state": str(run.state),
        "node": run.node,
        "visit": run.visit,
        "wake_at": run.wake_at,
        "wait_token": run.wait_token,
        "version": run.version,
        "snapshot": _snapshot(run),
        "ended_at": run.ended_at,
        "reason": run.reason,
    }


def _snapshot(run: Run) -> dict[str, Any]:
    kept = {
        "event": {name: _plain(value) for name, value in run.event.items()},
        "arrived_at": _plain(run.arrived_at),
        "deadline": _plain(run.deadline),
        "open": list(run.open),
        "left": list(run.left),
        "outcomes": [str(each) for each in run.outcomes],
        "held": sorted(run.held),
        "goals": sorted(run.goals),
        "visits": dict(run.visits),
        "is_late": run.is_late,
    }
    return {name: value for name, value in kept.items() if value}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return canonical_datetime(value)
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _moment(kept: Mapping[str, Any], name: str) -> datetime | None:
    value = kept.get(name)
    return None if value is None else datetime.fromisoformat(value)
