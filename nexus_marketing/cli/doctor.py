"""``nexus-marketing doctor``: what an installation needs, checked one by one, with the remedy."""

from collections.abc import Callable
from functools import partial

import typer
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from nexus_marketing.cli.probes import (
    probe_accounts,
    probe_blobs,
    probe_broker,
    probe_clock,
    probe_mail,
    probe_plugins,
    probe_redis,
    probe_revision,
    probe_sandbox,
    probe_secrets,
    probe_tenants,
    probe_versions,
    probe_visitors,
    probe_workers,
)
from nexus_marketing.cli.session import AsJson, answer, table
from nexus_marketing.cli.work_probes import (
    probe_actions,
    probe_audit_sinks,
    probe_crashes,
    probe_escalations,
    probe_journeys,
    probe_leases,
    probe_ledger,
    probe_queue,
    probe_retries,
    probe_segments,
    probe_stopped,
    probe_taking_back,
    probe_timers,
)
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.engines import check_versions
from nexus_marketing.runtime import Runtime

_ESSENTIAL = ("database", "revision", "send ledger")


def doctor(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Check versions, database, schema, workers, queues, Redis, broker, mail relay and clock; exit 1 if sending cannot work."""
    with context.obj.runtime() as runtime:
        checks: dict[str, Callable[[Runtime], str]] = {
            "versions": probe_versions,
            "database": lambda runtime: check_versions(runtime.engines),
            "revision": probe_revision,
            "clock": probe_clock,
            "tenants": probe_tenants,
            "workers": probe_workers,
            "redis": probe_redis,
            "broker": probe_broker,
            "blobs": probe_blobs,
            "send ledger": probe_ledger,
            "queue": probe_queue,
            "retries": probe_retries,
            "leases": probe_leases,
            "crashes": probe_crashes,
            "sends": probe_stopped,
            "timers": probe_timers,
            "segments": probe_segments,
            "actions": probe_actions,
            "taking back": probe_taking_back,
            "escalations": probe_escalations,
            "journeys": probe_journeys,
            "plugins": probe_plugins,
            "audit sinks": probe_audit_sinks,
            "sandbox": probe_sandbox,
            "visitors": probe_visitors,
            "channel accounts": probe_accounts,
            "stored secrets": probe_secrets,
            "mail": partial(probe_mail, context.obj.settings().get("nexus.catcher_dir", "")),
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
