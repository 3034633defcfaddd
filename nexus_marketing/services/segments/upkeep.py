"""Segments kept true change by change: only the pairs of segment and lead that a change touches are evaluated.

A mark is removed in the transaction that wrote what its evaluation found, so that a crash repeats it. One worker
keeps a tenant's segments at a time, and leaves those alone that are computed as a whole meanwhile: their pairs are
marked again. Segments that read others come after them, in the same transaction.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, update
from sqlalchemy.orm import Session

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.events import SegmentChanged
from nexus_marketing.core.segments import SegmentCause, SegmentMove, is_touched, levels, segments_read
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries import upkeep as queries
from nexus_marketing.db.queries.leads import count_leads
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.db.types import read_json, read_moment
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.segments.candidates import satisfying
from nexus_marketing.services.segments.clock import arm_for
from nexus_marketing.services.segments.rules import Rule, rule_of, ruled_segments
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Leads per transaction; on SQLite nobody else writes meanwhile (50 ms, DATABASE.md).
LEADS_AT_ONCE: Final = {"postgresql": 5_000, "sqlite": 500}
#: From so many marked leads on, and a fifth of all, whole segments are computed instead.
SET_MODE_FROM: Final = 20_000
_SET_MODE_SHARE: Final = 0.2


def only(segment_id: int) -> str:
    """The name of a change that concerns one segment alone."""
    return f"only:{segment_id}"


def keep_segments(runtime: Runtime) -> int:
    """Look at the marked leads of every tenant, some of each; answers how many."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        tenants = queries.tenants_with_marks(session)
    return sum(_keep(runtime, tenant_id) for tenant_id in tenants)


def _keep(runtime: Runtime, tenant_id: int) -> int:
    begun = time.monotonic()
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if not queries.try_upkeep(ctx.session):
            return 0
        rows = queries.read_marks(ctx.session)
        waiting: int = sum(row.lead_count for row in rows)
        is_large = waiting > SET_MODE_FROM and waiting > _SET_MODE_SHARE * count_leads(ctx.session)
        if not rows:
            return 0
        if is_large:
            _request_touched(ctx, rows)
            done = waiting
        else:
            done = _Upkeep(ctx, _Marks.read(ctx.session, rows, LEADS_AT_ONCE[runtime.engines.dialect])).run()
    runtime.telemetry.observe("segments.behind", (runtime.clock.now() - read_moment(rows[0].marked_at)).total_seconds())
    runtime.telemetry.observe("segments.upkeep", time.monotonic() - begun)
    return done


def _request_touched(ctx: Context, rows: Sequence[Row[Any]]) -> None:
    """Set mode: one pass over all leads costs less than so many pairs, so it does not matter which leads they are."""
    changes = {frozenset(read_json(row.names)) for row in rows}
    touched = []
    for id_, row in ruled_segments(ctx).items():
        reads = {*row.depends_on, only(id_)}
        if row.pending is not None or any(is_touched(reads, names) for names in changes):
            touched.append(id_)
    _request(ctx, touched)
    queries.forget_marks(ctx.session, [row.id for row in rows])


def _request(ctx: Context, segment_ids: Iterable[int]) -> None:
    ctx.session.execute(update(Segment).where(Segment.id.in_(sorted(segment_ids))).values(requested_at=ctx.now))
    ctx.ring("segments")


@dataclass(slots=True)
class _Marks:
    """Marks that are dealt with together: what changed of which leads, and what is left for the next time."""

    ids: list[int] = field(default_factory=list)
    names: dict[frozenset[str], set[int]] = field(default_factory=lambda: defaultdict(set))
    left: list[tuple[Sequence[str], Sequence[int]]] = field(default_factory=list)

    @classmethod
    def read(cls, session: Session, rows: Iterable[Row[Any]], most: int) -> "_Marks":
        """As many of the tenant's marks as name ``most`` leads, the last of them in part."""
        chosen, room = [], most
        for row in rows:
            if room <= 0:
                break
            chosen.append((row, room))
            room -= row.lead_count
        leads = queries.marked_leads(session, [row.id for row, _ in chosen])
        found = cls()
        for row, room in chosen:
            names, lead_ids = read_json(row.names), read_json(leads[row.id])
            found.ids.append(row.id)
            found.names[frozenset(names)].update(lead_ids[:room])
            if room < len(lead_ids):
                found.left.append((names, lead_ids[room:]))
        return found

    def touching(self, segment_id: int, depends_on: Collection[str], *, is_pending: bool) -> set[int]:
        """The leads whose membership of a segment may have changed: all, while its rule waits to be computed."""
        reads = {*depends_on, only(segment_id)}
        touched = (leads for names, leads in self.names.items() if is_pending or is_touched(reads, names))
        return set().union(*touched)


class _Upkeep:
    """One transaction of upkeep."""

    def __init__(self, ctx: Context, marks: _Marks) -> None:
        self.ctx, self.session, self.marks = ctx, ctx.session, marks
        self.segments = ruled_segments(ctx)
        self.moves: list[queries.Move] = []
        self.written = 0

    def run(self) -> int:
        """Deal with the marks; answers how many leads were looked at, none where all must be looked at later."""
        touched = {
            id_: self.marks.touching(id_, row.depends_on, is_pending=row.pending is not None)
            for id_, row in self.segments.items()
        }
        pairs = {id_: leads for id_, leads in touched.items() if leads}
        done = len(set().union(*self.marks.names.values()))
        if pairs and not self._evaluate(pairs):
            done = 0
        for names, lead_ids in self.marks.left:
            queries.add_mark(self.session, names, lead_ids, self.ctx.now)
        queries.forget_marks(self.session, self.marks.ids)
        return done

    def _evaluate(self, pairs: dict[int, set[int]]) -> bool:
        """Bring pairs in line with the rules; whether that could be done for any of the segments."""
        readers = self._readers()
        mine = queries.try_segments(self.session, _closure(pairs, readers))
        self.segments = ruled_segments(self.ctx)  # as they are now that nobody computes them
        now = self.ctx.now
        mine -= {id_ for id_, row in self.segments.items() if row.building_until and row.building_until > now}
        order = levels({id_: segments_read(row.depends_on) for id_, row in self.segments.items()})
        lead_ids = sorted(set().union(*pairs.values()))
        members = queries.memberships(self.session, lead_ids)
        records = {record["id"]: record for record in queries.lead_records(self.session, lead_ids)}
        for segment_id in (each for level in order for each in level if each in pairs):
            if segment_id not in mine:
                # Read by what is computed as a whole at this moment: it may have missed them.
                queries.add_mark(self.session, [only(segment_id)], sorted(pairs[segment_id]), self.ctx.now)
            elif self.segments[segment_id].pending is None:
                moved = self._judge(segment_id, pairs[segment_id], members, records)
                for reader in readers.get(segment_id, ()) if moved else ():
                    pairs.setdefault(reader, set()).update(moved)
        self._write()
        self._tell()
        return not mine.isdisjoint(pairs)

    def _write(self) -> None:
        queries.apply_moves(self.session, self.moves[self.written :], SegmentCause.CHANGE)
        self.written = len(self.moves)

    def _readers(self) -> Mapping[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for id_, row in self.segments.items():
            for read in segments_read(row.depends_on):
                found[read].append(id_)
        return found

    def _judge(
        self,
        segment_id: int,
        leads: Collection[int],
        members: Mapping[int, set[int]],
        records: Mapping[int, dict[str, Any]],
    ) -> list[int]:
        """Compare what the rule says now with membership; answers whose changed."""
        try:
            rule = rule_of(self.ctx, self.segments[segment_id])
            matching = self._matching(rule, leads, members, records)
        except NexusError as error:
            log.warning("segment_upkeep_failed", tenant_id=self.ctx.tenant_id, segment_id=segment_id, error=str(error))
            _request(self.ctx, [segment_id])  # the whole computation tells of it
            return []
        moved = []
        for lead_id in sorted(leads):
            if (lead_id in matching) is (segment_id in members[lead_id]):
                continue
            moved.append(lead_id)
            change = SegmentMove.ENTERED if lead_id in matching else SegmentMove.LEFT
            self.moves.append((segment_id, lead_id, change))
            members[lead_id].symmetric_difference_update({segment_id})
        arm_for(self.ctx, rule, sorted(leads))
        return moved

    def _matching(
        self,
        rule: Rule,
        leads: Collection[int],
        members: Mapping[int, set[int]],
        records: Mapping[int, dict[str, Any]],
    ) -> set[int]:
        if rule.asks is not None:
            self._write()  # what the database answers of it reads membership as it is by now
            return satisfying(self.ctx, rule, leads)
        if rule.is_of_others:
            self._write()  # a rule in SQL reads membership as it is by now
            return queries.matching(self.session, rule.test(self.ctx, few=True), sorted(leads))
        evaluation = Evaluation(self.ctx.now)
        found = set()
        for lead_id in leads:
            record = records.get(lead_id)
            if record is None:
                continue
            record["segments"] = members[lead_id]
            if rule.predicate(record, evaluation):
                found.add(lead_id)
        return found

    def _tell(self) -> None:
        counts: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SegmentMove, 0))
        for segment_id, _, change in self.moves:
            counts[segment_id][change] += 1
        for segment_id, found in counts.items():
            event = SegmentChanged(
                self.ctx.tenant_id, self.ctx.now, segment_id, found[SegmentMove.ENTERED], found[SegmentMove.LEFT]
            )
            self.ctx.emit(event)


def _closure(ids: Iterable[int], readers: Mapping[int, Sequence[int]]) -> set[int]:
    """Segments, and those that read them, and so on."""
    found: set[int] = set()
    waiting = list(ids)
    while waiting:
        id_ = waiting.pop()
        if id_ not in found:
            found.add(id_)
            waiting.extend(readers.get(id_, ()))
    return found
