"""Probes of load balancers and monitors."""

from dataclasses import replace

import pytest
from webtest import TestApp

from nexus_marketing.config import build
from nexus_marketing.db.queries.workers import say_alive
from nexus_marketing.runtime import Runtime
from tests.common.databases import DatabaseTime

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
