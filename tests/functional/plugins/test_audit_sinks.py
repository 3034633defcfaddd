"""A plugin that takes a copy of the audit elsewhere: told of everything while it is on, until it took it, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.cli.work_probes import probe_audit_sinks
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.models import AuditEntry, AuditUntold, TenantPlugin, Timer
from nexus_marketing.db.queries.queues import SINK_DUE
from nexus_marketing.plugin import AuditBatch, AuditRecord, Capability
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.records import create_lead
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.plugins import SETTINGS, manifest, with_plugins
from tests.common.sandboxes import needs_namespaces, sandboxes

pytestmark = pytest.mark.req("US-018", "MAINT-004")

NAME = "nexus-vault"
WITH_TOKEN = {**SETTINGS, "token": {"type": "string", "meta": {"secret": True}}}


@dataclass(slots=True)
class Vault:
    """Keeps what it is told; refuses those of a subject, or fails, where it is told so."""

    name: str = "vault"
    batches: list[AuditBatch] = field(default_factory=list)
    refuses: str | None = None
    on_write: Any = None

    def write(self, batch: AuditBatch) -> None:
        if self.on_write is not None:
            self.on_write()
        if any(each.subject_id == self.refuses for each in batch.records):
            raise OSError("ann@example.com is not welcome")
        self.batches.append(batch)

    @property
    def records(self) -> list[AuditRecord]:
        return [each for batch in self.batches for each in batch.records]

    def includeme(self, config: Any) -> None:
        config.add_marketing_plugin(manifest(NAME, Capability.AUDIT_SINK, settings=WITH_TOKEN))
        config.add_marketing_audit_sink(self)


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.fromisoformat("2026-03-01T12:00:00+00:00"))


@pytest.fixture
def process(runtime: Runtime, vault: Vault, clock: FakeClock) -> Runtime:
    return replace(with_plugins(runtime, vault.includeme), clock=clock)


@pytest.fixture
def loop(process: Runtime) -> Iterator[WorkerLoop]:
    made = WorkerLoop(process, lambda: False)
    yield made
    made.finish()


def turn(loop: WorkerLoop) -> None:
    """As a worker does, until the sinks' threads have nothing left."""
    for _ in range(3):
        loop.turn()
        while loop.sinks._under_way:
            loop.sinks.look()


def enable(process: Runtime, tenant: int) -> None:
    with process.work(tenant) as ctx:
        switch_on(ctx, NAME, {"station": "north"})


def add_lead(process: Runtime, tenant: int, name: str) -> str:
    with process.work(tenant) as ctx:
        return str(create_lead(ctx, {"email": f"{name}@example.org"}).id)


def untold(process: Runtime, tenant: int) -> int:
    with process.work(tenant, mode="read") as ctx:
        return len(ctx.session.scalars(select(AuditUntold.id)).all())


def test_it_is_told_of_what_happens_while_it_is_on(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int, other_tenant: int
) -> None:
    add_lead(process, tenant, "before")
    enable(process, tenant)
    lead = add_lead(process, tenant, "ann")
    add_lead(process, other_tenant, "stranger")
    turn(loop)
    enabled, created = vault.records
    assert (enabled.action, created.action, created.subject_id) == ("plugin.enabled", "lead.created", lead)
    assert {(each.tenant_id, each.settings["station"]) for each in vault.batches} == {(tenant, "north")}
    with process.work(tenant, mode="read") as ctx:
        kept = ctx.session.scalars(select(AuditEntry).where(AuditEntry.id == int(created.id))).one()
    assert (created.body, created.body_hash, created.at, created.actor) == (
        kept.body,
        kept.body_hash.hex(),
        kept.at,
        kept.actor,
    )
    assert "ann@" not in str(created)
    turn(loop)
    assert (len(vault.records), untold(process, tenant)) == (2, 0)
    with process.work(tenant) as ctx:
        switch_off(ctx, NAME)
    add_lead(process, tenant, "after")
    turn(loop)
    assert len(vault.records) == 2


def test_what_is_rolled_back_is_told_to_nobody(process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int) -> None:
    def fail() -> None:
        with process.work(tenant) as ctx:
            switch_on(ctx, NAME, {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    add_lead(process, tenant, "ann")
    turn(loop)
    assert (vault.records, untold(process, tenant)) == ([], 0)


def test_a_record_that_it_refuses_holds_back_those_behind_it_and_the_operator_hears(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int, clock: FakeClock
) -> None:
    enable(process, tenant)
    first, vault.refuses, last = (add_lead(process, tenant, name) for name in ("one", "two", "three"))
    for _ in range(6):
        turn(loop)
        process.plugins.host.circuit(NAME).succeeded()
        clock.advance(minutes=11)
    assert [each.subject_id for each in vault.records] == [NAME, first]
    assert untold(process, tenant) == 2
    with pytest.raises(OSError, match=r"vault of \S+ \(2 records, .*switch its plugin off"):
        probe_audit_sinks(process)
    with process.work(tenant, mode="read") as ctx:
        error = ctx.session.scalars(select(Timer.error).where(Timer.type == SINK_DUE)).one()
        assert error is not None
        assert "vault raised OSError" in error
        assert "ann@" not in error
    refused, vault.refuses = vault.refuses, None
    turn(loop)
    assert [each.subject_id for each in vault.records] == [NAME, first, refused, last]
    assert probe_audit_sinks(process) == "1; none is behind"


def test_what_is_written_meanwhile_is_told_as_well(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int
) -> None:
    enable(process, tenant)
    names = iter(["one", "two"])

    def write() -> None:
        if (name := next(names, None)) is not None:
            add_lead(process, tenant, name)

    vault.on_write = write
    turn(loop)
    assert [each.action for each in vault.records] == ["plugin.enabled", "lead.created", "lead.created"]
    assert untold(process, tenant) == 0


def test_a_batch_holds_no_more_than_it_should_and_a_row_that_somebody_removed_stops_nobody(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int
) -> None:
    enable(process, tenant)
    with process.work(tenant) as ctx:
        ctx.session.add(AuditUntold(sink="vault", at=ctx.now, audit_id=10**9))
        ctx.session.flush()
        for number in range(3):
            record(ctx, "page.changed", "page", number, {"text": ("", "x" * (700_000 if number else 1_200_000))})
    turn(loop)
    assert [[each.subject_id for each in batch.records] for batch in vault.batches] == [[NAME], ["0"], ["1"], ["2"]]
    assert untold(process, tenant) == 0


def test_while_the_plugins_secrets_cannot_be_read_what_is_to_be_told_waits(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int, clock: FakeClock
) -> None:
    with process.work(tenant) as ctx:
        switch_on(ctx, NAME, {"token": "t0ken"})
    sealed = put_secrets(process, tenant, b"altered by somebody")
    turn(loop)
    assert (vault.records, untold(process, tenant)) == ([], 1)
    put_secrets(process, tenant, sealed)
    clock.advance(minutes=11)
    turn(loop)
    assert [each.action for each in vault.records] == ["plugin.enabled"]
    assert vault.batches[0].settings["token"] == "t0ken"


def put_secrets(process: Runtime, tenant: int, secrets: bytes | None) -> bytes | None:
    """What stood there before."""
    with process.work(tenant) as ctx:
        row = ctx.session.scalars(select(TenantPlugin)).one()
        row.secrets, before = secrets, row.secrets
    process.switches.forget(tenant)
    return before


def test_switched_off_it_is_not_told_what_waited(process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int) -> None:
    enable(process, tenant)
    with process.work(tenant) as ctx:
        switch_off(ctx, NAME)
    turn(loop)
    assert (vault.records, untold(process, tenant)) == ([], 0)


def test_while_its_plugin_is_gone_what_waits_is_kept_for_a_month(
    process: Runtime, loop: WorkerLoop, vault: Vault, tenant: int, clock: FakeClock
) -> None:
    enable(process, tenant)
    without = WorkerLoop(with_plugins(process), lambda: False)
    turn(without)
    assert untold(process, tenant) == 1
    clock.advance(days=29)
    turn(without)
    turn(loop)
    assert len(vault.records) == 0  # another process may have it: it is looked for every ten minutes
    clock.advance(minutes=11)
    turn(loop)
    assert [each.action for each in vault.records] == ["plugin.enabled"]
    add_lead(process, tenant, "ann")
    for _ in range(2):
        turn(without)
        clock.advance(days=31)
    turn(without)
    without.finish()
    turn(loop)
    assert (len(vault.records), untold(process, tenant)) == (1, 0)


SANDBOXED = """
from nexus_marketing.plugin import API_VERSION, Capability, Manifest


class Strange:
    name = "strange"

    def write(self, batch):
        if len(batch.records) != 2 or batch.records[1].action != "lead.created" or batch.records[1].at.tzinfo is None:
            raise RuntimeError("ann@example.com")


def includeme(config):
    config.add_marketing_plugin(Manifest("nexus-strange", "1.0", API_VERSION, frozenset({Capability.AUDIT_SINK})))
    config.add_marketing_audit_sink(Strange)
"""


@needs_namespaces
def test_in_the_sandbox_it_is_told_the_same(
    sqlite_only_runtime: Runtime, tenant: int, clock: FakeClock, tmp_path: Path
) -> None:
    with sandboxes(tmp_path) as start:
        process = replace(with_plugins(sqlite_only_runtime), plugins=start(SANDBOXED), clock=clock)
        with process.work(tenant) as ctx:
            switch_on(ctx, "nexus-strange")
        add_lead(process, tenant, "ann")
        loop = WorkerLoop(process, lambda: False)
        turn(loop)
        assert untold(process, tenant) == 0
        add_lead(process, tenant, "bea")
        turn(loop)
        loop.finish()
        assert untold(process, tenant) == 1
