"""What waits for nobody is not looked for: sends that are paused, and cancelled ones that are settled."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.db.queries import completion, deliveries, journeys, planning, preflights, retries, takeovers
from nexus_marketing.db.queries.windows import Window, commit_window
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery.completion import settle_cancelled
from nexus_marketing.delivery.recovery import recover_expired
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_leads, make_send, make_template, make_tenant
from tests.common.plans import nodes
from tests.common.statements import statements_of
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("REL-001", "SCL-003")

MakeScene = Callable[..., Scene]
SWEEPS: tuple[Callable[[Session], list[Row[Any]]], ...] = (
    planning.sends_to_plan,
    deliveries.sends_with_work,
    retries.sends_with_due_rows,
    takeovers.expired_chunks,
    completion.sends_without_work,
    completion.cancelled_sends,
    completion.sends_to_report,
    completion.launches_to_join,
    preflights.preflights_waiting,
    journeys.messages_to_tell,
)


def found(runtime: Runtime) -> dict[str, list[tuple[int, ...]]]:
    """What each sweep of sends finds, those that find nothing left out."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        answers = {sweep.__name__: [tuple(row) for row in sweep(session)] for sweep in SWEEPS}
    return {name: rows for name, rows in answers.items() if rows}


def deferred(make_scene: MakeScene, leads: int = 6, **options: Any) -> Scene:
    """A send whose first half got a temporary refusal and is to be tried again; the rest is not reached yet."""
    refused = {f"person{number}@example.org": [OutcomeKind.TRANSIENT] for number in range(1, leads // 2 + 1)}
    scene = make_scene(leads, refused, chunk_size=leads // 2)
    handed_over: list[object] = []
    scene.channel.on_batch = handed_over.append
    scene.stopping = lambda: bool(handed_over)
    scene.launch(**options)
    scene.work()
    scene.stopping = lambda: False
    scene.channel.on_batch = None
    assert scene.states() == ["planned"] * leads
    assert [row.due_at is not None for row in scene.rows()] == [True] * (leads // 2) + [False] * (leads // 2)
    return scene


def test_a_paused_send_is_found_by_nobody_until_it_goes_on(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = deferred(make_scene)
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "pause")
    tried = len(scene.channel.sent)
    database_time.advance(hours=1)
    assert found(scene.runtime) == {}
    scene.work(turns=3)
    assert scene.states() == ["planned"] * 6
    assert len(scene.channel.sent) == tried
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "resume")
    assert found(scene.runtime).keys() == {"sends_with_work", "sends_with_due_rows"}
    scene.work()
    assert scene.states() == ["accepted"] * 6


def test_a_cancelled_send_is_settled_once_and_never_found_again(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = deferred(make_scene)
    database_time.advance(hours=1)
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "cancel")
    assert found(scene.runtime) == {"cancelled_sends": [(scene.tenant_id, scene.send_id)]}
    scene.work()
    assert scene.states() == ["skipped(cancelled)"] * 6
    assert found(scene.runtime) == {}
    assert scene.send().finished_at is not None


def test_a_cancelled_send_is_not_done_while_a_worker_holds_some_of_it(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    """What the worker leaves, retries that it asks for included, is settled when its lease is over."""
    scene = deferred(make_scene, message_class="transactional")
    engine = scene.runtime.engines.worker
    with open_session(engine, tenant_id=scene.tenant_id, mode="durable") as session, session.begin():
        held = deliveries.claim_chunk(session, scene.send_id, "victim", 30)
        assert held is not None
    on_wire = (held.seq_lo, held.seq_lo)
    window = Window(on_wire, (None, None), [], [], "email", MessageClass.TRANSACTIONAL, 30)
    answer = commit_window(engine, held, window)
    assert answer is not None
    assert answer.running
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "cancel")
    settle_cancelled(scene.runtime)
    assert scene.states() == [*["skipped(cancelled)"] * 3, *["planned"] * 3]
    assert scene.send().finished_at is None
    database_time.advance(seconds=31)
    assert recover_expired(scene.runtime) == 1
    settle_cancelled(scene.runtime)
    assert scene.states() == [*["skipped(cancelled)"] * 3, "unknown(ambiguous)", *["skipped(cancelled)"] * 2]
    assert found(scene.runtime) == {}


def test_a_send_paused_between_look_and_lock_gathers_no_retries(
    make_scene: MakeScene, database_time: DatabaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = deferred(make_scene)
    database_time.advance(hours=1)
    look = retries.sends_with_due_rows

    def paused_meanwhile(session: Session) -> list[Row[Any]]:
        seen = look(session)
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "pause")
        return seen

    monkeypatch.setattr("nexus_marketing.delivery.completion.sends_with_due_rows", paused_meanwhile)
    scene.work(turns=1)
    assert [row.due_at is not None for row in scene.rows()] == [True] * 3 + [False] * 3
    assert deliveries.GATHERED[:4] not in {str(row.due_at)[:4] for row in scene.rows()}


DUE, OPEN = 4_000, 200


@pytest.fixture
def crowded(postgres_only_runtime: Runtime) -> Runtime:
    """A paused send with thousands of due recipients and hundreds of open chunks, and a cancelled one that had."""
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    template, leads = make_template(runtime, tenant), make_leads(runtime, tenant, DUE)
    for status in ("paused", "cancelled"):
        campaign = make_campaign(runtime, tenant, status=status)
        crowd(runtime, tenant, make_send(runtime, tenant, campaign, template, leads, status=status))
    while settle_cancelled(runtime):
        continue
    return runtime


def crowd(runtime: Runtime, tenant_id: int, send_id: int) -> None:
    due = """UPDATE marketing_deliveries SET due_at = now() - interval '1 hour'
        WHERE tenant_id = :tenant_id AND send_id = :send_id"""
    chunks = f"""INSERT INTO marketing_delivery_chunks (tenant_id, send_id, chunk_no, seq_lo, seq_hi, waits_for)
        SELECT :tenant_id, :send_id, n, n, n, CASE WHEN n % 2 = 0 THEN 'gmail.com' END FROM generate_series(2, {OPEN}) n"""
    with runtime.engines.owner.begin() as connection:
        for statement in (due, chunks):
            connection.execute(text(statement), {"tenant_id": tenant_id, "send_id": send_id})


@pytest.mark.req("S02")
@pytest.mark.parametrize("analysed", [True, False])
def test_no_sweep_reads_what_it_may_not_find(crowded: Runtime, analysed: bool) -> None:
    if analysed:
        with crowded.engines.owner.begin() as connection:
            connection.exec_driver_sql("ANALYZE")
    with statements_of(crowded) as statements:
        assert found(crowded) == {}
    assert len(statements) == len(SWEEPS)
    for statement, parameters in statements:
        assert rows_read(crowded, statement, parameters) <= 10, statement


def rows_read(runtime: Runtime, statement: str, parameters: Any) -> int:
    """How many rows the scans of a statement looked at."""
    with runtime.engines.worker.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        (row,) = cursor.fetchall()
        connection.rollback()
    plan = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
    scans = [each for each in nodes(plan) if each["Node Type"].endswith("Scan")]
    return sum(
        int((each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"]) for each in scans
    )
