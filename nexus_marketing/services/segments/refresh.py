"""Membership computed as a whole: when a rule is new or edited, when somebody asks, before an audience is frozen.

PostgreSQL writes the difference in one statement and one transaction. On SQLite, and where a rule asks plugins, joiners and
leavers are written in pieces, joiners first, so that readers never see fewer than those who stay. Either way upkeep leaves
the segment alone meanwhile and looks at what changed under way afterwards.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.errors import ConditionUnavailable, NexusError, NotFound
from nexus_marketing.core.events import SegmentChanged
from nexus_marketing.core.segments import SegmentCause, SegmentKind, levels, segments_read
from nexus_marketing.db.files import alone_at
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.queries import upkeep
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.segments.candidates import all_satisfying
from nexus_marketing.services.segments.clock import arm, try_later
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.segments.rules import Rule, readers_of, rule_of
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Rows per transaction on SQLite, whose only writer must be free for others (DATABASE.md).
PIECE: Final = 2_000
#: How long a computation in pieces is believed to go on after its last sign of life.
_HOLD_SECONDS: Final = 60.0
#: Segments computed in one pass over the leads: what a pass costs beside them is shared by so many.
_IN_ONE_PASS: Final = 32
_CAUSES: Final[Mapping[str | None, SegmentCause | None]] = {
    "build": None,
    "rule": SegmentCause.RULE,
    None: SegmentCause.REFRESH,
}


def recalculate_requested(runtime: Runtime) -> int:
    """Compute every segment that somebody asked for, those that others read first; answers how many."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = queries.segments_to_refresh(session)
    done = 0
    for tenant_id in dict.fromkeys(row.tenant_id for row in waiting):
        wanted = [row.id for row in waiting if row.tenant_id == tenant_id]
        for level in _in_order(runtime, tenant_id, wanted):
            for together in _passes(runtime, tenant_id, level):
                done += _recalculate(runtime, tenant_id, together)
    return done


def refresh(runtime: Runtime, tenant_id: int, segment_id: int) -> int | None:
    """Bring a segment's membership, and that of the segments it reads, in line with the rules as of now.

    A rule that was edited meanwhile stays asked for: what was computed of the old one is not called current
    (LESSONS.md 25).

    Returns:
        The number of members; ``None`` where another worker is at it (SQLite): ask again.

    Raises:
        NotFound: there is no such segment.
        ConditionError: the rule no longer fits the tenant's fields.
    """
    members = None
    for each in _with_parts(runtime, tenant_id, segment_id):
        members = _compute(runtime, tenant_id, each)
        if members is None:
            return None
    return members


def _passes(runtime: Runtime, tenant_id: int, ids: Sequence[int]) -> list[list[int]]:
    """Segments to be computed in one pass over the leads each: on PostgreSQL those whose rules read every lead."""
    if runtime.engines.dialect == "sqlite" or len(ids) < 2:
        return [[each] for each in ids]
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        found = ctx.session.scalars(select(Segment).where(Segment.id.in_(ids)).order_by(Segment.id))
        scanning = [segment.id for segment in found if _scans(ctx, segment)]
    groups = [scanning[at : at + _IN_ONE_PASS] for at in range(0, len(scanning), _IN_ONE_PASS)]
    return groups + [[each] for each in ids if each not in set(scanning)]


def _scans(ctx: Context, segment: Segment) -> bool:
    try:
        rule = _rule(ctx, segment)
    except NexusError:
        return False  # the computation tells of it
    return rule is not None and rule.scans


def _recalculate(runtime: Runtime, tenant_id: int, ids: Sequence[int]) -> int:
    if len(ids) > 1:
        try:
            return len(_Pass(runtime, tenant_id, ids).run())
        except (NexusError, _Overtaken, _AsksPlugins) as error:
            # One of them was edited, deleted or cannot be computed: the others must not wait for it.
            log.info("segments_refreshed_one_by_one", tenant_id=tenant_id, segments=list(ids), because=str(error))
    return sum(_recalculate_alone(runtime, tenant_id, each) for each in ids)


def _recalculate_alone(runtime: Runtime, tenant_id: int, segment_id: int) -> int:
    try:
        return int(_compute(runtime, tenant_id, segment_id) is not None)
    except NotFound:
        return 1  # deleted meanwhile
    except NexusError as error:
        # A rule that cannot be computed any more must not stop the others, nor be tried for ever.
        log.warning("segment_refresh_failed", tenant_id=tenant_id, segment_id=segment_id, error=str(error))
        with runtime.work(tenant_id, SYSTEM) as ctx:
            segment = find(ctx.session, Segment, segment_id, lock=True)
            segment.error, segment.requested_at = str(error)[:500], None
            segment.building_until = None
            if isinstance(error, ConditionUnavailable):
                try_later(ctx, segment_id)
        runtime.telemetry.count("segments.failed")
        return 1


def _compute(runtime: Runtime, tenant_id: int, segment_id: int) -> int | None:
    """One segment, once; ``None`` where another worker is at it (SQLite, and rules that ask plugins)."""
    if runtime.engines.dialect == "sqlite":
        return _Pieces(runtime, tenant_id, segment_id).run()
    try:
        return _Pass(runtime, tenant_id, [segment_id]).run()[segment_id]
    except _AsksPlugins:
        return _Pieces(runtime, tenant_id, segment_id).run()
    except _Overtaken:
        with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
            return find(ctx.session, Segment, segment_id).lead_count


def _reads(ctx: Context) -> dict[int, list[int]]:
    found = ctx.session.execute(select(Segment.id, Segment.depends_on).where(Segment.conditions.is_not(None)))
    return {row.id: segments_read(row.depends_on) for row in found}


def _in_order(runtime: Runtime, tenant_id: int, ids: Sequence[int]) -> list[list[int]]:
    """Segments by level: none reads another of its own level."""
    if len(ids) < 2:
        return [list(ids)]
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        reads = _reads(ctx)
    ordered = levels({id_: reads.get(id_, ()) for id_ in {*ids, *reads}})
    return [[each for each in level if each in set(ids)] for level in ordered]


def _with_parts(runtime: Runtime, tenant_id: int, segment_id: int) -> list[int]:
    """A segment after all that it reads."""
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        segment = find(ctx.session, Segment, segment_id)
        if not segments_read(segment.depends_on):
            return [segment_id]
        reads = _reads(ctx)
    needed: dict[int, Sequence[int]] = {}
    waiting = [segment_id]
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed[each] = reads.get(each, ())
            waiting.extend(needed[each])
    return [each for level in levels(needed) for each in level]


@dataclass(frozen=True, slots=True)
class _Difference:
    """Who joins and who leaves, ascending."""

    joiners: Sequence[int] = ()
    leavers: Sequence[int] = ()

    def pieces(self) -> "list[_Difference]":
        """Joiners first."""
        came = [_Difference(joiners=self.joiners[at : at + PIECE]) for at in range(0, len(self.joiners), PIECE)]
        return came + [_Difference(leavers=self.leavers[at : at + PIECE]) for at in range(0, len(self.leavers), PIECE)]


class _Overtaken(Exception):
    """The rule was edited while it was computed."""


class _AsksPlugins(Exception):
    """The rule is not the database's alone to answer."""


@dataclass(slots=True)
class _Task:
    """What is known of a segment when its computation begins."""

    id: int
    version: int
    as_of: datetime
    rule: Rule | None
    job: queries.Refresh

    @classmethod
    def read(cls, ctx: Context, segment_id: int) -> "_Task":
        segment = find(ctx.session, Segment, segment_id, lock=False)
        is_read = bool(readers_of(ctx, segment.id))
        job = queries.Refresh(segment.id, segment.generation + 1, _CAUSES[segment.pending], is_read)
        return cls(segment.id, segment.version, ctx.now, _rule(ctx, segment), job)

    def finish(self, ctx: Context, moved: queries.Moved, seconds: float) -> int:
        """Say of the segment that it is as the rule says; answers the number of its members.

        Raises:
            _Overtaken: its rule was edited meanwhile.
        """
        segment = find(ctx.session, Segment, self.id, lock=True)
        if segment.version != self.version:
            raise _Overtaken("its rule was edited")
        segment.building_until = None
        segment.generation += 1
        segment.lead_count = queries.count_members(ctx.session, segment.id)
        segment.as_of, segment.error, segment.pending = self.as_of, None, None
        if self.rule is not None:
            # A snapshot that was taken reads nothing any more: what it was taken of may be deleted.
            segment.depends_on = [] if segment.kind == SegmentKind.SNAPSHOT else self.rule.depends_on
        if segment.requested_at is not None and segment.requested_at <= self.as_of:
            segment.requested_at = None  # asked for again meanwhile: computed again
        segment.duration_ms = int(seconds * 1000)
        ctx.session.flush()
        if self.rule is not None and segment.kind != SegmentKind.SNAPSHOT:
            arm(ctx, self.rule, self.as_of)
        if moved.joined or moved.went:
            ctx.emit(SegmentChanged(ctx.tenant_id, ctx.now, segment.id, moved.joined, moved.went))
        return segment.lead_count


class _Pass:
    """Segments of which none reads another, in one statement and one transaction (PostgreSQL)."""

    def __init__(self, runtime: Runtime, tenant_id: int, segment_ids: Sequence[int]) -> None:
        self.runtime, self.tenant_id, self.segment_ids = runtime, tenant_id, segment_ids

    def run(self) -> dict[int, int]:
        """The numbers of members, by segment.

        Raises:
            NotFound: one of them was deleted.
            ConditionError: a rule no longer fits the tenant's fields.
            _Overtaken: a rule was edited meanwhile; nothing was written.
            _AsksPlugins: a rule asks plugins; nothing was written.
        """
        begun = time.monotonic()
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            for segment_id in sorted(self.segment_ids):  # in one order: two passes must not wait for each other
                upkeep.wait_for_segment(ctx.session, segment_id)
            tasks = [_Task.read(ctx, segment_id) for segment_id in sorted(self.segment_ids)]
            if any(task.rule is not None and task.rule.asks is not None for task in tasks):
                raise _AsksPlugins("a rule asks plugins")
            jobs = {task.id: (task.job, task.rule.test(ctx)) for task in tasks if task.rule is not None}
            moved = queries.refresh_by_diff(ctx.session, jobs) if jobs else {}
            share = (time.monotonic() - begun) / len(tasks)
            return {task.id: task.finish(ctx, moved.get(task.id, queries.Moved()), share) for task in tasks}


class _Pieces:
    """One segment, written in pieces (SQLite); one whose rule asks plugins is read in pieces as well."""

    def __init__(self, runtime: Runtime, tenant_id: int, segment_id: int) -> None:
        self.runtime, self.tenant_id, self.segment_id = runtime, tenant_id, segment_id
        self.joined = self.went = 0

    def run(self) -> int | None:
        """The number of members; nothing where another worker is at it, which on SQLite one that died is not."""
        if self.runtime.engines.dialect != "sqlite":
            return self._run(is_alone=False)
        with alone_at(self.runtime.engines.worker, f"segment-{self.tenant_id}-{self.segment_id}") as is_alone:
            return self._run(is_alone=True) if is_alone else None

    def _run(self, *, is_alone: bool) -> int | None:
        begun = time.monotonic()
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            find(ctx.session, Segment, self.segment_id)
            upkeep.wait_for_segment(ctx.session, self.segment_id)  # upkeep that is at it writes first
            if not upkeep.hold_segment(ctx.session, self.segment_id, _HOLD_SECONDS, mine=is_alone):
                return None
        try:
            return self._held(begun)
        except NexusError:
            with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
                find(ctx.session, Segment, self.segment_id).building_until = None
            raise

    def _held(self, begun: float) -> int | None:
        with self.runtime.work(self.tenant_id, SYSTEM, mode="read") as ctx:
            task = _Task.read(ctx, self.segment_id)
            asks = task.rule is not None and task.rule.asks is not None
            pieces = [] if task.rule is None or asks else self._difference(ctx, task.rule).pieces()
        if task.rule is not None and asks:
            pieces = self._asked(task.rule, task.as_of).pieces()
        for piece in pieces[:-1]:
            with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
                upkeep.hold_segment(ctx.session, self.segment_id, _HOLD_SECONDS, mine=True)
                self._write(ctx, task.job, piece)
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            if pieces:
                self._write(ctx, task.job, pieces[-1])
            try:
                return task.finish(ctx, queries.Moved(self.joined, self.went), time.monotonic() - begun)
            except _Overtaken:  # what was written is put right by the computation that waits
                segment = find(ctx.session, Segment, self.segment_id)
                segment.building_until = None
                return segment.lead_count

    def _difference(self, ctx: Context, rule: Rule) -> _Difference:
        test = rule.test(ctx)
        joiners = queries.joiners(ctx.session, self.segment_id, test, scan=not rule.names_few)
        return _Difference(joiners, queries.leavers(ctx.session, self.segment_id, test))

    def _asked(self, rule: Rule, as_of: datetime) -> _Difference:
        """No transaction is open while plugins are asked; what changes meanwhile is marked, and looked at afterwards."""
        renewed = time.monotonic()

        def hold() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > _HOLD_SECONDS / 4:
                with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
                    upkeep.hold_segment(ctx.session, self.segment_id, _HOLD_SECONDS, mine=True)
                renewed = time.monotonic()

        found = set(all_satisfying(self.runtime, self.tenant_id, rule, Evaluation(as_of), hold))
        with self.runtime.work(self.tenant_id, SYSTEM, mode="read") as ctx:
            members = set(queries.member_ids(ctx.session, self.segment_id))
        return _Difference(sorted(found - members), sorted(members - found))

    def _write(self, ctx: Context, job: queries.Refresh, piece: _Difference) -> None:
        came = queries.add_members(ctx.session, job.segment_id, piece.joiners, job.generation)
        left = queries.remove_members(ctx.session, job.segment_id, piece.leavers)
        if job.cause is not None:
            upkeep.note_moves(ctx.session, upkeep.moves_of(job.segment_id, came, left), job.cause, ahead=1)
        if job.is_read:
            mark_leads(ctx, [*came, *left], [f"segment:{job.segment_id}"])
        self.joined += len(came)
        self.went += len(left)


def _rule(ctx: Context, segment: Segment) -> Rule | None:
    """What decides membership now: nothing for those that people fill, and for a snapshot that was taken."""
    if segment.kind == SegmentKind.STATIC or (segment.kind == SegmentKind.SNAPSHOT and segment.pending is None):
        return None
    return rule_of(ctx, segment)
