"""``api.hello`` and ``api.list``: a request through everything, against bare Pyramid (PERFORMANCE.md).

Both sides are WSGI calls in this process, one after the other on one thread: no sockets, so that what
is compared is ours. The reference of ``api.list`` runs the SQL that ours runs, on a pooled psycopg
connection in its ordinary mode (a transaction per request), and renders it with Pyramid's JSON.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from pyramid.config import Configurator
from pyramid.renderers import JSON
from pyramid.request import Request

from benchmarks.common import Options, Result, paired
from nexus_marketing.config import build
from nexus_marketing.db.roles import WORKER
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenants import create_key
from tests.common.databases import build_runtime, opened, postgres_copy, postgres_settings
from tests.common.factories import make_leads, make_tenant

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Any]

_ROWS = 50
_COLUMNS = (
    "id::text AS id, email, name, first_name, last_name, external_id, phone, country, locale, time_zone, tags,"
    " metadata, owner_id::text AS owner_id, score, version, created_at, updated_at"
)
_SQL = f"SELECT {_COLUMNS} FROM marketing_leads WHERE tenant_id = %s AND gone_at IS NULL ORDER BY marketing_leads.id DESC LIMIT %s"


def api_hello(options: Options) -> Result:
    """Key, tenant, limits, transaction, headers: ``GET /api/v1`` against a view that answers a dict."""
    with _ours(options) as (app, headers, _):
        ours, bare = _caller(app, "/api/v1", headers), _caller(_bare_hello(), "/api/v1", {})
        return _measure("api.hello", ours, bare, 4.0, options, "limits in memory; key looked up once a second")


def api_list(options: Options) -> Result:
    """50 leads of 2,000 as JSON, newest first, a page of a list."""
    with _ours(options) as (app, headers, url), _pool(url) as pool:
        ours = _caller(app, "/api/v1/leads?limit=50", headers)
        bare = _caller(_bare_list(pool), "/api/v1/leads", {})
        _assert_same(json.loads(ours())["data"], json.loads(bare())["data"])
        return _measure("api.list", ours, bare, 2.0, options, "reference: psycopg pool, one transaction a request")


def _pool(url: str) -> ConnectionPool:
    return ConnectionPool(url, min_size=1, max_size=1, kwargs={"row_factory": dict_row})


def _measure(
    name: str, ours: Callable[[], bytes], bare: Callable[[], bytes], target: float, options: Options, notes: str
) -> Result:
    calls = options.size(2_000 if name == "api.hello" else 500, 50)

    def many(call: Callable[[], bytes]) -> Callable[[], None]:
        def side() -> None:
            for _ in range(calls):
                call()

        return side

    return paired(many(ours), many(bare), 9).result(name, target, per=calls, unit="us", notes=notes)


@contextmanager
def _ours(options: Options) -> Iterator[tuple[Wsgi, Mapping[str, str], str]]:
    cluster = options.cluster
    database = postgres_copy(cluster)
    settings = postgres_settings(cluster, database)
    with opened(settings) as engines:
        runtime = build_runtime(settings, engines, options.folder)
        tenant_id = make_tenant(runtime, "acme")
        make_tenant(runtime, "globex")
        make_leads(runtime, tenant_id, options.size(2_000, 100), tags=["a", "b"], attributes={"plan": "pro"})
        with engines.owner.begin() as connection:  # as autovacuum does within a minute
            connection.exec_driver_sql("ANALYZE marketing_leads")
        app = build({}, runtime=_unlimited(runtime)).make_wsgi_app()
        yield app, {"HTTP_AUTHORIZATION": f"Bearer {_key(runtime, tenant_id)}"}, _plain(cluster.dsn(WORKER, database))
    cluster.drop_database(database)


def _unlimited(runtime: Runtime) -> Runtime:
    """A limit that a benchmark does not run into; it is counted exactly all the same."""
    return replace(runtime, settings=replace(runtime.settings, rate_limit_per_minute=10_000_000))


def _key(runtime: Runtime, tenant_id: int) -> str:
    with runtime.work(tenant_id, role="app") as ctx:
        return create_key(ctx, "benchmark", ["*"])[1]


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _caller(app: Wsgi, path: str, headers: Mapping[str, str]) -> Callable[[], bytes]:
    """A function that makes one request as a WSGI server does."""
    path_info, _, query = path.partition("?")

    def call() -> bytes:
        status: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path_info,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "HTTP_HOST": "localhost",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **headers,
        }
        body = b"".join(app(environ, lambda line, _headers: status.append(line)))
        if not status[0].startswith("200"):
            raise RuntimeError(f"{path}: {status[0]} {body[:300]!r}")
        return body

    return call


def _bare_hello() -> Wsgi:
    config = Configurator()
    config.add_route("hello", "/api/v1")
    config.add_view(lambda _request: {"product": "bare"}, route_name="hello", renderer="json")
    return config.make_wsgi_app()


def _bare_list(pool: ConnectionPool) -> Wsgi:
    def view(_request: Request) -> dict[str, Any]:
        with pool.connection() as connection:
            rows = connection.execute(_SQL, (1, _ROWS + 1)).fetchall()
        return {"data": rows[:_ROWS], "has_more": len(rows) > _ROWS}

    renderer = JSON()
    renderer.add_adapter(datetime, lambda moment, _request: moment.isoformat())
    config = Configurator()
    config.add_renderer("json", renderer)
    config.add_route("leads", "/api/v1/leads")
    config.add_view(view, route_name="leads", renderer="json")
    return config.make_wsgi_app()


def _assert_same(ours: list[dict[str, Any]], bare: list[dict[str, Any]]) -> None:
    """The same rows and the same fields; only the spelling of moments differs."""
    assert len(ours) == len(bare) == _ROWS, (len(ours), len(bare))
    assert [set(row) for row in ours] == [set(row) for row in bare]
    assert [(row["id"], row["email"], row["metadata"]) for row in ours] == [
        (row["id"], row["email"], row["metadata"]) for row in bare
    ]


BENCHMARKS = {"api.hello": api_hello, "api.list": api_list}
