"""The application under test, on SQLite and on PostgreSQL, with tenants and keys."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pyramid.router import Router
from sqlalchemy import event
from webtest import TestApp, TestResponse

from nexus_marketing.config import build
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.memories import open_memories
from nexus_marketing.services.tenants import create_key

TestApp.__test__ = False  # pytest would collect it as a test class


@dataclass
class Client:
    """Speaks to the application as one key."""

    app: TestApp
    key: str
    tenant_id: int
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"Authorization": f"Bearer {self.key}"}

    def get(self, path: str, *, status: int = 200, headers: Mapping[str, str] = {}) -> TestResponse:
        return self.app.get(path, headers={**self.headers, **headers}, status=status)

    def post(self, path: str, body: Any = None, *, status: int = 201, headers: Mapping[str, str] = {}) -> TestResponse:
        return self._send("POST", path, body, status, headers)

    def patch(self, path: str, body: Any, *, status: int = 200, headers: Mapping[str, str] = {}) -> TestResponse:
        return self._send("PATCH", path, body, status, headers)

    def put(self, path: str, body: Any, *, status: int = 200, headers: Mapping[str, str] = {}) -> TestResponse:
        return self._send("PUT", path, body, status, headers)

    def delete(self, path: str, *, status: int = 200, headers: Mapping[str, str] = {}) -> TestResponse:
        return self._send("DELETE", path, None, status, headers)

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> TestResponse:
        """Any method, any status."""
        return self._send(method, path, body, "*", headers)

    def _send(self, method: str, path: str, body: Any, status: Any, headers: Mapping[str, str]) -> TestResponse:
        options: dict[str, Any] = {"headers": {**self.headers, **headers}, "status": status}
        if body is None:
            return self.app.request(path, method=method, **options)
        return self.app._gen_request(method, path, params=_dumps(body), content_type="application/json", **options)


def _dumps(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def ini() -> dict[str, str]:
    """Settings of the application beyond those of the runtime."""
    return {}


#: Applications of this process by the settings that they are built for: building one takes longer than most tests.
_APPLICATIONS: dict[tuple[Any, ...], Router] = {}


@pytest.fixture
def app(runtime: Runtime, clock: FakeClock, ini: dict[str, str]) -> TestApp:
    """The whole application, with nothing in its memory."""
    chosen = runtime.settings
    built_for = (chosen.public_url, chosen.max_body_bytes, chosen.max_import_bytes, chosen.max_bulk_bytes)
    key = (*built_for, *sorted(ini.items()))
    router = _APPLICATIONS.get(key)
    if router is None:
        router = _APPLICATIONS[key] = build(ini, runtime=runtime).make_wsgi_app()
    router.registry["nexus.runtime"] = runtime
    router.registry["nexus.now_seconds"] = lambda: clock.now().timestamp()
    open_memories(router.registry)
    return TestApp(router, extra_environ={"REMOTE_ADDR": "192.0.2.1"})


@pytest.fixture
def make_client(app: TestApp, runtime: Runtime) -> Callable[..., Client]:
    """Makes keys: ``make_client(tenant_id, scopes=["leads:read"])``."""

    def make(tenant_id: int, scopes: list[str] | None = None, **values: Any) -> Client:
        with runtime.work(tenant_id, role="app") as ctx:
            _, text = create_key(ctx, "test", scopes or ["*"], **values)
        return Client(app, text, tenant_id)

    return make


@pytest.fixture
def client(make_client: Callable[..., Client], tenant: int) -> Client:
    """A key of the tenant that may do everything."""
    return make_client(tenant)


@pytest.fixture
def stranger(make_client: Callable[..., Client], other_tenant: int) -> Client:
    """A key of another tenant that may do everything there."""
    return make_client(other_tenant)


@pytest.fixture
def count_statements(runtime: Runtime) -> Callable[[], Any]:
    """``with count_statements() as statements:`` collects the SQL of the web role."""

    @contextmanager
    def counting() -> Iterator[list[str]]:
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            seen.append(statement)

        event.listen(runtime.engines.app, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(runtime.engines.app, "before_cursor_execute", note)

    return counting


@pytest.fixture
def unlimited(client: Client) -> None:
    """Thousands of requests within one minute of the test's clock."""
    client.app.app.registry["nexus.limits"] = SlidingWindows(10**9, 60.0, lambda: 0.0)
