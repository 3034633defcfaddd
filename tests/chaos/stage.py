"""The stage of a chaos run: a real database, a recording mail sink, a campaign about to be sent."""

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pyramid.scripts.pserve import main as serve
from sqlalchemy import insert

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.db.models import ChannelAccount, Lead, Segment, SegmentMember, Send, Tenant
from nexus_marketing.db.upgrade import upgrade
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.templates import create_template
from tests.chaos.judge import Arrival, arrival
from tests.chaos.processes import Forked, Running
from tests.chaos.worker import work
from tests.common.databases import SECRET_KEY, build_runtime, opened, postgres_copy, postgres_settings, sqlite_settings
from tests.common.servers import PostgresCluster, free_port

SUBJECT = "Hello {{ first_name }}"
HTML = (
    "<html><body><p>Dear {{ name }}</p><p><a href='https://shop.example/sale'>Sale</a></p>"
    '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a> {{ postal_address }}</p></body></html>'
)
_BATCH = 2_000


@dataclass(slots=True)
class Stage:
    """What a scenario plays on."""

    runtime: Runtime
    folder: Path
    sink_log: Path
    sink_port: int
    settings: Mapping[str, str]
    tenant_id: int
    campaign_id: int = 0
    send_id: int = 0
    audience: int = 0
    segment_id: int = 0
    connections: int = 8
    template_id: int = 0
    server_port: int = 0
    redis_url: str = ""
    workers: list[Running] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        """The database, for whoever may see all of it."""
        return self.runtime.settings.database_owner_url

    def start_server(self, worker_threads: int = 1) -> Running:
        """``pserve`` as people run it: with a worker thread inside, or the API alone."""
        settings = {**self.settings, "nexus.worker_threads": str(worker_threads)}
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        self.server_port = free_port()
        server = f"[server:main]\nuse = egg:waitress#main\nlisten = 127.0.0.1:{self.server_port}\n"
        path = self.folder / "chaos.ini"
        path.write_text(f"[app:main]\nuse = egg:nexus-marketing\n{lines}\n{server}", encoding="utf-8")
        return self._start(serve, ["pserve", str(path)])

    def start_worker(
        self, probe: str | None = None, *, clock: Path | None = None, poisoned: bool = False, **settings: str
    ) -> Running:
        """A worker process.

        Args:
            probe: where it kills itself (``name:nth``).
            clock: a file that says by how many seconds its clock is wrong.
            poisoned: whether messages and timers that are called so end it.
            settings: its own, instead of the stage's.
        """
        own = {f"nexus.{name.replace('__', '.')}": value for name, value in settings.items()}
        return self._start(work, {**self.settings, **own}, probe, clock, poisoned=poisoned)

    def arrivals(self) -> list[Arrival]:
        """What the sink took so far, in that order."""
        lines = self.sink_log.read_text(encoding="utf-8").splitlines() if self.sink_log.exists() else []
        return [arrival(line) for line in lines]

    def _start(self, target: Callable[..., Any], *args: Any, **options: Any) -> Running:
        process = Forked(self.folder / "worker.log", target, *args, **options)
        self.workers.append(process)
        return process

    def send_status(self) -> str:
        """Where the send stands."""
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            send = ctx.session.get(Send, (self.tenant_id, self.send_id))
            assert send is not None
            return send.status

    def worker_log(self) -> list[str]:
        """What the workers wrote, by line."""
        path = self.folder / "worker.log"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def stop_workers(self) -> None:
        """End every worker process this stage started."""
        for process in self.workers:
            if process.poll() is None:
                process.kill()
            process.wait()

    def living(self) -> list[Running]:
        """Workers that run."""
        return [each for each in self.workers if each.poll() is None]


@contextmanager
def open_stage(
    cluster: PostgresCluster | None,
    *,
    audience: int,
    reply_delay_seconds: float,
    connections: int = 8,
    disk: Path | None = None,
) -> Iterator[Stage]:
    """A stage on PostgreSQL, or on SQLite without a cluster; what the product writes itself goes to ``disk``."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-chaos-")))
        sink_port = stack.enter_context(_sink(folder, reply_delay_seconds))
        own = disk or folder
        database = _database(stack, cluster, own)
        settings = {
            "nexus.database_url": database.app_url,
            "nexus.database_worker_url": database.worker_url,
            "nexus.database_owner_url": database.owner_url,
            "nexus.secret_key": SECRET_KEY,
            "nexus.state_dir": str(own / "state"),
            "nexus.smtp.host": "127.0.0.1",
            "nexus.smtp.port": str(sink_port),
            "nexus.smtp.connections": str(connections),
            "nexus.lease_seconds": "6",
            "nexus.poll_seconds": "0.1",
        }
        engines = stack.enter_context(opened(database))
        runtime = build_runtime(database, engines, own / "state", clock=SystemClock(), channels=_channels())
        tenant_id = _tenant(runtime)
        stage = Stage(runtime, folder, folder / "sink.log", sink_port, settings, tenant_id, connections=connections)
        stack.callback(stage.stop_workers)
        _audience(stage, audience)
        yield stage


def _database(stack: ExitStack, cluster: PostgresCluster | None, folder: Path) -> Any:
    if cluster is not None:
        name = postgres_copy(cluster)
        stack.callback(cluster.drop_database, name)
        return postgres_settings(cluster, name)
    path = folder / "nexus.db"
    shutil.copyfile(_migrated(), path)
    return sqlite_settings(path)


@cache
def _migrated() -> Path:
    """An embedded database at the current schema, made once."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-chaos-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "nexus.db"
    with opened(sqlite_settings(path)) as engines:
        upgrade(engines)
    return path


def _channels() -> dict[str, Any]:
    """Launching only asks whether the channel exists; workers build their own."""
    return {"email": RecordingChannel()}


@contextmanager
def _sink(folder: Path, reply_delay_seconds: float) -> Iterator[int]:
    script = folder / "sink.json"
    delay = {"match": "@", "action": "stall", "seconds": reply_delay_seconds}
    script.write_text(json.dumps([delay] if reply_delay_seconds else []), encoding="utf-8")
    command = [sys.executable, "-m", "nexus_marketing.smtp.sink", "--port", "0", "--record"]
    command += ["--log", str(folder / "sink.log"), "--script", str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split()[-1])
    finally:
        process.terminate()
        process.wait()


def other_tenant(stage: Stage, slug: str, audience: int) -> Stage:
    """The same stage for another tenant with people of its own."""
    other = replace(stage, tenant_id=_tenant(stage.runtime, slug), template_id=0)
    _audience(other, audience)
    return other


def _tenant(runtime: Runtime, slug: str = "chaos") -> int:
    with runtime.work(None, role="owner") as ctx:
        tenant = Tenant(slug=slug, name=slug.title(), settings={}, created_at=ctx.now)
        ctx.session.add(tenant)
        ctx.session.flush()
        return int(tenant.id)


def _audience(stage: Stage, audience: int) -> None:
    """Leads outside the EU in a static segment, so that everybody is eligible."""
    stage.audience = audience
    with stage.runtime.work(stage.tenant_id) as ctx:
        now = ctx.now
        segment = Segment(name="everybody", kind="static", created_at=now, updated_at=now)
        ctx.session.add(segment)
        ctx.session.flush()
        segment_id = stage.segment_id = segment.id
        config = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}
        ctx.session.add(
            ChannelAccount(type="email", name="main", config=config, enabled=True, created_at=now, updated_at=now)
        )
    for first in range(1, audience + 1, _BATCH):
        numbers = range(first, min(first + _BATCH, audience + 1))
        with stage.runtime.work(stage.tenant_id) as ctx:
            ctx.session.execute(insert(Lead), [_lead(stage.tenant_id, n, ctx.now) for n in numbers])
            members = [
                {
                    "tenant_id": stage.tenant_id,
                    "segment_id": segment_id,
                    "lead_id": n,
                    "entered_at": ctx.now,
                    "generation": 1,
                }
                for n in numbers
            ]
            ctx.session.execute(insert(SegmentMember), members)


def _lead(tenant_id: int, number: int, now: Any) -> dict[str, Any]:
    email = f"lead{number}@inbox.example"
    return {
        "tenant_id": tenant_id,
        "id": number,
        "email": email,
        "email_norm": email,
        "name": f"Lead {number}",
        "first_name": f"Lead{number}",
        "country": "US",
        "tags": [],
        "attributes": {},
        "created_at": now,
        "updated_at": now,
    }


def make_segment(stage: Stage, size: int) -> int:
    """A static segment of the first leads."""
    with stage.runtime.work(stage.tenant_id) as ctx:
        now = ctx.now
        segment = Segment(name=f"first {size}", kind="static", created_at=now, updated_at=now)
        ctx.session.add(segment)
        ctx.session.flush()
        row = {"tenant_id": stage.tenant_id, "segment_id": segment.id, "entered_at": now, "generation": 1}
        ctx.session.execute(insert(SegmentMember), [{**row, "lead_id": n} for n in range(1, size + 1)])
        return segment.id


def begin_campaign(stage: Stage, name: str, segment_id: int | None = None, **values: Any) -> int:
    """Launch a campaign of the stage's one template, one of many to the same leads; which one."""
    with stage.runtime.work(stage.tenant_id) as ctx:
        if not stage.template_id:
            content = {"subject": SUBJECT, "html": HTML}
            values_of = {"name": "t", "type": "email", "content": content, "variables": {}}
            stage.template_id = create_template(ctx, values_of).id
        fields = {
            "name": name,
            "segment_id": segment_id or stage.segment_id,
            "template_id": stage.template_id,
            "obeys_caps": False,
        }
        campaign = create_campaign(ctx, {**fields, **values})
        move_campaign(ctx, campaign.id, "launch")
        return campaign.id


def launch(stage: Stage, message_class: MessageClass = MessageClass.MARKETING) -> None:
    """The stage's own campaign, for everybody."""
    stage.campaign_id = begin_campaign(stage, "c", message_class=str(message_class))
    stage.send_id = 1
