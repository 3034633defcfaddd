"""Rings through Redis and RabbitMQ, with real servers that stop, freeze and come back."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest
from dramatiq import Message
from structlog.testing import capture_logs

from nexus_marketing.cli import probes
from nexus_marketing.config import make_runtime
from nexus_marketing.db.models import Segment
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.tasks.broker import QUEUE, DramatiqDoorbell
from nexus_marketing.tasks.rabbitmq import RingBroker, reach
from tests.common import databases, servers
from tests.common.factories import make_leads, make_tenant
from tests.common.servers.rabbitmq import RabbitmqServer
from tests.common.serving import SECRET

pytestmark = pytest.mark.req("SCL-001", "SCL-004")

#: Far longer than a test waits: whoever is woken was rung.
POLL_SECONDS = 3600
#: A listener tries again every three seconds.
BACK_SECONDS = 30


@pytest.fixture(scope="module")
def redis_of_its_own() -> Iterator[servers.RedisServer]:
    with servers.Run.open() as run:
        yield servers.start_redis(run)


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> servers.RedisServer | RabbitmqServer:
    return request.getfixturevalue("redis_of_its_own" if request.param == "redis" else "rabbitmq_server")


@contextmanager
def doorbell(url: str) -> Iterator[DramatiqDoorbell]:
    bell = DramatiqDoorbell(url)
    yield bell
    bell.close()


@contextmanager
def heard(url: str) -> Iterator[DramatiqDoorbell]:
    """A doorbell that listens in threads of its own, as in another process."""
    with doorbell(url) as bell:
        stop = bell.listen()
        yield bell
        stop()


def arrives(ringing: DramatiqDoorbell, hearing: DramatiqDoorbell, within_seconds: float = BACK_SECONDS) -> bool:
    """Whether one of the rings of these seconds is heard."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        ringing.ring(7, "sends")
        if hearing.wait(0.5):
            return True
    return False


def seconds_of(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def test_a_ring_wakes_a_worker_in_another_process(
    server: RabbitmqServer, servers_run: servers.Run, tmp_path: Path
) -> None:
    database = databases.sqlite_copy(servers_run, tmp_path / "nexus.db")
    settings = {
        "nexus.database_url": f"sqlite:///{database}",
        "nexus.secret_key": SECRET,
        "nexus.state_dir": str(tmp_path),
        "nexus.broker_url": server.url,
        "nexus.poll_seconds": str(POLL_SECONDS),
    }
    ini = tmp_path / "nexus.ini"
    ini.write_text("\n".join(["[app:main]", "use = egg:nexus-marketing", *(f"{k} = {v}" for k, v in settings.items())]))
    runtime = make_runtime(settings)
    tenant = make_tenant(runtime)
    make_leads(runtime, tenant)
    with working(ini):
        for number in range(3):  # the first may be found by a worker that has just started
            with runtime.work(tenant, role="app") as ctx:
                segment_id = create_segment(ctx, {"name": f"S{number}", "conditions": "score >= 0"}).id
            until_computed(runtime, tenant, segment_id)
    assert probes.probe_broker(runtime) == "answers"
    runtime.doorbell.close()
    runtime.close()


@contextmanager
def working(ini: Path) -> Iterator[None]:
    command = [str(Path(sys.executable).with_name("nexus-marketing")), "-c", str(ini), "worker"]
    with ini.with_suffix(".log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def until_computed(runtime, tenant: int, segment_id: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        with runtime.work(tenant, mode="read", role="app") as ctx:
            if ctx.session.get_one(Segment, (tenant, segment_id)).lead_count == 1:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_broker_that_stops_delays_nobody_and_is_picked_up_again(server: RabbitmqServer) -> None:
    with heard(server.url) as hearing, doorbell(server.url) as ringing:
        assert arrives(ringing, hearing)
        server.stop()
        try:
            with capture_logs() as logs:
                assert seconds_of(lambda: ringing.ring(7, "sends")) < 2
                assert seconds_of(lambda: ringing.ring(7, "sends")) < 2
            # Said once: for a few seconds nobody asks again.
            assert [(line["event"], line["log_level"]) for line in logs] == [("doorbell_away", "warning")]
        finally:
            server.start()
        assert arrives(ringing, hearing)


def test_a_listener_may_start_before_its_broker(server: RabbitmqServer) -> None:
    server.stop()
    try:
        with heard(server.url) as hearing, doorbell(server.url) as ringing:
            ringing.ring(7, "sends")
            server.start()
            assert arrives(ringing, hearing)
    finally:
        server.start()


class TestRabbitmq:
    @pytest.fixture
    def url(self, rabbitmq_server: RabbitmqServer) -> str:
        return rabbitmq_server.url

    def test_one_that_is_frozen_delays_nobody_either(self, rabbitmq_server, url):
        with heard(url) as hearing, doorbell(url) as ringing:
            assert arrives(ringing, hearing)
            rabbitmq_server.freeze()
            try:
                assert seconds_of(lambda: ringing.ring(7, "sends")) < 2
                assert seconds_of(lambda: ringing.ring(7, "sends")) < 0.5
            finally:
                rabbitmq_server.thaw()
            assert arrives(ringing, hearing)

    def test_a_queue_that_was_deleted_is_made_again(self, url):
        with heard(url) as hearing, doorbell(url) as ringing:
            assert arrives(ringing, hearing)
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                connection.channel().queue_delete(QUEUE)
            assert arrives(ringing, hearing)

    def test_rings_that_nobody_hears_expire_and_leave_nothing(self, url):
        broker = RingBroker(url, [], ring_age_ms=100)
        broker.declare_queue("unheard")
        broker.enqueue(Message("unheard", "ring", (7, "sends"), {}, {}))
        deadline = time.monotonic() + 10
        while (counts := broker.get_queue_message_counts("unheard")) != (0, 0, 0):
            assert time.monotonic() < deadline, counts
        broker.close()

    def test_an_idle_connection_is_kept_alive(self, url):
        broker = RingBroker(f"{url}?heartbeat=1", [], ring_age_ms=100)
        broker.declare_queue("idle")
        broker.enqueue(Message("idle", "ring", (7, "sends"), {}, {}))
        (before,) = broker.connections
        time.sleep(4)  # RabbitMQ parts from a client after two silent heartbeats
        assert before.is_open
        broker.enqueue(Message("idle", "ring", (7, "sends"), {}, {}))
        assert broker.connections == {before}
        broker.close()

    def test_a_wrong_password_is_told_and_not_shown(self, url):
        with doorbell(url.replace("nexus:", "nexus:c4n4ry")) as ringing, capture_logs() as logs:
            assert seconds_of(lambda: ringing.ring(7, "sends")) < 2
        assert logs[0]["event"] == "doorbell_away"
        assert "ACCESS_REFUSED" in logs[0]["reason"]
        assert "c4n4ry" not in str(logs)

    def test_it_can_be_asked_whether_it_answers(self, url, free_port):
        reach(url)
        with pytest.raises(OSError, match="refused"):
            reach(f"amqp://127.0.0.1:{free_port}/")
