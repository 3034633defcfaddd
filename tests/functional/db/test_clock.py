"""A process goes by the clock of the database: its machine's may be wrong by months."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from nexus_marketing.config import make_runtime
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.clock import DatabaseClock, database_now
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.timers import fire_due, set_timer
from nexus_marketing.tasks.loops import plan_waiting
from tests.common.databases import NOW, SECRET_KEY, DatabaseTime
from tests.common.factories import make_leads, make_tenant
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P3-006", "REL-003", "R14")


@pytest.fixture
def process(postgres_only_runtime: Runtime, database_time: DatabaseTime, tmp_path: Path) -> Iterator[Runtime]:
    """As ``nexus-marketing worker`` builds it, on a machine whose clock is not the database's, which stands at NOW."""
    database_time.set_to(NOW)
    found = postgres_only_runtime.settings
    settings = {
        "nexus.database_url": found.database_url,
        "nexus.database_worker_url": found.database_worker_url,
        "nexus.database_owner_url": found.database_owner_url,
        "nexus.secret_key": SECRET_KEY,
        "nexus.state_dir": str(tmp_path),
    }
    with closing(make_runtime(settings)) as built:
        yield built


@pytest.fixture
def tenant(postgres_only_runtime: Runtime) -> int:
    """Somebody to work for."""
    return make_tenant(postgres_only_runtime)


def test_timers_fire_when_the_database_says_so(process: Runtime, tenant: int, database_time: DatabaseTime) -> None:
    fired: list[str] = []

    def handler(ctx: Context, timer: TimerFact) -> None:
        assert abs(ctx.now - database_now(ctx.runtime.engines.worker)) < timedelta(seconds=2)
        fired.append(timer.key)

    with process.work(tenant) as ctx:
        for key, minutes in (("past", -1), ("in an hour", 60)):
            set_timer(ctx, "test", key, NOW + timedelta(minutes=minutes))
    assert fire_due(process, {"test": handler}) == 1
    database_time.set_to(NOW + timedelta(minutes=61))
    process.clock._asked_at = float("-inf")  # as if some seconds had passed
    assert fire_due(process, {"test": handler}) == 1
    assert fired == ["past", "in an hour"]


def test_what_was_launched_a_moment_ago_is_not_missed(
    process: Runtime, postgres_only_runtime: Runtime, tenant: int
) -> None:
    channel = RecordingChannel()
    scene = Scene(replace(postgres_only_runtime, channels={"email": channel}), tenant, channel, [])
    scene.lead_ids = make_leads(scene.runtime, tenant, 3)
    scene.launch()
    while plan_waiting(process):
        pass
    assert scene.send().status == "running"
    with process.work(tenant) as ctx:
        late = ctx.session.get_one(Send, (tenant, scene.send_id))
        late.status, late.started_at, late.send_not_after = "planning", None, NOW - timedelta(seconds=1)
    plan_waiting(process)
    assert scene.send().status == "missed"


@dataclass
class Ticks:
    """A monotonic clock that is moved."""

    seconds: float = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def test_it_goes_on_by_itself_between_answers_and_without_them(
    postgres_only_runtime: Runtime, database_time: DatabaseTime
) -> None:
    database_time.set_to(NOW)
    ticks, machine = Ticks(), FakeClock(NOW + timedelta(hours=2))
    clock = DatabaseClock(postgres_only_runtime.engines.worker, machine, ticks)
    first = clock.now()
    assert timedelta() <= first - NOW < timedelta(seconds=2)
    ticks.seconds += 4
    machine.advance(hours=-5)
    assert clock.now() == first + timedelta(seconds=4)
    database_time.set_to(NOW + timedelta(hours=1))
    ticks.seconds += 1
    assert timedelta() <= clock.now() - NOW - timedelta(hours=1) < timedelta(seconds=2)

    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    clock._engine, last = away, clock.now()
    ticks.seconds += 60
    assert clock.now() == last + timedelta(seconds=60)
    assert DatabaseClock(away, machine, ticks).now() == machine.now()
