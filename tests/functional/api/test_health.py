"""Probes of load balancers and monitors."""

from dataclasses import replace

import pytest
from sqlalchemy import update
from webtest import TestApp

from nexus_marketing.config import build
from nexus_marketing.db.models import Delivery, DeliveryChunk
from nexus_marketing.db.queries.workers import say_alive
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.backlog import backlog_gauges
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("SR-007")


def test_this_process_answers_whatever_is_missing(app: TestApp) -> None:
    assert app.get("/__lbheartbeat__").json == {}


def test_a_missing_worker_is_told(app: TestApp, runtime: Runtime, database_time: DatabaseTime) -> None:
    assert app.get("/__heartbeat__", status=503).json == {"database": True, "workers": False}
    say_alive(runtime.engines.worker, "w1", "here", 1)
    assert app.get("/__heartbeat__", status=200).json == {"database": True, "workers": True}
    database_time.advance(seconds=91)
    assert app.get("/__heartbeat__", status=503).json == {"database": True, "workers": False}


def test_redis_is_asked_where_it_is_used(runtime: Runtime, redis_url: str, free_port: int) -> None:
    say_alive(runtime.engines.worker, "w1", "here", 1)
    for url, status in ((redis_url, 200), (f"redis://127.0.0.1:{free_port}/0", 503)):
        settings = replace(runtime.settings, redis_url=url)
        app = TestApp(build({}, runtime=replace(runtime, settings=settings)).make_wsgi_app())
        assert app.get("/__heartbeat__", status=status).json["redis"] == (status == 200)


def test_there_are_no_metrics_without_a_token_for_them(app: TestApp) -> None:
    assert "nexus.metrics_token" in app.get("/metrics", status=404).json["detail"]


def test_what_waits_is_counted_over_all_tenants(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> None:
    quiet = figures(runtime)
    assert quiet["queue_chunks"] == {(): 0.0}
    assert quiet["worker_silence_seconds"] == {(): -1.0}
    assert quiet["sends_stopped"] == {}
    troubles = ("actions_failed", "actions_paused", "escalations_open", "journey_runs_failed", "channel_accounts_ill")
    assert [quiet[name] for name in troubles] == [{(): 0.0}] * 5
    template, leads = make_template(runtime, tenant), make_leads(runtime, tenant, 3)
    running = make_send(runtime, tenant, make_campaign(runtime, tenant, "one"), template, status="running")
    for name, reason in (("two", "sender_refused: 535"), ("three", "cannot be sent: KeyError"), ("four", "missed")):
        campaign = make_campaign(runtime, tenant, name)
        make_send(runtime, tenant, campaign, template, status="paused", status_reason=reason)
    with runtime.work(tenant) as ctx:
        ctx.session.add(DeliveryChunk(send_id=running, chunk_no=1, seq_lo=1, seq_hi=3))
        row = {"send_id": running, "channel": "email", "state": "planned"}
        ctx.session.add_all([Delivery(seq=n, lead_id=lead, **row) for n, lead in enumerate(leads, start=1)])
        ctx.session.flush()
        ctx.session.execute(update(Delivery).where(Delivery.seq == 1).values(due_at=ctx.now))
    database_time.advance(seconds=100)
    found = figures(runtime)
    assert (found["queue_sends"], found["queue_chunks"], found["retries_overdue"]) == ({(): 1.0},) * 3
    assert found["queue_oldest_seconds"][()] >= 100
    assert found["sends_stopped"] == {("sender_refused",): 1.0, ("cannot_be_sent",): 1.0, ("other",): 1.0}


def figures(runtime: Runtime) -> dict[str, dict[tuple[str, ...], float]]:
    return {
        name: {tuple(labels.values()): value for labels, value in values} for name, _, values in backlog_gauges(runtime)
    }
