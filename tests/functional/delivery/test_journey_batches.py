"""Runs that go on many in a transaction: as each would alone, and none because of another."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text

from nexus_marketing.core.engine.journeys import decide
from nexus_marketing.core.journeys import Woken
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Timer
from nexus_marketing.db.queries.journeys import RUN_DUE, messages_to_tell
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.services.journeys import batches as journey_batches
from nexus_marketing.services.journeys import runs as journey_runs
from nexus_marketing.services.journeys.batches import runs_due
from nexus_marketing.services.journeys.runs import tell_runs
from nexus_marketing.tasks import loops
from tests.common.factories import make_leads
from tests.functional.delivery.conftest import SENDER, Stage
from tests.functional.delivery.journeys import Way, message

pytestmark = pytest.mark.req("US-020", "SCL-005")

#: One wait and a message to everybody at once.
HELLO = {"wait": {"type": "delay", "for": "1 hour", "next": "hello"}, "hello": message()}
PEOPLE = range(1, 13)


@pytest.fixture
def waiting(way):
    """Everybody waits, and the hour is over."""
    way.publish(HELLO)
    way.enter(*PEOPLE)
    way.work()
    assert way.where() == {"waiting:wait": len(PEOPLE)}
    way.clock.advance(hours=1)
    way.database_time.advance(hours=1)
    return way


def claimed(way) -> list[TimerFact]:
    """The timers of the runs, as a worker holds them that claimed them."""
    with way.runtime.work(way.tenant) as ctx:
        found = ctx.session.scalars(select(Timer).where(Timer.type == RUN_DUE).order_by(Timer.id)).all()
        for each in found:
            each.lease_token, each.lease_until = 7, ctx.now.replace(year=ctx.now.year + 1)
        return [
            TimerFact(way.tenant, each.id, each.type, each.key, each.trigger_at, each.payload, None, 1, 0, 7)
            for each in found
        ]


def test_all_of_them_go_on_in_one_transaction(waiting, monkeypatch):
    points = []
    monkeypatch.setattr(waiting.runtime.telemetry, "point", points.append, raising=False)
    waiting.work(1)
    assert points.count("journeys.step.written") == 1
    monkeypatch.undo()
    waiting.work()
    assert waiting.where() == {"done:end": len(PEOPLE)}
    assert sorted(row.seq for row in waiting.ledger()) == list(PEOPLE)
    assert waiting.is_sound()


def test_one_that_cannot_be_decided_on_keeps_no_other_from_it(waiting, monkeypatch):
    bad = str(waiting.runs()[3].id)

    def stumble(journey, run, facts, occurrence, now):
        if run.id == bad and isinstance(occurrence, Woken):
            raise RuntimeError("stumbled")
        return decide(journey, run, facts, occurrence, now)

    with monkeypatch.context() as patched:
        for each in (journey_batches, journey_runs):
            patched.setattr(each, "decide", stumble)
        waiting.work(5)
    assert waiting.where() == {"waiting:wait": 1, "done:end": len(PEOPLE) - 1}
    waiting.go_on(hours=1)
    assert waiting.where() == {"done:end": len(PEOPLE)}
    assert waiting.is_sound()


def test_whoever_lost_the_lease_of_one_writes_the_others_only(waiting):
    timers = claimed(waiting)
    with waiting.runtime.work(waiting.tenant) as ctx:
        ctx.session.get_one(Timer, (waiting.tenant, timers[0].id)).lease_token = 8
    with waiting.runtime.work(waiting.tenant) as ctx:
        assert runs_due(ctx, timers) == {each.id for each in timers[1:]}
    assert waiting.where() == {"waiting:wait": 1, "sending:hello": len(PEOPLE) - 1}
    with waiting.runtime.work(waiting.tenant) as ctx:
        assert runs_due(ctx, [replace(timers[0], token=9)]) == set()
    assert waiting.where() == {"waiting:wait": 1, "sending:hello": len(PEOPLE) - 1}


def test_a_tenant_with_many_messages_keeps_no_other_waiting(way, other_tenant, monkeypatch):
    stage = Stage(way.runtime, other_tenant, make_leads(way.runtime, other_tenant, 2))
    stage.set_up({"email": SENDER, "sms": SENDER, "push": SENDER})
    other = Way(stage, way.clock, way.database_time)
    with monkeypatch.context() as patched:
        patched.setattr(loops, "tell_runs", lambda runtime, after: (0, after))
        for each, people in ((way, PEOPLE), (other, (1, 2))):
            each.publish({"hello": message()})
            each.enter(*people)
        way.work()
    with open_session(way.runtime.engines.worker, tenant_id=None, mode="read") as session:
        assert [row.tenant_id for row in messages_to_tell(session, size=5)] == [way.tenant] * 5
        then = messages_to_tell(session, after=way.tenant, size=5)
    assert [row.tenant_id for row in then] == [other_tenant] * 2 + [way.tenant] * 3
    assert tell_runs(way.runtime, way.tenant) == (len(PEOPLE) + 2, way.tenant)
    assert tell_runs(way.runtime, way.tenant) == (0, 0)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_one_that_somebody_has_locked_is_not_waited_for(waiting):
    timers = claimed(waiting)
    with waiting.runtime.engines.owner.begin() as other:
        other.execute(
            text("SELECT 1 FROM marketing_journey_runs WHERE id = :id FOR UPDATE"), {"id": int(timers[0].key)}
        )
        with waiting.runtime.work(waiting.tenant) as ctx:
            assert runs_due(ctx, timers) == {each.id for each in timers[1:]}
    waiting.go_on(hours=1)
    assert waiting.where() == {"waiting:wait": 1, "done:end": len(PEOPLE) - 1}  # until its lease is over
