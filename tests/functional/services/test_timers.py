"""Timers on both databases: each fires once, whoever holds it, and none keeps the others waiting."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.timers import MAX_ATTEMPTS, MAX_CRASHES, TimerFact
from nexus_marketing.db.models import Segment, Timer
from nexus_marketing.db.queries.timers import claim_timers, dead_timers, take_timer
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.timers import Handed, cancel_timer, fire_due, set_timer
from nexus_marketing.telemetry import configure_logging, get_logger, log_discreetly
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_tenant

pytestmark = pytest.mark.req("FR-P3-006", "SCL-005")


class Fired(list[tuple[int, str]]):
    """A handler that notes what fired."""

    def __call__(self, ctx: Context, timer: TimerFact) -> None:
        assert ctx.tenant_id == timer.tenant_id
        self.append((timer.tenant_id, timer.key))


def put(runtime: Runtime, tenant_id: int, *keys: str, seconds: float = 0, **options: Any) -> None:
    with runtime.work(tenant_id) as ctx:
        for key in keys:
            set_timer(ctx, "test", key, ctx.now + timedelta(seconds=seconds), **options)


def rows(runtime: Runtime, tenant_id: int) -> list[Timer]:
    with runtime.work(tenant_id, mode="read") as ctx:
        found = list(ctx.session.scalars(select(Timer).order_by(Timer.id)))
        ctx.session.expunge_all()
        return found


def claim(runtime: Runtime, token: int) -> list[TimerFact]:
    """What a worker does before it dies."""
    with open_session(runtime.engines.worker, tenant_id=None) as session, session.begin():
        return claim_timers(session, runtime.clock.now(), token, lease_seconds=60, each=50, most=100)


@contextmanager
def raising(fired: Fired, error: Exception) -> Iterator[dict[str, Any]]:
    def handler(ctx: Context, timer: TimerFact) -> None:
        ctx.session.add(Segment(name="half", kind="static", created_at=ctx.now, updated_at=ctx.now))
        fired(ctx, timer)
        raise error

    yield {"test": handler}


def test_a_timer_fires_when_it_is_due_and_once(runtime: Runtime, tenant: int) -> None:
    fired = Fired()
    put(runtime, tenant, "later", seconds=60)
    put(runtime, tenant, "now")
    assert fire_due(runtime, {"test": fired}) == 1
    assert fired == [(tenant, "now")]
    runtime.clock.advance(seconds=60)  # type: ignore[attr-defined]
    fire_due(runtime, {"test": fired})
    assert fire_due(runtime, {"test": fired}) == 0
    assert fired == [(tenant, "now"), (tenant, "later")]
    assert rows(runtime, tenant) == []


def test_tenants_with_much_to_do_keep_no_other_waiting(runtime: Runtime, tenant: int) -> None:
    busy = [tenant, make_tenant(runtime, "busy")]
    quiet = make_tenant(runtime, "quiet")
    for each in busy:
        put(runtime, each, *map(str, range(30)), seconds=-60)
    put(runtime, quiet, "mine")
    served: list[int] = []
    for token in range(1, 11):
        with open_session(runtime.engines.worker, tenant_id=None) as session, session.begin():
            claimed = claim_timers(session, runtime.clock.now(), token, lease_seconds=60, each=2, most=4)
        served += [fact.tenant_id for fact in claimed]
        if quiet in served:
            break
    assert quiet in served, "two tenants fill each claim"


def test_setting_it_again_moves_the_same_timer(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "a", seconds=10, payload={"n": 1})
    put(runtime, tenant, "a", seconds=500, payload={"n": 2})
    (timer,) = rows(runtime, tenant)
    assert (timer.trigger_at - timer.created_at, timer.payload) == (timedelta(seconds=500), {"n": 2})
    put(runtime, tenant, "a", seconds=900, payload={"n": 3}, earliest=True)
    assert rows(runtime, tenant)[0].trigger_at == timer.trigger_at
    put(runtime, tenant, "a", seconds=5, payload={"n": 4}, earliest=True)
    (timer,) = rows(runtime, tenant)
    assert (timer.trigger_at - timer.created_at, timer.payload) == (timedelta(seconds=5), {"n": 2})


def test_a_timer_taken_back_does_not_fire(runtime: Runtime, tenant: int) -> None:
    fired = Fired()
    put(runtime, tenant, "a")
    with runtime.work(tenant) as ctx:
        assert cancel_timer(ctx, "test", "a")
        assert not cancel_timer(ctx, "test", "a")
    assert fire_due(runtime, {"test": fired}) == 0


def test_a_handler_may_set_its_timer_again(runtime: Runtime, tenant: int) -> None:
    fired = Fired()

    def recurring(ctx: Context, timer: TimerFact) -> None:
        fired(ctx, timer)
        set_timer(ctx, timer.type, timer.key, timer.trigger_at + timedelta(hours=1))

    put(runtime, tenant, "a")
    for _ in range(3):
        assert fire_due(runtime, {"test": recurring}) == 1
        assert fire_due(runtime, {"test": recurring}) == 0
        runtime.clock.advance(hours=1)  # type: ignore[attr-defined]
    assert len(fired) == 3


def test_what_fails_leaves_nothing_and_is_tried_again_later(runtime: Runtime, tenant: int) -> None:
    fired = Fired()
    put(runtime, tenant, "a")
    with raising(fired, RuntimeError("no luck")) as handlers:
        fire_due(runtime, handlers)
        assert fire_due(runtime, handlers) == 0
    (timer,) = rows(runtime, tenant)
    assert (timer.status, timer.attempts, timer.error) == ("waiting", 1, "no luck")
    assert timer.trigger_at > runtime.clock.now()
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Segment)).all() == []
    runtime.clock.advance(seconds=10)  # type: ignore[attr-defined]
    again = Fired()
    fire_due(runtime, {"test": again})
    assert again == [(tenant, "a")]


def test_after_its_last_attempt_it_waits_for_an_operator(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "a")
    fired = Fired()
    with raising(fired, KeyError("plan")) as handlers:
        for _ in range(MAX_ATTEMPTS + 1):
            fire_due(runtime, handlers)
            runtime.clock.advance(hours=2)  # type: ignore[attr-defined]
    assert len(fired) == MAX_ATTEMPTS
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        (dead,) = dead_timers(session, 10)
    assert (dead.key, dead.error) == ("a", "'plan'")


def test_what_is_kept_and_logged_of_an_error_says_nothing_of_the_rows_it_is_about(
    runtime: Runtime, tenant: int
) -> None:
    name = "yranac"[::-1]  # a trace shows the lines of the source

    def double(ctx: Context) -> None:
        for _ in range(2):
            ctx.session.add(Segment(name=name, kind="static", created_at=ctx.now, updated_at=ctx.now))
        ctx.session.flush()

    put(runtime, tenant, "a")
    fire_due(runtime, {"test": lambda ctx, _: double(ctx)})
    (timer,) = rows(runtime, tenant)
    assert "canary" not in str(timer.error)
    assert str(timer.error).startswith(("IntegrityError (SQLITE_CONSTRAINT", "UniqueViolation (23505): uq_marketing_"))
    stream = io.StringIO()
    with logging_to(stream):
        try:
            with runtime.work(tenant) as ctx:
                double(ctx)
        except IntegrityError:
            get_logger("nexus_marketing.trial").exception("failed")
    assert "IntegrityError" in stream.getvalue()
    assert "canary" not in stream.getvalue()


@contextmanager
def logging_to(stream: io.StringIO) -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    configure_logging("INFO", stream)
    try:
        yield
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
        structlog.reset_defaults()
        log_discreetly()


def test_a_type_nobody_handles_is_put_aside_with_the_reason(runtime: Runtime, tenant: int) -> None:
    put(runtime, tenant, "a")
    fire_due(runtime, {})
    (timer,) = rows(runtime, tenant)
    assert timer.status == "dead"
    assert "plugin" in str(timer.error)


def test_a_timer_that_kills_its_worker_is_put_aside(runtime: Runtime, tenant: int, database_time: Any) -> None:
    put(runtime, tenant, "poison", "fine")
    fired = Fired()
    for token in range(1, MAX_CRASHES + 1):
        assert {timer.key for timer in claim(runtime, token)} >= {"poison"}
        database_time.advance(seconds=61)
        if token == 1:
            with runtime.work(tenant) as ctx:
                cancel_timer(ctx, "test", "fine")
    fire_due(runtime, {"test": fired})
    assert fired == []
    (timer,) = rows(runtime, tenant)
    assert (timer.key, timer.status) == ("poison", "dead")


@pytest.mark.parametrize("stays", [True, False])
def test_one_that_was_handed_over_stays_dead_unless_something_else_tells_of_it(
    runtime: Runtime, tenant: int, database_time: Any, stays: bool
) -> None:
    put(runtime, tenant, "poison")
    for token in range(1, MAX_CRASHES + 1):
        assert claim(runtime, token)
        database_time.advance(seconds=61)
    taken: list[TimerFact] = []
    told: list[str] = []
    handed = Handed(lambda timer, _: taken.append(timer), lambda _ctx, timer, _reason: told.append(timer.key), stays)
    fire_due(runtime, {"test": handed})
    assert (taken, told) == ([], ["poison"])
    assert [timer.status for timer in rows(runtime, tenant)] == (["dead"] if stays else [])


def test_a_lease_keeps_others_away_until_it_runs_out(runtime: Runtime, tenant: int, database_time: Any) -> None:
    put(runtime, tenant, "a")
    (held,) = claim(runtime, 7)
    fired = Fired()
    assert fire_due(runtime, {"test": fired}) == 0
    database_time.advance(seconds=61)
    assert fire_due(runtime, {"test": fired}) == 1
    assert fired == [(tenant, "a")]
    # The first worker wakes up after all: the timer is not its any more.
    with runtime.work(tenant) as ctx:
        assert not take_timer(ctx.session, held)


def test_a_tenant_with_many_does_not_keep_the_others_waiting(runtime: Runtime, tenant: int) -> None:
    other = make_tenant(runtime, "small")
    put(runtime, tenant, *(f"k{n}" for n in range(200)))
    runtime.clock.advance(seconds=1)  # type: ignore[attr-defined]
    put(runtime, other, "only")
    fired = Fired()
    fire_due(runtime, {"test": fired})
    assert (other, "only") in fired
    assert len(fired) == 51
    while fire_due(runtime, {"test": fired}):
        continue
    assert len(set(fired)) == len(fired) == 201


def test_a_timer_goes_with_its_campaign(runtime: Runtime, tenant: int) -> None:
    campaign_id = make_campaign(runtime, tenant)
    put(runtime, tenant, "a", campaign_id=campaign_id)
    assert rows(runtime, tenant)[0].campaign_id == campaign_id


def test_what_does_not_fit_into_a_lease_is_left_to_others_and_counts_as_no_crash(
    runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count(step=runtime.settings.lease.total_seconds() / 3)
    monkeypatch.setattr("nexus_marketing.services.timers.time.monotonic", lambda: float(next(seconds)))
    fired = Fired()
    put(runtime, tenant, "a", "b", "c")
    fire_due(runtime, {"test": fired})
    assert fired == [(tenant, "a")]
    left = rows(runtime, tenant)
    assert [(each.key, each.attempts, each.crashes, each.lease_token) for each in left] == [
        ("b", 0, 0, None),
        ("c", 0, 0, None),
    ]
    fire_due(runtime, {"test": fired})
    fire_due(runtime, {"test": fired})
    assert fired == [(tenant, "a"), (tenant, "b"), (tenant, "c")]


def test_those_claimed_together_with_one_that_kills_its_workers_are_not_blamed(
    runtime: Runtime, tenant: int, database_time: DatabaseTime
) -> None:
    fired = Fired()

    def handler(ctx: Context, timer: TimerFact) -> None:
        if timer.key == "bad":
            raise KeyboardInterrupt
        fired(ctx, timer)

    put(runtime, tenant, "bad", "a", "b")
    for _ in range(20):
        try:
            fire_due(runtime, {"test": handler})
        except KeyboardInterrupt:
            database_time.advance(seconds=runtime.settings.lease.total_seconds() + 1)
    assert sorted(fired) == [(tenant, "a"), (tenant, "b")]
    (left,) = rows(runtime, tenant)
    assert (left.key, left.status) == ("bad", "dead")


def test_those_of_a_worker_that_died_wait_as_long_as_a_lease(
    runtime: Runtime, tenant: int, database_time: DatabaseTime
) -> None:
    fired = Fired()

    def die(ctx: Context, timer: TimerFact) -> None:
        raise KeyboardInterrupt

    put(runtime, tenant, "a")
    with pytest.raises(KeyboardInterrupt):
        fire_due(runtime, {"test": die})
    assert fire_due(runtime, {"test": fired}) == 0
    database_time.advance(seconds=runtime.settings.lease.total_seconds() + 1)
    assert fire_due(runtime, {"test": fired}) == 1
    assert fired == [(tenant, "a")]


def test_those_of_a_worker_that_died_do_not_take_a_turn_each(
    runtime: Runtime, tenant: int, database_time: DatabaseTime
) -> None:
    fired = Fired()

    def die(ctx: Context, timer: TimerFact) -> None:
        raise KeyboardInterrupt

    put(runtime, tenant, "a", "b", "c")
    with pytest.raises(KeyboardInterrupt):
        fire_due(runtime, {"test": die})
    database_time.advance(seconds=runtime.settings.lease.total_seconds() + 1)
    assert fire_due(runtime, {"test": fired}) == 3
    assert len(fired) == 3
