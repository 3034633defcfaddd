"""A segment that is computed anew again and again while journeys live by it and leads are edited (SECURITY.md R15)."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import DBAPIError

from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import refresh
from tests.chaos.judge import query
from tests.chaos.stage import Stage, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, wait_until

_JOURNEYS: Final = 5
_REBUILDS: Final = 20
_AT_ONCE: Final = 4
#: PR-007.
_SECONDS_AT_MOST: Final = 10.0
#: One lead of so many is a member; one member of so many is edited meanwhile, and as many of the others.
_ONE_OF: Final = 10
_NAME: Final = "Germans"
_WAY: Final = {
    "entry": {
        "triggers": [{"on": "segment_entered", "segment": _NAME}],
        "backfill": "all",
        "reentry": {"policy": "always"},
    },
    "exit": [{"when": f"not in_segment('{_NAME}')", "reason": "left"}],
    "nodes": {"wait": {"type": "delay", "for": "300 days"}},
}
_MEMBERS: Final = "SELECT lead_id FROM marketing_segment_members WHERE segment_id = {}"
_WANTED: Final = "SELECT id FROM marketing_leads WHERE locale = 'de'"
_LIVING: Final = (
    "SELECT lead_id FROM marketing_journey_runs WHERE journey_id = {} AND state = 'waiting' AND node = 'wait'"
)
_LIVE: Final = "SELECT count(*) FROM marketing_journey_runs WHERE state NOT IN ('done', 'exited', 'failed')"
_UNDER_WAY: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM marketing_segment_marks UNION ALL"
    " SELECT 1 FROM marketing_timers WHERE trigger_at <= now()) w"
)


@dataclass(slots=True)
class _Trouble:
    """Leads that are made members and no members all the time, and the rest of them, who stay."""

    stage: Stage
    segment_id: int
    edited: Sequence[int]
    staying: frozenset[int]
    rng: random.Random
    edits: int = 0
    missing: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def edit(self) -> None:
        """Until the end."""
        while not self._ended.wait(0.01):
            lead_id, locale = self.rng.choice(self.edited), self.rng.choice(["de", "en"])
            try:
                with self.stage.runtime.work(self.stage.tenant_id) as ctx:
                    update_lead(ctx, lead_id, {"locale": locale})
            except DBAPIError as error:
                if not is_transient(error):
                    raise
            self.edits += 1

    def watch(self) -> None:
        """How many of those who stay are seen missing at one moment."""
        while not self._ended.wait(0.05):
            there = {lead_id for (lead_id,) in query(self.stage.dsn, _MEMBERS.format(self.segment_id))}
            self.missing = max(self.missing, len(self.staying - there))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Meanwhile."""
        threads = [threading.Thread(target=each) for each in (self.edit, self.watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()


def segment_rebuild(servers: Servers, plan: Plan) -> Verdict:
    """Twenty computations of a segment, four at a time, while five journeys enter, keep and let go of its members.

    Nobody who stays is missing from it at any moment, or loses the place in a journey; whoever is a member at the end is in
    each journey, and nobody else.
    """
    leads = 400 if plan.small else 100_000
    rebuilds = 6 if plan.small else _REBUILDS
    with open_stage(servers.cluster, audience=leads, reply_delay_seconds=0.0) as stage:
        members = list(range(1, leads + 1, _ONE_OF))
        segment_id, journeys = _begin(stage)
        for _ in range(2):
            stage.start_worker()
        entered = _JOURNEYS * len(members)
        wait_until(lambda: query(stage.dsn, _LIVE)[0][0] == entered and not _under_way(stage), 60.0 + leads / 100)
        watch = Watch(stage.runtime)
        edited = [*members[::_ONE_OF], *(each + 1 for each in members[::_ONE_OF])]
        staying = frozenset(members) - set(edited)
        before = _runs(stage, journeys, staying)
        trouble = _Trouble(stage, segment_id, edited, staying, random.Random(plan.seed))
        with trouble.going_on(), ThreadPoolExecutor(_AT_ONCE) as pool:
            seconds = list(pool.map(lambda _: _rebuild(stage, segment_id), range(rebuilds)))
        wait_until(lambda: not _under_way(stage), 60.0)
        violations = watch.finish()
        stage.stop_workers()
        verdict = Verdict("segment_rebuild", rebuilds, len(members), recovery_s_max=round(max(seconds), 1))
        verdict.lost = len(before - _runs(stage, journeys, staying))
        least = 2 if plan.small else rebuilds  # those of a few hundred leads are over in a moment
        verdict.require(trouble.edits > least, f"only {trouble.edits} edits: no evidence")
        verdict.require(max(seconds) < _SECONDS_AT_MOST, f"a computation took {max(seconds):.1f} s")
        verdict.require(not trouble.missing, f"{trouble.missing} members were missing at one moment")
        verdict.require(not verdict.lost, f"{verdict.lost} places in journeys are lost")
        verdict.require(not violations, f"invariants broken on the way: {violations}")
        return _judge(stage, verdict, segment_id, journeys)


def _begin(stage: Stage) -> tuple[int, list[int]]:
    with stage.runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE marketing_leads SET locale = CASE WHEN id %% {_ONE_OF} = 1 THEN 'de' ELSE 'en' END"
        )
    with stage.runtime.work(stage.tenant_id) as ctx:
        segment_id = create_segment(ctx, {"name": _NAME, "conditions": "locale == 'de'"}).id
    assert refresh(stage.runtime, stage.tenant_id, segment_id) is not None
    journeys = []
    with stage.runtime.work(stage.tenant_id) as ctx:
        for number in range(_JOURNEYS):
            journey = create_journey(ctx, {"name": f"way {number}", "draft": {"id": f"way-{number}", **_WAY}})
            publish_journey(ctx, journey.id)
            journeys.append(journey.id)
    return segment_id, journeys


def _rebuild(stage: Stage, segment_id: int) -> float:
    began = time.monotonic()
    assert refresh(stage.runtime, stage.tenant_id, segment_id) is not None
    return time.monotonic() - began


def _under_way(stage: Stage) -> int:
    return int(query(stage.dsn, _UNDER_WAY)[0][0])


def _runs(stage: Stage, journeys: Sequence[int], leads: frozenset[int]) -> set[tuple[int, int]]:
    """(run, lead) of those who wait in a journey."""
    ids = ", ".join(map(str, journeys))
    found = query(
        stage.dsn,
        f"SELECT id, lead_id FROM marketing_journey_runs WHERE journey_id IN ({ids}) AND state = 'waiting'",
    )
    return {(run_id, lead_id) for run_id, lead_id in found if lead_id in leads}


def _judge(stage: Stage, verdict: Verdict, segment_id: int, journeys: Sequence[int]) -> Verdict:
    wanted = sorted(lead_id for (lead_id,) in query(stage.dsn, _WANTED))
    there = sorted(lead_id for (lead_id,) in query(stage.dsn, _MEMBERS.format(segment_id)))
    verdict.require(there == wanted, f"{len(set(there) ^ set(wanted))} members differ from what plain SQL says")
    for journey_id in journeys:
        living = sorted(lead_id for (lead_id,) in query(stage.dsn, _LIVING.format(journey_id)))
        differs = set(living) ^ set(wanted)
        verdict.require(
            not differs, f"journey {journey_id}: {len(differs)} are in and no members, or the other way round"
        )
        verdict.require(len(living) == len(set(living)), f"journey {journey_id}: somebody is in it twice")
    with open_session(stage.runtime.engines.worker, tenant_id=None, mode="read") as session:
        broken = broken_invariants(session)
    verdict.require(not broken, f"invariants broken at the end: {sorted(broken)}")
    if verdict.complaints:
        verdict.complaints += [f"worker said: {line}" for line in stage.worker_log()[-5:]]
    return verdict
