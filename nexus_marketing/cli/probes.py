"""``nexus-marketing doctor``: what an installation needs, checked one by one, with the remedy."""

import platform
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import monotonic

import typer
from redis import Redis, RedisError
from sqlalchemy.exc import SQLAlchemyError

from nexus_marketing.cli.session import OPERATOR, AsJson, answer, table
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.engines import check_versions
from nexus_marketing.db.queries.clock import database_now
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.tenants import list_tenants
from nexus_marketing.db.queries.workers import seconds_since_worker
from nexus_marketing.db.upgrade import require_current
from nexus_marketing.runtime import Runtime, new_blob_key

_SILENCE_SECONDS = 90.0
_SKEW_SECONDS = 2.0
_ESSENTIAL = ("database", "revision", "clock", "send ledger")


def doctor(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Check versions, database, schema, workers, Redis, mail relay and clock; exit 1 if sending cannot work."""
    with context.obj.runtime() as runtime:
        checks: dict[str, Callable[[Runtime], str]] = {
            "versions": _versions,
            "database": lambda runtime: check_versions(runtime.engines),
            "revision": _revision,
            "clock": _clock,
            "tenants": _tenants,
            "workers": _workers,
            "redis": _redis,
            "blobs": _blobs,
            "send ledger": _ledger,
            "mail": partial(_mail, context.obj.settings().get("nexus.catcher_dir", "")),
        }
        rows = [_examined(name, check, runtime) for name, check in checks.items()]
    shown = table("nexus-marketing doctor", ("part", "status", "finding"), [list(row.values()) for row in rows])
    answer({"checks": rows}, shown, as_json=as_json)
    if any(row["status"] == "failed" for row in rows):
        raise typer.Exit(1)


def _examined(name: str, check: Callable[[Runtime], str], runtime: Runtime) -> dict[str, str]:
    try:
        return {"part": name, "status": "ok", "finding": check(runtime)}
    except (NexusError, SQLAlchemyError, RedisError, OSError) as error:
        status = "failed" if name in _ESSENTIAL else "warning"
        words = str(getattr(error, "orig", None) or error)
        return {"part": name, "status": status, "finding": " ".join(words.split())[:300]}


def _versions(_runtime: Runtime) -> str:
    try:
        ours = version("nexus-marketing")
    except PackageNotFoundError:
        ours = "not installed"
    return f"nexus-marketing {ours}, Python {platform.python_version()}"


def _revision(runtime: Runtime) -> str:
    require_current(runtime.engines)
    return "the schema is this version's"


def _clock(runtime: Runtime) -> str:
    begun = monotonic()
    theirs = database_now(runtime.engines.worker)
    skew = abs((theirs - runtime.clock.now()).total_seconds()) - (monotonic() - begun)
    if skew > _SKEW_SECONDS:
        raise OSError(f"this machine and the database differ by {skew:.1f} s: run a time service on both")
    return "this machine and the database agree"


def _tenants(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        count = len(list_tenants(ctx.session))
    if not count:
        raise OSError("there is no tenant yet: nexus-marketing tenants create SLUG")
    return f"{count}"


def _workers(runtime: Runtime) -> str:
    silence = seconds_since_worker(runtime.engines.app)
    if silence is None or silence > _SILENCE_SECONDS:
        raise OSError("no worker seen for 90 s: start `nexus-marketing worker`, or `serve` in embedded mode")
    return f"one was seen {silence:.0f} s ago"


def _redis(runtime: Runtime) -> str:
    if not runtime.settings.redis_url:
        return "not used: work is found by polling"
    with Redis.from_url(runtime.settings.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
        client.ping()
    return "answers"


def _blobs(runtime: Runtime) -> str:
    runtime.blobs.get(new_blob_key(0))  # a tenant that nobody is: read only, as the operator may be another user
    return f"{type(runtime.blobs).__name__} answers"


def _ledger(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        broken = broken_invariants(ctx.session)
    if broken:
        raise OSError(f"broken: {', '.join(broken)}; keep the database as it is and report this")
    return "every invariant holds"


def _mail(catcher_dir: str, runtime: Runtime) -> str:
    smtp = runtime.settings.smtp
    if catcher_dir:
        return f"caught in {catcher_dir}: nothing leaves this machine"
    with socket.create_connection((smtp.host, smtp.port), timeout=3) as connection:
        greeting = connection.recv(200).decode("ascii", "replace").strip()
    if not greeting.startswith("220"):
        raise OSError(f"{smtp.host}:{smtp.port} answers {greeting[:80]!r}, not 220")
    return f"{smtp.host}:{smtp.port} answers"
