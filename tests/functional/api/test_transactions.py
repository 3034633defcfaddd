"""Transactions: begun late, rolled back on every error, read-only where nothing may be written."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyramid.config import Configurator
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError
from webtest import TestApp

from nexus_marketing.config import build
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.db.models import AuditEntry, Lead
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.services.leads.records import create_lead
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-003")


class _Lost(Exception):
    """What a driver says when the server went away."""

    sqlstate = "57P01"


@pytest.fixture
def routes() -> list[Callable[[Configurator], None]]:
    """Routes that a test adds."""
    return []


@pytest.fixture
def own_app(runtime: Runtime, routes: list[Callable[[Configurator], None]]) -> Callable[[], TestApp]:
    """The application with a test's routes."""

    def make() -> TestApp:
        config = build({}, runtime=runtime)
        for add in routes:
            add(config)
        return TestApp(config.make_wsgi_app())

    return make


def count(runtime: Runtime, tenant: int, model: Any) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(model)) or 0


@contextmanager
def failing(runtime: Runtime, times: int, error: type[Exception] = _Lost) -> Iterator[list[int]]:
    """The first ``times`` statements of the web role find the server gone."""
    failed: list[int] = []

    def fail(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if len(failed) < times:
            failed.append(1)
            raise OperationalError(statement, parameters, error())

    event.listen(runtime.engines.app, "before_cursor_execute", fail)
    try:
        yield failed
    finally:
        event.remove(runtime.engines.app, "before_cursor_execute", fail)


def test_a_get_that_writes_fails(
    own_app: Callable[[], TestApp], routes: list[Any], client: Client, runtime: Runtime, tenant: int
) -> None:
    def write(request: Any) -> Any:
        create_lead(request.nexus, {"email": "ann@example.org"})
        return request.response

    routes.append(lambda config: config.add_api_route("GET", "/api/v1/x", write, permission="leads:read"))
    response = own_app().get("/api/v1/x", headers=client.headers, status=500)
    assert response.json["code"] == "internal_error"
    assert count(runtime, tenant, Lead) == 0


def test_an_error_after_a_write_rolls_everything_back(
    own_app: Callable[[], TestApp], routes: list[Any], client: Client, runtime: Runtime, tenant: int
) -> None:
    audited = count(runtime, tenant, AuditEntry)

    def write(request: Any) -> Any:
        create_lead(request.nexus, {"email": "ann@example.org"})
        raise RuntimeError("secret detail nmk_live_x ann@example.org")

    routes.append(lambda config: config.add_api_route("POST", "/api/v1/x", write, permission="leads:write"))
    response = own_app().post("/api/v1/x", headers=client.headers, status=500)
    assert "secret detail" not in response.text
    assert "Traceback" not in response.text
    assert count(runtime, tenant, Lead) == 0
    assert count(runtime, tenant, AuditEntry) == audited


def test_every_change_leaves_an_audit_row_of_its_request(client: Client, runtime: Runtime, tenant: int) -> None:
    client.post("/api/v1/leads", {"email": "ann@example.org"}, headers={"X-Request-Id": "request-4711"})
    with runtime.work(tenant, mode="read") as ctx:
        row = ctx.session.scalars(select(AuditEntry).where(AuditEntry.action == "lead.created")).one()
    assert row.request_id == "request-4711"
    assert row.actor.startswith("key:")
    assert "ann@" not in str(row.body)


def test_no_statement_no_transaction(client: Client, runtime: Runtime) -> None:
    client.get("/api/v1")
    begun: list[int] = []
    note = lambda _connection: begun.append(1)  # noqa: E731
    event.listen(runtime.engines.app, "begin", note)
    client.get("/api/v1")
    event.remove(runtime.engines.app, "begin", note)
    assert begun == []


def test_a_read_is_tried_again_when_the_database_was_away(client: Client, runtime: Runtime) -> None:
    client.get("/api/v1")
    with failing(runtime, 2) as failed:
        client.get("/api/v1/leads")
    assert len(failed) == 2


def test_a_write_is_tried_again_only_with_a_key(client: Client, runtime: Runtime, tenant: int) -> None:
    client.get("/api/v1")
    with failing(runtime, 1):
        refused = client.post("/api/v1/leads", {"email": "ann@example.org"}, status=503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json["code"] == "unavailable"
    with failing(runtime, 1) as failed:
        client.post("/api/v1/leads", {"email": "ann@example.org"}, headers={"Idempotency-Key": "k"})
    assert len(failed) == 1
    assert count(runtime, tenant, Lead) == 1


def test_a_database_that_stays_away_is_unavailable(client: Client, runtime: Runtime) -> None:
    client.get("/api/v1")
    with failing(runtime, 99) as failed:
        client.get("/api/v1/leads", status=503)
        assert len(failed) == 3
        client.post("/graphql", {"query": "{ leads { id } }"}, status=503)
        client.app.get("/__heartbeat__", status=503)
        client.app.get("/__lbheartbeat__", status=200)
    client.get("/api/v1/leads")


def test_a_part_that_does_not_answer_says_when_to_come_back(own_app: Callable[[], TestApp], routes: list[Any]) -> None:
    def view(_request: Any) -> Any:
        raise Unavailable("The database is busy writing.", retry_after_seconds=2.5)

    routes.append(lambda config: config.add_api_route("GET", "/x", view, permission=PUBLIC))
    response = own_app().get("/x", status=503)
    assert response.headers["Retry-After"] == "3"


def test_a_writer_that_holds_the_file_too_long_gives_503(
    sqlite_only_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: the fair lock times out, nothing is written, nobody hangs."""
    from nexus_marketing.db import locks
    from nexus_marketing.services.tenants import create_key
    from tests.common.factories import make_tenant

    runtime = sqlite_only_runtime
    tenant_id = make_tenant(runtime)
    with runtime.work(tenant_id, role="app") as ctx:
        key = create_key(ctx, "test", ["*"])[1]
    app = TestApp(build({}, runtime=runtime).make_wsgi_app())
    acquire = locks.FairLock.acquire
    headers = {"Authorization": f"Bearer {key}"}
    with runtime.work(tenant_id) as ctx:
        ctx.session.flush()
        create_lead(ctx, {"email": "bob@example.org"})
        monkeypatch.setattr(locks.FairLock, "acquire", lambda self, _seconds: acquire(self, 0.01))
        response = app.post_json("/api/v1/leads", {"email": "ann@example.org"}, headers=headers, status=503)
        assert app.get("/api/v1/leads", headers=headers).json["data"] == []
    assert "Retry-After" in response.headers
    app.post_json("/api/v1/leads", {"email": "ann@example.org"}, headers=headers, status=201)


def test_logs_hold_neither_keys_nor_people(
    client: Client, runtime: Runtime, own_app: Callable[[], TestApp], routes: list[Any]
) -> None:
    from io import StringIO

    from nexus_marketing.telemetry import configure_logging

    def view(request: Any) -> Any:
        raise RuntimeError(f"failed for ann@example.org with {request.headers['Authorization']}")

    routes.append(lambda config: config.add_api_route("GET", "/api/v1/x", view, permission="leads:read"))
    stream, root = StringIO(), logging.getLogger()
    handlers = list(root.handlers)
    configure_logging("INFO", stream)
    own_app().get("/api/v1/x", headers=client.headers, status=500)
    root.handlers[:] = handlers
    logged = stream.getvalue()
    assert "request_failed" in logged
    assert '"request_id"' in logged
    assert "ann@example.org" not in logged
    assert client.key not in logged
