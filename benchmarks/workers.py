"""``delivery.scale``, ``delivery.memory`` and ``queue.overhead``: worker processes as they are started in production.

Each is ``nexus-marketing -c FILE worker`` on PostgreSQL and Redis, and sends to a sink that is a process of its own.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks import delivery
from benchmarks.common import Options, Result, paired
from benchmarks.pipelined import send_pipelined
from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.db.models import Send
from nexus_marketing.db.tenancy import run as run_sql
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.templates import create_template
from nexus_marketing.smtp.client import PoolSettings, TlsPolicy
from nexus_marketing.tasks.broker import DramatiqDoorbell
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import SECRET_KEY, postgres_runtime
from tests.common.factories import make_segment

_CONNECTIONS = 8
_BODY = b"From: a@shop.example\r\nTo: b@inbox.example\r\nSubject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 256
_LIMIT_SECONDS = 900.0
#: The sink may take at most this part of what two workers take, or it is what is measured.
_SINK_SHARE = 0.5
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class _Site:
    """An installation: its database, its relay, the file that its workers are started with."""

    runtime: Runtime
    port: int
    ini: Path

    @contextmanager
    def workers(self, count: int) -> Iterator[list[int]]:
        """So many worker processes, ready for work; their process ids."""
        self._owner("TRUNCATE marketing_workers")
        command = [str(Path(sys.executable).with_name("nexus-marketing")), "-c", str(self.ini), "worker"]
        with self.ini.with_suffix(".log").open("ab") as log:
            processes = [subprocess.Popen(command, stdout=log, stderr=log) for _ in range(count)]
        try:
            _wait_until(lambda: self._owner("SELECT count(*) FROM marketing_workers") == count)
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()

    def _owner(self, statement: str) -> int:
        with self.runtime.engines.owner.begin() as connection:
            found = connection.exec_driver_sql(statement)
            return int(found.scalar_one()) if found.returns_rows else 0


@contextmanager
def _site(options: Options) -> Iterator[_Site]:
    with ExitStack() as stack:
        port = stack.enter_context(delivery._sink())
        relay = PoolSettings(host="127.0.0.1", port=port, connections=_CONNECTIONS, tls=TlsPolicy.NONE)
        channels = {"email": EmailChannel(relay, SystemClock())}
        bell = DramatiqDoorbell(options.redis.url)
        runtime = stack.enter_context(
            postgres_runtime(options.cluster, options.folder, clock=SystemClock(), channels=channels, doorbell=bell)
        )
        settings = {
            "database_url": runtime.settings.database_url,
            "database_worker_url": runtime.settings.database_worker_url,
            "secret_key": SECRET_KEY,
            "redis_url": options.redis.url,
            "state_dir": options.folder / "state",
            "smtp.host": "127.0.0.1",
            "smtp.port": port,
            "smtp.connections": _CONNECTIONS,
            "smtp.security": "none",
            "log_level": "WARNING",
            # A ring wakes one worker; the others must not come a second after it.
            "poll_seconds": 0.05,
        }
        ini = options.folder / "worker.ini"
        lines = "\n".join(f"nexus.{name} = {value}" for name, value in settings.items())
        ini.write_text(f"[app:main]\nuse = egg:nexus-marketing\n{lines}\n".replace("%", "%%"), encoding="utf-8")
        yield _Site(runtime, port, ini)


def delivery_scale(options: Options) -> Result:
    """The same send by two worker processes and by one, from the moment it may begin to the last answer."""
    count = options.size(40_000, 2_000)
    with _site(options) as site:
        audience = delivery._audience(site.runtime, count)
        template_id = delivery._template(site.runtime, audience[0])
        sink_seconds = _sink_alone(site.port, count)

        def send_by(workers: int) -> float:
            return _send_by(site, workers, audience, template_id, count)

        rounds, warm_up = options.size(5, 1), options.size(1, 0)
        seconds = paired(lambda: send_by(2), lambda: send_by(1), rounds, warm_up=warm_up)
    share = sink_seconds / seconds.ours_seconds
    notes = f"{count} messages of 20 KB; two raw clients fill the sink in {share:.2f} of the time of two workers"
    result = seconds.result("delivery.scale", 0.625, per=count, unit="us", notes=notes)
    missed = [f"the sink takes {share:.2f} of our time, it is what is measured"] if share > _SINK_SHARE else []
    return replace(result, missed=tuple(missed))


def _sink_alone(port: int, count: int) -> float:
    """Seconds in which the sink takes so many messages from two processes that do nothing but send."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_raw, [port] * 2, [100] * 2))  # starts the processes
        return median(_together(pool, port, count) for _ in range(3))


def _together(pool: ProcessPoolExecutor, port: int, count: int) -> float:
    times = list(pool.map(_raw, [port] * 2, [count // 2] * 2))
    return max(end for _, end in times) - min(begin for begin, _ in times)


def _raw(port: int, count: int) -> tuple[float, float]:
    begun = time.monotonic()
    send_pipelined(port, _BODY, count, _CONNECTIONS)
    return begun, time.monotonic()


def _send_by(site: _Site, workers: int, audience: tuple[int, int], template_id: int, count: int) -> float:
    """Seconds of a planned send, by the clock of the database: workers are there already and idle."""
    runtime, (tenant_id, segment_id) = site.runtime, audience
    send_id = delivery._launch(runtime, tenant_id, segment_id, template_id)
    plan_send(runtime, SendRef(tenant_id, send_id))
    campaign_id = _move(runtime, tenant_id, send_id, "pause")
    with site.workers(workers):
        with runtime.engines.owner.connect() as connection:
            begun = connection.exec_driver_sql("SELECT nexus_now()").scalar_one()
        assert _move(runtime, tenant_id, send_id, "resume") == campaign_id
        _wait_until(lambda: not delivery._open_rows(runtime, tenant_id))
    with runtime.engines.owner.connect() as connection:
        ended = connection.exec_driver_sql("SELECT max(settled_at) FROM marketing_deliveries").scalar_one()
    assert delivery._accepted(runtime, tenant_id) == count
    delivery._forget(runtime, tenant_id)
    return float((ended - begun).total_seconds())


def _move(runtime: Runtime, tenant_id: int, send_id: int, event: str) -> int:
    with runtime.work(tenant_id) as ctx:
        campaign_id = ctx.session.get_one(Send, (tenant_id, send_id)).campaign_id
        move_campaign(ctx, campaign_id, event)
        return campaign_id


def delivery_memory(options: Options) -> Result:
    """The largest a worker process ever was, planning and sending to many more people, against a few."""
    few, many = options.size(10_000, 2_000), options.size(1_000_000, 10_000)
    with _site(options) as site:
        runtime = site.runtime
        tenant_id, everybody = delivery._audience(runtime, many)
        some = make_segment(runtime, tenant_id, name="Some")
        content = {
            "subject": "Hi",
            "html": '<p>{{ name }}</p><a href="{{ unsubscribe_url }}">Out</a>{{ postal_address }}',
        }
        with runtime.work(tenant_id) as ctx:
            run_sql(ctx.session, _FIRST_ONES, {"segment_id": some, "few": few}, writes=True)
            template_id = create_template(ctx, {"name": "short", "type": "email", "content": content}).id
        little, _ = _peak(site, tenant_id, some, template_id, few)
        much, bytes_of_row = _peak(site, tenant_id, everybody, template_id, many)
    notes = f"{few} and {many} recipients; a ledger row takes {bytes_of_row}"
    return Result("delivery.memory", much, little, "MB", 1.1, 1, notes)


_FIRST_ONES = (
    "INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)"
    " SELECT :tenant_id, :segment_id, id, now(), 1 FROM marketing_leads WHERE tenant_id = :tenant_id"
    " ORDER BY id LIMIT :few"
)


def _peak(site: _Site, tenant_id: int, segment_id: int, template_id: int, count: int) -> tuple[float, str]:
    """Peak of a new worker that plans and sends to a segment, in MB, and what a ledger row takes on disk after it."""
    runtime = site.runtime
    with site.workers(1) as (pid,):
        send_id = delivery._launch(runtime, tenant_id, segment_id, template_id)
        _wait_until(lambda: _status(runtime, tenant_id, send_id) == "completed")
        peak = _peak_kib(pid) / 1024
    assert delivery._accepted(runtime, tenant_id) == count
    with runtime.engines.owner.connect() as connection:
        heap, indexes = connection.exec_driver_sql(_SIZES).one()
    delivery._forget(runtime, tenant_id)
    return peak, f"{heap / count:.0f} bytes and {indexes / count:.0f} in indexes"


_SIZES = "SELECT pg_relation_size('marketing_deliveries'), pg_indexes_size('marketing_deliveries')"


def _status(runtime: Runtime, tenant_id: int, send_id: int) -> str:
    with runtime.work(tenant_id, mode="read") as ctx:
        return ctx.session.get_one(Send, (tenant_id, send_id)).status


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def queue_overhead(options: Options) -> Result:
    """A ring through Redis for every chunk, sent and answered, against the work of the chunk: processor time of both.

    That is more than is ever rung: a launch rings once, and workers go on by themselves as long as there are chunks.
    Processor time, because Dramatiq sleeps between messages while its few places are taken.
    """
    count, rings = options.size(20_000, 4_000), options.size(2_000, 200)
    with _site(options) as site:
        audience = delivery._audience(site.runtime, count)
        template_id = delivery._template(site.runtime, audience[0])
        listener = _Counting(options.redis.url)
        stop = listener.listen()
        seconds = paired(
            lambda: _ring(site.runtime, listener, rings) / rings,
            lambda: _work(site.runtime, audience, template_id, count) / (count / _CHUNK),
            options.size(5, 1),
        )
        woken = median(_wake_up(site.runtime, listener) for _ in range(options.size(50, 10)))
        idle = _idle_turn(site.runtime)
        stop()
    notes = (
        f"chunks of {_CHUNK}; an idle worker is woken within {woken * 1e3:.1f} ms,"
        f" a turn that finds nothing takes {idle * 1e3:.0f} ms"
    )
    return seconds.result("queue.overhead", 0.02, unit="ms", notes=notes)


class _Counting(DramatiqDoorbell):
    """A worker's end of the doorbell that also counts."""

    answered = 0

    def _answer(self, tenant_id: int, queue: str) -> None:
        super()._answer(tenant_id, queue)
        self.answered += 1


def _ring(runtime: Runtime, listener: _Counting, rings: int) -> float:
    wanted = listener.answered + rings
    begun = time.process_time()
    for _ in range(rings):
        runtime.doorbell.ring(1, "sends")
    _wait_until(lambda: listener.answered >= wanted)
    return time.process_time() - begun


def _work(runtime: Runtime, audience: tuple[int, int], template_id: int, count: int) -> float:
    tenant_id, segment_id = audience
    plan_send(runtime, SendRef(tenant_id, delivery._launch(runtime, tenant_id, segment_id, template_id)))
    loop = WorkerLoop(runtime, lambda: False)
    begun = time.process_time()
    while delivery._open_rows(runtime, tenant_id):
        loop.turn()
    seconds = time.process_time() - begun
    loop.finish()
    assert delivery._accepted(runtime, tenant_id) == count
    delivery._forget(runtime, tenant_id)
    return seconds


def _wake_up(runtime: Runtime, listener: _Counting) -> float:
    listener.wait(0.0)
    begun = time.perf_counter()
    runtime.doorbell.ring(1, "sends")
    assert listener.wait(10.0)
    return time.perf_counter() - begun


def _idle_turn(runtime: Runtime) -> float:
    loop = WorkerLoop(runtime, lambda: False)
    while loop.turn():
        pass
    begun = time.perf_counter()
    loop.turn()
    seconds = time.perf_counter() - begun
    loop.finish()
    return seconds


def _wait_until(condition: Callable[[], bool], *, every_seconds: float = 0.02) -> None:
    until = time.monotonic() + _LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < until, "nothing more happens"
        time.sleep(every_seconds)


BENCHMARKS = {
    "delivery.memory": delivery_memory,
    "delivery.scale": delivery_scale,
    "queue.overhead": queue_overhead,
}
