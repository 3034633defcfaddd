"""Membership computed as a whole: when a rule is new or edited, when somebody asks, before an audience is frozen.

PostgreSQL writes the difference in one statement and one transaction. On SQLite joiners and leavers are written in
pieces, joiners first, so that readers never see fewer than those who stay. Either way upkeep leaves the segment
alone meanwhile and looks at what changed under way afterwards.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.errors import NexusError, NotFound
from nexus_marketing.core.events import SegmentChanged
from nexus_marketing.core.segments import SegmentCause, SegmentKind, levels, segments_read
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.queries import upkeep
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.segment_clock import arm
from nexus_marketing.services.segment_marks import mark_leads
from nexus_marketing.services.segment_rules import Rule, readers_of, rule_of
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Rows per transaction on SQLite, whose only writer must be free for others (DATABASE.md).
PIECE: Final = 2_000
#: How long a computation in pieces is believed to go on after its last sign of life.
_HOLD_SECONDS: Final = 60.0
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
        for segment_id in _in_order(runtime, tenant_id, wanted):
            done += _recalculate(runtime, tenant_id, segment_id)
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
        members = _Computation(runtime, tenant_id, each).run()
        if members is None:
            return None
    return members


def _recalculate(runtime: Runtime, tenant_id: int, segment_id: int) -> int:
    try:
        return int(_Computation(runtime, tenant_id, segment_id).run() is not None)
    except NotFound:
        return 1  # deleted meanwhile
    except NexusError as error:
        # A rule that cannot be computed any more must not stop the others, nor be tried for ever.
        log.warning("segment_refresh_failed", tenant_id=tenant_id, segment_id=segment_id, error=str(error))
        with runtime.work(tenant_id, SYSTEM) as ctx:
            segment = find(ctx.session, Segment, segment_id, lock=True)
            segment.error, segment.requested_at = str(error)[:500], None
            segment.building_until = None
        return 1


def _reads(ctx: Context) -> dict[int, list[int]]:
    found = ctx.session.execute(select(Segment.id, Segment.depends_on).where(Segment.conditions.is_not(None)))
    return {row.id: segments_read(row.depends_on) for row in found}


def _in_order(runtime: Runtime, tenant_id: int, ids: Sequence[int]) -> list[int]:
    if len(ids) < 2:
        return list(ids)
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        reads = _reads(ctx)
    ordered = [each for level in levels({id_: reads.get(id_, ()) for id_ in {*ids, *reads}}) for each in level]
    return [each for each in ordered if each in set(ids)]


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


class _Computation:
    """One segment, once."""

    def __init__(self, runtime: Runtime, tenant_id: int, segment_id: int) -> None:
        self.runtime, self.tenant_id, self.segment_id = runtime, tenant_id, segment_id
        self.started = time.monotonic()
        self.entered = self.left = 0

    def run(self) -> int | None:
        try:
            return self._in_pieces() if self.runtime.engines.dialect == "sqlite" else self._at_once()
        except _Overtaken:
            with self.runtime.work(self.tenant_id, SYSTEM, mode="read") as ctx:
                return find(ctx.session, Segment, self.segment_id).lead_count

    def _at_once(self) -> int:
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            upkeep.wait_for_segment(ctx.session, self.segment_id)
            segment = find(ctx.session, Segment, self.segment_id, lock=False)
            rule = _rule(ctx, segment)
            if rule is not None:
                job = self._job(ctx, segment)
                self.entered, self.left = queries.refresh_by_diff(ctx.session, job, rule.test(ctx))
            return self._finish(ctx, segment.version, ctx.now, rule)

    def _in_pieces(self) -> int | None:
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            find(ctx.session, Segment, self.segment_id)
            if not upkeep.hold_segment(ctx.session, self.segment_id, _HOLD_SECONDS, mine=False):
                return None
        with self.runtime.work(self.tenant_id, SYSTEM, mode="read") as ctx:
            segment = find(ctx.session, Segment, self.segment_id)
            as_of, version, rule = ctx.now, segment.version, _rule(ctx, segment)
            job = self._job(ctx, segment)
            pieces = [] if rule is None else self._difference(ctx, rule).pieces()
        for piece in pieces[:-1]:
            with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
                upkeep.hold_segment(ctx.session, self.segment_id, _HOLD_SECONDS, mine=True)
                self._write(ctx, job, piece)
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            if pieces:
                self._write(ctx, job, pieces[-1])
            return self._finish(ctx, version, as_of, rule)

    def _job(self, ctx: Context, segment: Segment) -> queries.Refresh:
        cause = _CAUSES[segment.pending]
        is_read = bool(readers_of(ctx, segment.id))
        return queries.Refresh(segment.id, segment.generation + 1, cause, is_read)

    def _difference(self, ctx: Context, rule: Rule) -> _Difference:
        test = rule.test(ctx)
        joiners = queries.joiners(ctx.session, self.segment_id, test, scan=not rule.names_few)
        return _Difference(joiners, queries.leavers(ctx.session, self.segment_id, test))

    def _write(self, ctx: Context, job: queries.Refresh, piece: _Difference) -> None:
        came = queries.add_members(ctx.session, job.segment_id, piece.joiners, job.generation)
        went = queries.remove_members(ctx.session, job.segment_id, piece.leavers)
        if job.cause is not None:
            upkeep.note_moves(ctx.session, upkeep.moves_of(job.segment_id, came, went), job.cause, ahead=1)
        if job.is_read:
            mark_leads(ctx, [*came, *went], [f"segment:{job.segment_id}"])
        self.entered += len(came)
        self.left += len(went)

    def _finish(self, ctx: Context, version: int, as_of: datetime, rule: Rule | None) -> int:
        segment = find(ctx.session, Segment, self.segment_id, lock=True)
        segment.building_until = None
        if segment.version != version:
            if self.runtime.engines.dialect == "sqlite":
                return segment.lead_count  # what was written is put right by the computation that waits
            raise _Overtaken
        segment.generation += 1
        segment.lead_count = queries.count_members(ctx.session, segment.id)
        segment.as_of, segment.error, segment.pending = as_of, None, None
        if rule is not None:
            segment.depends_on = rule.depends_on
        if segment.requested_at is not None and segment.requested_at <= as_of:
            segment.requested_at = None  # asked for again meanwhile: computed again
        segment.duration_ms = int((time.monotonic() - self.started) * 1000)
        ctx.session.flush()
        if rule is not None and segment.kind != SegmentKind.SNAPSHOT:
            arm(ctx, rule, as_of)
        if self.entered or self.left:
            ctx.emit(SegmentChanged(self.tenant_id, ctx.now, segment.id, self.entered, self.left))
        return segment.lead_count


def _rule(ctx: Context, segment: Segment) -> Rule | None:
    """What decides membership now: nothing for those that people fill, and for a snapshot that was taken."""
    if segment.kind == SegmentKind.STATIC or (segment.kind == SegmentKind.SNAPSHOT and segment.pending is None):
        return None
    return rule_of(ctx, segment)
