"""One that cannot be done keeps nobody else from being done, and shows where a person finds it."""

from dataclasses import dataclass, field

import pytest
from sqlalchemy import select, update

from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.core.timers import MAX_ATTEMPTS
from nexus_marketing.db.models import Send, Timer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys import entries as journey_entries
from nexus_marketing.services.journeys import runs as journey_runs
from nexus_marketing.services.journeys.entries import enter_members
from nexus_marketing.tasks import loops
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template
from tests.functional.delivery.journeys import message

pytestmark = pytest.mark.req("REL-001", "SCL-005", "FR-P3-011")


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime) -> Runtime:
    """One database: nothing here is put another way in SQL."""
    return sqlite_only_runtime


@dataclass
class Breaking:
    """Raises for some of what it is called with, and else does what it stands for."""

    real: object
    broken: set[int] = field(default_factory=set)
    place: int = -1

    def __call__(self, *args, **options):
        about = args[self.place]
        number = about if isinstance(about, int) else getattr(about, "send_id", None) or about.id
        if number in self.broken:
            raise AssertionError("nobody foresaw this")
        return self.real(*args, **options)


def test_a_send_that_cannot_be_planned_keeps_no_other_from_being_planned(runtime, tenant, monkeypatch):
    template = make_template(runtime, tenant)
    segment = make_segment(runtime, tenant, make_leads(runtime, tenant, 3))
    waiting = {"status": "planning", "segment_id": segment}
    ids = [
        make_send(runtime, tenant, make_campaign(runtime, tenant, name), template, **waiting)
        for name in ("broken", "sound")
    ]
    plan = Breaking(loops.plan_send, {ids[0]}, 1)
    monkeypatch.setattr(loops, "plan_send", plan)
    for _ in range(2):
        loops.plan_waiting(runtime)
    with runtime.work(tenant, mode="read") as ctx:
        broken, sound = ctx.session.scalars(select(Send).order_by(Send.id))
        assert (broken.status, broken.status_reason) == ("paused", "cannot be planned: AssertionError")
        assert (sound.status, sound.planned) == ("running", 3)


class TestJourneys:
    def test_a_run_that_can_never_be_told_fails_where_an_operator_sees_it(self, way, monkeypatch):
        way.publish({"hello": message(next="wait"), "wait": {"type": "delay", "for": "90 days"}})
        way.enter(1)
        (run,) = way.runs()
        step = Breaking(journey_runs.step, place=1)
        monkeypatch.setattr(journey_runs, "step", step)
        way.work(turns=1)
        step.broken = {run.id}
        way.work(turns=3)
        with way.runtime.work(way.tenant) as ctx:
            tried = update(Timer).where(Timer.type == journey_runs.TELL).values(attempts=MAX_ATTEMPTS - 1)
            assert ctx.session.execute(tried).rowcount == 1
        way.go_on(hours=2)
        (run,) = way.runs()
        assert run.state == "failed"
        assert run.reason.startswith("timer_dead: nobody foresaw this")

    def test_a_pause_holds_those_of_a_segment_who_have_not_come_in_yet(self, way, monkeypatch):
        monkeypatch.setattr(journey_entries, "PIECE", 5)
        segment = way.stage.segment_id
        way.publish({"wait": {"type": "delay", "for": "9 days"}})
        with way.runtime.work(way.tenant) as ctx:
            enter_members(ctx, way.journey, segment, backfill=True)
        way.work(turns=1)
        assert len(way.runs()) == 5
        way.move(JourneyMove.PAUSE)
        way.go_on(minutes=30)
        assert len(way.runs()) == 5
        way.move(JourneyMove.RESUME)
        way.work()
        assert len(way.runs()) == 20
        way.move(JourneyMove.STOP)
        with way.runtime.work(way.tenant) as ctx, pytest.raises(Conflict, match="stopped"):
            enter_members(ctx, way.journey, segment, backfill=True)
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert ctx.session.scalars(select(Timer).where(Timer.type == "journey.backfill")).all() == []
