"""Versions and runs of journeys as the engine knows them, read from their rows and written back."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.orm.attributes import set_committed_value

from nexus_marketing.core.conditions import Vocabulary
from nexus_marketing.core.engine.journey_entry import Admitted
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.core.journeys import Journey, Outcome, Run, RunState, Surroundings, parse_journey
from nexus_marketing.core.journeys.model import ConcurrencyKind
from nexus_marketing.core.journeys.runs import HistoryLine, RunDecision
from nexus_marketing.core.journeys.statuses import Listens
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.ahead import answers, sent_ahead
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyListener, JourneyRun, JourneyVersion
from nexus_marketing.db.queries.journey_arrivals import add_runs, add_steps
from nexus_marketing.db.queries.journey_steps import change_runs, standing_of
from nexus_marketing.db.queries.journeys import RUN_DUE
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.timers import cancel_timers, set_timers

#: Versions kept as they were understood: a step must not read a document of a hundred nodes again.
_KEPT: Final = 500
_understood: "OrderedDict[tuple[int, int, int, str, Vocabulary], Journey]" = OrderedDict()


class Standing(NamedTuple):
    """A version of a journey as the engine reads it, and how the journey stands."""

    journey: Journey
    status: str


def journey_version(ctx: Context, journey_id: int, number: int) -> Journey:
    """A published version, as the engine reads it."""
    (rows,) = answers(ctx.session, standing_of(journey_id, number))
    return standing(ctx, (journey_id, number), rows).journey


def standing(ctx: Context, version: tuple[int, int], rows: Sequence[Any]) -> Standing:
    """What was answered to ``standing_of`` for the id of a journey and the number of its version."""
    (row,) = rows
    conditions = conditions_of(ctx, is_saved=True)
    key = (ctx.session.info["tenant_id"], *version, row.digest, conditions)
    found = _understood.get(key)
    if found is None:
        document = ctx.session.get_one(JourneyVersion, (ctx.tenant_id, *version)).document
        found = _understood[key] = parse_journey(orjson.loads(document), Surroundings(conditions=conditions))
        if len(_understood) > _KEPT:
            _understood.popitem(last=False)
    return Standing(found, row.status)


def newest_version(ctx: Context, row: JourneyRow) -> Journey:
    """The newest published version of a journey that has one."""
    assert row.published is not None, "only what was published listens"
    return journey_version(ctx, row.id, row.published)


def listening(ctx: Context, kind: Listens, names: Collection[str]) -> list[JourneyRow]:
    """The journeys that want to hear of something, by what it is called; each once, in the order of their ids."""
    wanted = (JourneyListener.kind == kind, JourneyListener.name.in_(names))
    ids = select(JourneyListener.journey_id).where(*wanted)
    return list(ctx.session.scalars(select(JourneyRow).where(JourneyRow.id.in_(ids)).order_by(JourneyRow.id)))


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


def insert_runs(
    ctx: Context,
    shared: Mapping[str, Any],
    journey: Journey,
    begun: tuple[Run, HistoryLine],
    entered: Mapping[int, Admitted],
) -> dict[int, int]:
    """Write the runs of leads that came in by one occasion, with their history, arrivals and timers.

    Args:
        ctx: the unit of work.
        shared: ``journey_id``, ``version_number``, ``occurrence``, and the moment ``at``.
        journey: that version.
        begun: how one of the runs begins; so do the others (:func:`nexus_marketing.core.engine.journey_entry.begin`).
        entered: the leads by their ids.

    Returns:
        The ids of the runs by lead.
    """
    run, line = begun
    alike = {
        **shared,
        **_changing(run),
        "is_single": journey.entry.concurrency.kind is not ConcurrencyKind.PARALLEL,
        "said": str(line.said),
        "detail": orjson.dumps(_plain_all(line.detail)).decode(),
        "payload": {"token": run.wait_token},
    }
    own = [{"lead_id": lead_id, "sequence": found.sequence, "key": found.key} for lead_id, found in entered.items()]
    return add_runs(ctx.session, alike, own)


def _line(run_id: int, line: HistoryLine) -> dict[str, Any]:
    detail = _plain_all(line.detail)
    return {"run_id": run_id, "at": to_text(line.at), "said": str(line.said), "node": line.node, "detail": detail}


def write_decision(ctx: Context, row: JourneyRun, decision: RunDecision) -> None:
    """As :func:`write_decisions` for one run, whose row says afterwards what it became."""
    write_decisions(ctx, [(row.id, decision)])
    for name, value in _changing(decision.run).items():
        set_committed_value(row, name, value)


def write_decisions(ctx: Context, decided: Sequence[tuple[int, RunDecision]]) -> None:
    """Write what runs became, where each still is of the version that was decided on; their history and timers.

    Raises:
        Unavailable: somebody else decided on one meanwhile: nothing of this transaction holds.
    """
    rows = [_row(run_id, decision) for run_id, decision in decided]
    lines = [_line(run_id, line) for run_id, decision in decided for line in decision.history]
    timers = [(str(run_id), decision.timer) for run_id, decision in decided]
    ended = [key for key, timer in timers if timer is None]
    with sent_ahead(ctx.session):
        written = change_runs(ctx.session, rows)
        if lines:
            add_steps(ctx.session, lines)
        set_timers(ctx, RUN_DUE, [(key, timer[0], {"token": timer[1]}) for key, timer in timers if timer is not None])
        if ended:
            cancel_timers(ctx, RUN_DUE, ended)
    if len(moved := {each.id for each in written()}) < len(decided):
        stayed = min(run_id for run_id, _ in decided if run_id not in moved)
        raise Unavailable(f"Run {stayed} moved on while it was decided on: it is decided on again.")


def _row(run_id: int, decision: RunDecision) -> dict[str, Any]:
    return {"id": run_id, "before": decision.before, **_as_text(_changing(decision.run))}


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_text(value) if isinstance(value, datetime) else value for name, value in row.items()}


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
        "event": _plain_all(run.event),
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


def _plain_all(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return canonical_datetime(value)
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _moment(kept: Mapping[str, Any], name: str) -> datetime | None:
    value = kept.get(name)
    return None if value is None else datetime.fromisoformat(value)
