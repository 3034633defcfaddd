"""Rates by sender and by domain, and domains that ask for patience: they slow down nobody else."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.pacing.cooling import TOO_MANY
from nexus_marketing.core.pacing.rates import RateLimit
from nexus_marketing.db.models import DeliveryChunk, Lead, Preflight, Tenant
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.deliveries import claim_chunk, sends_with_work
from nexus_marketing.db.queries.rates import Asker, take_grant
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery.pace import Pace
from nexus_marketing.delivery.recovery import recover_expired
from nexus_marketing.delivery.sending import Sender
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.preflights import preflight_document, request_preflight
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.explanations import explain_lead
from nexus_marketing.tasks.loops import WorkerLoop, forecast_waiting, plan_waiting
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004", "REL-002")

#: Where no statement is that is another on PostgreSQL.
on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
MakeScene = Callable[..., Scene]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def settle_in(scene: Scene, domain: str, every: int = 2) -> list[str]:
    """Each second lead, from the first on, has an address there."""
    addresses = []
    with scene.runtime.work(scene.tenant_id) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            if number % every == 0:
                lead.email = lead.email_norm = f"person{number + 1}@{domain}"
                addresses.append(lead.email)
    return addresses


def limit(scene: Scene, *rates: dict[str, object]) -> None:
    with scene.runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, scene.tenant_id).settings = {"send_rates": list(rates)}


def gmail_sent(scene: Scene) -> int:
    return sum(each.address.endswith("@gmail.com") for each in scene.channel.sent)


def test_a_domain_with_a_rate_waits_alone_and_loses_nobody(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(40, chunk_size=15)
    database_time.set_to(NOON)
    settle_in(scene, "gmail.com")
    limit(scene, {"count": 7, "per": "10 minutes", "domains": ["gmail.com", "googlemail.com"]})
    scene.launch(message_class="transactional")
    scene.work()
    assert (gmail_sent(scene), len(scene.channel.sent)) == (7, 27)
    assert scene.states().count("planned") == 13
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert broken_invariants(ctx.session) == {}
        waiting = next(row.lead_id for row in scene.rows() if row.state == "planned")
        assert "the rate for the domain" in explain_lead(ctx, waiting, scene.campaign_id)["sentence"]
    counts = []
    for step in range(1, 4):
        database_time.set_to(NOON + step * timedelta(minutes=11))
        scene.work()
        counts.append(gmail_sent(scene))
    assert counts == [14, 20, 20]
    assert scene.states() == ["accepted"] * 40
    assert scene.send().status == "completed"


def test_who_waits_for_one_domain_holds_up_nobody_who_waits_for_another(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    """Three domains in every chunk: each goes on at its own rate, and nobody is written about for each time of waiting."""
    scene = make_scene(36, chunk_size=12)
    database_time.set_to(NOON)
    settle_in(scene, "a.example", every=1)
    settle_in(scene, "b.example", every=2)
    settle_in(scene, "c.example", every=4)
    per_hour = {"a.example": 18, "b.example": 3, "c.example": 1}
    limit(scene, *({"count": count, "per": "1 hour", "domains": [name]} for name, count in per_hour.items()))
    scene.launch(message_class="transactional")
    scene.work()
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert broken_invariants(ctx.session) == {}
        apart = next(row.lead_id for row in scene.rows() if row.reason == "rate")
        found = explain_lead(ctx, apart, scene.campaign_id)
        assert "the rate for the domain" in found["sentence"]
        assert found["deliveries"][0]["due_at"] is None
    counts = []
    for hour in range(4):
        database_time.set_to(NOON + hour * timedelta(minutes=61))
        scene.work()
        counts.append([sum(name in each.address for each in scene.channel.sent) for name in per_hour])
    assert counts == [[18, 3, 1], [18, 6, 2], [18, 9, 3], [18, 9, 4]]
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "cancel")
    scene.work()
    assert Counter(scene.states()) == {"accepted": 31, "skipped(cancelled)": 5}


@on_sqlite
def test_a_rate_that_is_changed_tells_apart_anew_who_waits(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(80, chunk_size=80)
    database_time.set_to(NOON)
    settle_in(scene, "gmail.com", every=1)
    settle_in(scene, "outlook.com")
    limit(scene, {"count": 4, "per": "1 hour", "domains": ["gmail.com", "outlook.com"]})
    scene.launch(message_class="transactional")
    scene.work()
    assert len(scene.channel.sent) == 4
    database_time.advance(minutes=61)
    limit(scene, {"count": 1, "per": "1 hour", "domains": ["outlook.com"]})
    scene.work()
    assert (gmail_sent(scene), len(scene.channel.sent)) == (40, 43)
    limit(scene)
    scene.work()
    assert scene.states() == ["accepted"] * 80


@on_sqlite
def test_who_waits_still_does_after_the_end_of_the_worker_that_looked(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(6)
    database_time.set_to(NOON)
    settle_in(scene, "gmail.com", every=1)
    limit(scene, {"count": 2, "per": "1 hour", "domains": ["gmail.com"]})
    scene.launch(message_class="transactional")
    scene.work()
    worker = scene.runtime.engines.worker
    with open_session(worker, tenant_id=scene.tenant_id, mode="durable") as session, session.begin():
        assert claim_chunk(session, scene.send_id, "victim", 30) is None
        assert claim_chunk(session, scene.send_id, "victim", 30, waits_for="gmail.com") is not None
    database_time.advance(seconds=31)
    assert recover_expired(scene.runtime) == 1
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert [row.waits_for for row in sends_with_work(ctx.session)] == ["gmail.com"]
    for _ in range(2):
        database_time.advance(minutes=61)
        scene.work()
    assert scene.states() == ["accepted"] * 6


@on_sqlite
def test_a_window_is_full_again_at_once_for_few_claims_and_one_row_each(
    make_scene: MakeScene, database_time: DatabaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers and a hundred messages to one domain, ten in ten seconds: none of them hunts for room."""
    scene, seconds, last = make_scene(100, chunk_size=50), [0.0], [0.0]
    database_time.set_to(NOON)
    settle_in(scene, "gmail.com", every=1)
    limit(scene, {"count": 10, "per": "10 seconds", "domains": ["gmail.com"]})
    for module in ("sending", "ways"):
        monkeypatch.setattr(f"nexus_marketing.delivery.{module}.monotonic", lambda: seconds[0])
    scene.channel.on_batch = lambda _: last.append(seconds[0])
    scene.launch(message_class="transactional")
    while plan_waiting(scene.runtime):
        continue
    workers = [Sender(scene.runtime, lambda: False) for _ in range(3)]
    with settled_rows(scene) as settled:
        while len(scene.channel.sent) < 100 and seconds[0] < 200:
            for worker in workers:
                worker.work()
            step = min(1.0, *(worker.pause_seconds for worker in workers))
            seconds[0] += step
            database_time.advance(seconds=step)
    for worker in workers:
        worker.close()
    assert last[-1] <= 9 * 11.0 * 1.05
    assert settled == [100]
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        chunks, claims = ctx.session.execute(select(func.count(), func.sum(DeliveryChunk.claims))).one()
        assert broken_invariants(ctx.session) == {}
    assert chunks == 2
    assert claims <= 2 * 10 + 2


@contextmanager
def settled_rows(scene: Scene) -> Iterator[list[int]]:
    """How many rows of the ledger are written meanwhile."""
    written = [0]

    def count(
        _connection: object, _cursor: object, statement: str, values: object, _context: object, many: bool
    ) -> None:
        if "UPDATE marketing_deliveries" in statement:
            written[0] += len(values) if many and isinstance(values, list) else 1

    engine = scene.runtime.engines.worker
    event.listen(engine, "before_cursor_execute", count)
    yield written
    event.remove(engine, "before_cursor_execute", count)


def test_a_sender_has_its_own_window(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(10)
    database_time.set_to(NOON)
    limit(scene, {"count": 4, "per": "1 hour", "sender": "news@shop.example"})
    scene.launch(message_class="transactional")
    scene.work()
    assert len(scene.channel.sent) == 4
    limits = [RateLimit(4, timedelta(hours=1), sender="news@shop.example"), RateLimit(9, timedelta(seconds=5))]
    others = Asker(scene.tenant_id, "email", "help@shop.example", is_marketing=False)
    database_time.advance(minutes=30)
    assert take_grant(scene.runtime.engines.worker, others, limits, [None] * 20).count == 9
    # Whoever else sends forgets nothing that this one's hour still counts.
    own = Asker(scene.tenant_id, "email", "news@shop.example", is_marketing=False)
    database_time.advance(seconds=6)
    assert take_grant(scene.runtime.engines.worker, own, limits, [None]).looked == 0


def test_a_provider_that_asks_for_patience_gets_it_and_others_go_on(
    make_scene: MakeScene, database_time: DatabaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(400, chunk_size=400)
    database_time.set_to(NOON)
    slow = settle_in(scene, "slow.example", every=4)
    tried: list[str] = []
    scene.channel.on_batch = lambda batch: tried.extend(each.address for each in batch)
    scene.channel.script = {address: [OutcomeKind.THROTTLED] for address in slow[:8]}
    seconds = [0.0]
    loop = WorkerLoop(scene.runtime, lambda: False)
    monkeypatch.setattr("nexus_marketing.delivery.sending.monotonic", lambda: seconds[0])
    monkeypatch.setattr(Pace, "saw", lambda *_: None)  # windows stay at the number of connections
    scene.launch()
    for _ in range(4):
        loop.turn()
    asked = [address for address in tried if address.endswith("@slow.example")]
    assert TOO_MANY <= len(asked) <= 10
    assert sum(state == "accepted" for state in scene.states()) == 300
    assert scene.states().count("planned(throttled)") >= 90
    assert all(row.attempts == 0 for row in scene.rows())
    for _ in range(60):
        seconds[0] += 65
        database_time.advance(seconds=65)
        loop.turn()
    loop.finish()
    assert scene.states() == ["accepted"] * 400
    assert scene.send().status == "completed"


def test_a_forecast_knows_the_rates_of_domains(make_scene: MakeScene) -> None:
    scene = make_scene(21)
    settle_in(scene, "gmail.com")
    limit(scene, {"count": 2, "per": "10 minutes", "domains": ["gmail.com"]}, {"count": 1000, "per": "1 second"})
    scene.launch(local_start="2027-01-01T09:00")
    with scene.runtime.work(scene.tenant_id) as ctx:
        first = scene.campaign()
        again = create_campaign(
            ctx, {"name": "n", "segment_id": first.segment_id, "template_id": first.template_id, "obeys_caps": False}
        )
        preflight_id = request_preflight(ctx, again.id).id
    plan_waiting(scene.runtime)
    while forecast_waiting(scene.runtime):
        continue
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        found = preflight_document(ctx, ctx.session.get_one(Preflight, (scene.tenant_id, preflight_id)))
    assert found["channels"]["email"]["domains"] == {"gmail.com": 11}
    assert found["channels"]["email"]["expected_seconds"] == 10 * 601.0
