"""What a worker does without being asked."""

import pytest
from sqlalchemy import text

from nexus_marketing.db.queries.workers import say_goodbye, seconds_since_worker
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.loops import WorkerLoop

pytestmark = pytest.mark.req("SCL-003")

PARTITION = "marketing_engagements_2026_05"


def test_a_worker_makes_the_partitions_of_the_coming_months(postgres_only_runtime: Runtime) -> None:
    runtime = postgres_only_runtime
    with runtime.engines.owner.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {PARTITION}"))
    loop = WorkerLoop(runtime, lambda: False)
    loop.turn()
    loop.finish()
    with runtime.engines.owner.begin() as connection:
        assert connection.scalar(text("SELECT to_regclass(:name)"), {"name": PARTITION}) is not None


def test_a_worker_says_that_it_is_alive(runtime: Runtime) -> None:
    assert seconds_since_worker(runtime.engines.worker) is None
    loop = WorkerLoop(runtime, lambda: False)
    loop.turn()
    loop.finish()
    seconds = seconds_since_worker(runtime.engines.worker)
    assert seconds is not None
    assert 0 <= seconds < 60
    say_goodbye(runtime.engines.worker, loop.sender.worker_id)
    assert seconds_since_worker(runtime.engines.worker) is None
