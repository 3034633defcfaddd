"""Timers where the database, other transactions or what follows from a dead timer stand in the way."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from nexus_marketing.core.timers import MAX_ATTEMPTS, TimerFact
from nexus_marketing.db.models import Campaign, Timer
from nexus_marketing.db.queries.timers import claim_timers, take_timer
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.actions.compensation import TYPE as COMPENSATION
from nexus_marketing.services.timers import Locking, fire_due, put_off, set_timer
from nexus_marketing.tasks.timers import TIMERS
from tests.common.factories import make_campaign

pytestmark = pytest.mark.req("FR-P3-006", "SCL-005")


class Said(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"the server says {sqlstate}")
        self.sqlstate = sqlstate


def failing(sqlstate: str) -> DBAPIError:
    return OperationalError("SELECT 1", {}, Said(sqlstate))


class Handler(list[str]):
    """Notes what it did; raises what its script says of a key first."""

    def __init__(self, **scripts: list[Exception]) -> None:
        super().__init__()
        self.scripts = scripts

    def __call__(self, ctx: Context, timer: TimerFact) -> None:
        script = self.scripts.get(timer.key)
        if script:
            raise script.pop(0)
        self.append(timer.key)


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime) -> Runtime:
    """One database: only what is written for PostgreSQL alone asks for that."""
    return sqlite_only_runtime


def put(runtime: Runtime, tenant: int, *keys: str) -> None:
    with runtime.work(tenant) as ctx:
        for number, key in enumerate(keys):
            set_timer(ctx, "test", key, ctx.now - timedelta(seconds=60 - number))


def rows(runtime: Runtime, tenant: int) -> dict[str, Timer]:
    with runtime.work(tenant, mode="read") as ctx:
        found = {each.key: each for each in ctx.session.scalars(select(Timer))}
        ctx.session.expunge_all()
        return found


def test_one_of_whose_death_nobody_can_be_told_is_dead_all_the_same(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "bad", "good")
    handler = Handler(bad=[ValueError("half a row")] * 20)

    def tell(_ctx: Context, _timer: TimerFact, _reason: str) -> None:
        raise KeyError("subscriber")

    due = Locking(lambda ctx, timer: handler(ctx, timer) if take_timer(ctx.session, timer) else None, tell)
    for _ in range(MAX_ATTEMPTS + 1):
        fire_due(runtime, {"test": due})
        runtime.clock.advance(hours=2)  # type: ignore[attr-defined]
    assert handler == ["good"]
    (left,) = rows(runtime, tenant).values()
    assert (left.status, left.error, left.lease_token) == ("dead", "half a row", None)
    put(runtime, tenant, "next")
    assert fire_due(runtime, {"test": due}) == 1
    assert handler == ["good", "next"]


def test_a_database_that_goes_away_blames_no_timer_and_keeps_the_others_no_lease_long(
    runtime: Runtime, tenant: int
) -> None:
    put(runtime, tenant, "first", "second")
    handler = Handler(first=[failing("57P01")] * 5)
    for _ in range(5):
        with pytest.raises(DBAPIError):
            fire_due(runtime, {"test": handler})
        first = rows(runtime, tenant)["first"]
        assert (first.status, first.crashes, first.lease_token) == ("waiting", 0, None)
        fire_due(runtime, {"test": handler})
        assert handler == ["second"], "the other one is due at once"
        runtime.clock.advance(hours=2)  # type: ignore[attr-defined]
    fire_due(runtime, {"test": handler})
    assert handler == ["second", "first"]


def test_what_cannot_be_given_back_while_the_database_is_away_is_given_back_when_it_is_there(
    runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, tenant, "first", "second")
    handler, held = Handler(first=[failing("08006")]), list[TimerFact]()

    def away(*_args: Any, **_options: Any) -> None:
        raise failing("08006")

    with monkeypatch.context() as patched:
        patched.setattr("nexus_marketing.services.timers.give_back", away)
        with pytest.raises(DBAPIError):
            fire_due(runtime, {"test": handler}, held=held)
    assert [each.key for each in held] == ["first", "second"]
    assert fire_due(runtime, {"test": handler}, held=held) == 2
    assert handler == ["first", "second"]
    assert held == []


def test_transactions_in_each_others_way_are_done_again_at_once(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "first", "second", "stubborn")
    handler = Handler(first=[failing("40P01")], second=[failing("40001")] * 2, stubborn=[failing("40P01")] * 3)
    assert fire_due(runtime, {"test": handler}) == 3
    assert handler == ["first", "second"]
    assert rows(runtime, tenant)["stubborn"].crashes == 0
    assert fire_due(runtime, {"test": handler}) == 1
    assert handler == ["first", "second", "stubborn"]


def test_one_that_is_put_off_has_lost_no_attempt(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "crowded")
    for token in range(1, 20):
        with open_session(runtime.engines.worker, tenant_id=None) as session, session.begin():
            (claimed,) = claim_timers(session, runtime.clock.now(), token, lease_seconds=60, each=50, most=100)
        assert (claimed.attempts, claimed.crashes) == (1, 0)
        put_off(runtime, claimed, runtime.clock.now() + timedelta(seconds=5))
        assert fire_due(runtime, {"test": Handler()}) == 0
        runtime.clock.advance(seconds=5)  # type: ignore[attr-defined]


def test_whoever_holds_a_campaign_and_sets_its_timer_is_not_in_the_way_of_the_worker_that_fires_it(
    postgres_only_runtime: Runtime,
) -> None:
    from tests.common.factories import make_tenant

    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    campaign = make_campaign(runtime, tenant)

    def arm(ctx: Context) -> None:
        set_timer(ctx, COMPENSATION, str(campaign), ctx.now, campaign_id=campaign)

    with runtime.work(tenant) as ctx:
        arm(ctx)
    tries, fired = list[str](), list[int]()
    due = TIMERS[COMPENSATION]
    assert isinstance(due, Locking)

    def fire(ctx: Context, timer: TimerFact) -> None:
        tries.append("begun")
        due.fire(ctx, timer)
        tries.append("done")  # and not broken off by the database

    worker = threading.Thread(target=lambda: fired.append(fire_due(runtime, {COMPENSATION: Locking(fire)})))
    with runtime.work(tenant) as ctx:
        find(ctx.session, Campaign, campaign, lock=True)
        worker.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        with runtime.engines.owner.connect() as watching:
            while worker.is_alive() and not watching.scalar(waiting):
                watching.rollback()
        arm(ctx)  # a worker that had taken the timer already would wait for us here, as we for it
    worker.join()
    assert (fired, tries) == ([1], ["begun", "done"])
    (left,) = rows(runtime, tenant).values()
    assert (left.status, left.attempts, left.crashes) == ("waiting", 0, 0)
