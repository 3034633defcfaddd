"""Rates by sender and by domain, and domains that ask for patience: they slow down nobody else."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.pacing.cooling import TOO_MANY
from nexus_marketing.core.pacing.rates import RateLimit
from nexus_marketing.db.models import Lead, Preflight, Tenant
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.rates import Asker, take_grant
from nexus_marketing.delivery.handover import Pace
from nexus_marketing.services.campaigns.preflights import preflight_document, request_preflight
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.explanations import explain_lead
from nexus_marketing.tasks.loops import WorkerLoop, forecast_waiting, plan_waiting
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004", "REL-002")

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
    assert scene.states().count("planned(rate)") == 13
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert broken_invariants(ctx.session) == {}
        waiting = next(row.lead_id for row in scene.rows() if row.state == "planned")
        assert "the rate for the domain" in explain_lead(ctx, waiting, scene.campaign_id)["sentence"]
    counts = []
    for step in range(1, 4):
        database_time.set_to(NOON + step * timedelta(minutes=16))
        scene.work()
        counts.append(gmail_sent(scene))
    assert counts == [14, 20, 20]
    assert scene.states() == ["accepted"] * 40
    assert scene.send().status == "completed"


def test_who_waits_for_a_domain_comes_back_one_after_the_other(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(30, chunk_size=10)
    database_time.set_to(NOON)
    settle_in(scene, "gmail.com", every=1)
    limit(scene, {"count": 10, "per": "1 minute", "domains": ["gmail.com"]})
    scene.launch(message_class="transactional")
    scene.work()
    dues = sorted(row.due_at for row in scene.rows() if row.due_at is not None)
    assert len(dues) == 20
    assert dues[0] >= NOON + timedelta(seconds=60)
    gaps = [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(dues)]
    assert sum(gap >= 5.9 for gap in gaps) >= 18  # by ten a minute; each chunk looks a moment later


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
