"""``nexus-marketing doctor``: what an installation needs, checked one by one, with the remedy."""

import platform
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import monotonic

import typer
from redis import Redis, RedisError
from sqlalchemy.exc import SQLAlchemyError

from nexus_marketing.cli.session import OPERATOR, AsJson, answer, table
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.engines import check_versions
from nexus_marketing.db.queries.accounts import ill_accounts
from nexus_marketing.db.queries.audit_sinks import sinks_behind
from nexus_marketing.db.queries.backlog import (
    abandoned_chunks,
    crashed_chunks,
    overdue_retries,
    stopped_sends,
    waiting_chunks,
)
from nexus_marketing.db.queries.clock import database_now
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.plugins import tenants_by_plugin
from nexus_marketing.db.queries.segments import failing_segments
from nexus_marketing.db.queries.tenants import list_tenants
from nexus_marketing.db.queries.timers import dead_timers
from nexus_marketing.db.queries.troubles import failed_runs, ill_actions, open_escalations, slow_compensations
from nexus_marketing.db.queries.workers import seconds_since_worker
from nexus_marketing.db.upgrade import require_current
from nexus_marketing.plugin.circuits import TROUBLES, Trouble, read_back, troubles
from nexus_marketing.plugin.sandbox.probe import refusal
from nexus_marketing.runtime import Runtime, new_blob_key
from nexus_marketing.security.visitors import FLOODS, Crowd, Flood
from nexus_marketing.services.secret_rotation import stale_secrets

_SILENCE_SECONDS = 90.0
_SKEW_SECONDS = 2.0
#: A send that waits longer than this for somebody to take it up is told of.
_WAIT_SECONDS = 600.0
#: What helps a send that stopped itself, by how its reason begins.
_REMEDIES = {
    "sender_refused": "Sender refused: mend login, quota or policy with the provider, then resume the campaign.",
    "too_many_bounces": "Too many bounces: see where these addresses come from before you resume the campaign.",
    "too_many_errors": "Too many errors: see what the receiving servers answer (dead letters), then resume the campaign.",
    "cannot be sent: Its channel account": "Channel account off or gone: switch one on with the same sender (channels "
    "change), then resume the campaign.",
    "plugin_missing": "Plugin missing: name the channel's plugin in nexus.includes of every worker, or switch it on for the "
    "tenant (plugins enable), then resume.",
    "cannot be planned": "Cannot be planned: mend the segment's rule, then resume the campaign.",
}
#: So many opens and clicks may get lost in a day before somebody should know.
_MANY_NOT_RECORDED = 100
_ESSENTIAL = ("database", "revision", "send ledger")


def doctor(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Check versions, database, schema, workers, queues, Redis, broker, mail relay and clock; exit 1 if sending cannot work."""
    with context.obj.runtime() as runtime:
        checks: dict[str, Callable[[Runtime], str]] = {
            "versions": _versions,
            "database": lambda runtime: check_versions(runtime.engines),
            "revision": _revision,
            "clock": _clock,
            "tenants": _tenants,
            "workers": _workers,
            "redis": _redis,
            "broker": _broker,
            "blobs": _blobs,
            "send ledger": _ledger,
            "queue": _queue,
            "retries": _retries,
            "leases": _leases,
            "crashes": _crashes,
            "sends": _stopped,
            "timers": _timers,
            "segments": _segments,
            "actions": _actions,
            "taking back": _taking_back,
            "escalations": _escalations,
            "journeys": _journeys,
            "plugins": _plugins,
            "audit sinks": _audit_sinks,
            "sandbox": _sandbox,
            "visitors": _visitors,
            "channel accounts": _accounts,
            "stored secrets": _secrets,
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
    skew = abs((theirs - SystemClock().now()).total_seconds()) - (monotonic() - begun)
    if skew > _SKEW_SECONDS:
        raise OSError(
            f"this machine and the database differ by {skew:.1f} s. Work goes by the database's clock and is not harmed; "
            "logs and certificates go by this machine's: run a time service (chrony, systemd-timesyncd) on both"
        )
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
        return "not used: nothing is cached beyond a process"
    _ping_redis(runtime.settings.redis_url)
    return "answers"


def _broker(runtime: Runtime) -> str:
    url = runtime.settings.broker_url
    if not url:
        return "rings go through Redis" if runtime.settings.redis_url else "not used: work is found by polling"
    if url.startswith("redis"):
        _ping_redis(url)
    else:
        from nexus_marketing.tasks.rabbitmq import reach

        reach(url)
    return "answers"


def _ping_redis(url: str) -> None:
    with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        client.ping()


def _blobs(runtime: Runtime) -> str:
    runtime.blobs.get(new_blob_key(0))  # a tenant that nobody is: read only, as the operator may be another user
    return f"{type(runtime.blobs).__name__} answers"


def _ledger(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        broken = broken_invariants(ctx.session)
    if broken:
        raise OSError(f"broken: {', '.join(broken)}; keep the database as it is and report this")
    return "every invariant holds"


def _queue(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        found = waiting_chunks(ctx.session)
    if not found.chunks:
        apart = f" but {found.for_domains} chunks for the rates of domains" if found.for_domains else ""
        return f"nothing waits{apart}"
    said = f"{found.chunks} chunks of {found.sends} sends wait, the oldest send is {_span(found.seconds)} old"
    if found.seconds > _WAIT_SECONDS:
        raise OSError(f"{said}: start more workers, or raise the tenant's send_rates if they hold it")
    return said


def _retries(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        found = overdue_retries(ctx.session)
    if not found.rows or found.seconds < _SILENCE_SECONDS:
        return "none is overdue"
    raise OSError(f"{found.rows} are overdue, the first for {_span(found.seconds)}: start more workers")


def _leases(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        count = abandoned_chunks(ctx.session)
    if count:
        raise OSError(f"{count} chunks were left by workers that died and nobody took them up: start a worker")
    return "every chunk is held by a worker or free"


def _crashes(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = crashed_chunks(ctx.session)
    if not rows:
        return "no worker ended over a message of late"
    named = [f"campaign {row.campaign_id} of tenant {row.tenant_id} ({row.crashes} workers)" for row in rows[:3]]
    raise OSError(
        f"workers ended while they made messages of {'; '.join(named)}: see their logs and the kernel's (no memory left?), mend "
        "the template, the data or the plugin. What was given up: campaigns dead-letters, then replay --reason crashed"
    )


def _stopped(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = stopped_sends(ctx.session)
    if not rows:
        return "none stopped by itself"
    named = [
        f"campaign {row.campaign_id} of tenant {row.tenant_id} by {row.channel} ({row.status}: {row.status_reason})"
        for row in rows[:3]
    ]
    remedies = dict.fromkeys(_remedy(row.status, row.status_reason) for row in rows)
    raise OSError(f"{len(rows)} stopped by themselves: {'; '.join(named)}. {' '.join(remedies)}")


def _remedy(status: str, reason: str) -> str:
    if status == SendStatus.MISSED:
        return "Missed: no worker began in time; resume the campaign if it is still wanted, cancel it if not."
    known = next((said for begins, said in _REMEDIES.items() if reason.startswith(begins)), None)
    return known or "Mend what the reason says, then resume the campaign."


def _timers(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        dead = dead_timers(ctx.session, 20)
    if not dead:
        return "none was given up"
    first = dead[0]
    said = f"the first is {first.type} {first.key} of tenant {first.tenant_id}: {first.error}"
    raise OSError(f"{len(dead)} were given up after many tries; {said}. Mend that; what they were for is not done")


def _segments(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = failing_segments(ctx.session, 20)
    if not rows:
        return "every rule can be computed"
    first = rows[0]
    said = f"{len(rows)} cannot be computed and keep the members they had; the first is {first.id} of tenant "
    raise OSError(f"{said}{first.tenant_id}: {first.error}")


def _actions(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = ill_actions(ctx.session)
    said = []
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        named = [f"{row.n} of {row.name} of {row.slug} (the last is {row.last_id}: {row.reason})" for row in failed[:3]]
        said.append(f"{sum(row.n for row in failed)} failed within a week: {'; '.join(named)}. Mend what they say")
        said.append("(actions list --tenant SLUG --state failed), then actions retry ID --tenant SLUG")
    paused = [row for row in rows if row.state == "paused"]
    if paused:
        named = [f"{row.n} of {row.name} of {row.slug}" for row in paused[:3]]
        said.append(
            f"{'; '.join(named)} wait for a plugin: name it in nexus.includes of every worker, or plugins enable"
        )
    if said:
        raise OSError(" ".join(said))
    return "none failed within a week, and none waits for a plugin"


def _taking_back(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = slow_compensations(ctx.session)
    if not rows:
        return "no failed campaign waits for long"
    named = [
        f"campaign {row.campaign_id} of {row.slug} ({f'{row.actions} actions open' if row.actions else 'its sends are not at rest'})"
        for row in rows[:3]
    ]
    raise OSError(
        f"failed over an hour ago and not taken back whole: {'; '.join(named)}. Start a worker if there is none; see its actions "
        "(actions list --campaign ID) and its dead timers"
    )


def _escalations(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = open_escalations(ctx.session)
    if not rows:
        return "none is open"
    first = rows[0]
    said = f"the oldest, {first.id} of campaign {first.campaign_id} of {first.slug}, for {_span(float(first.seconds))}"
    return f"{len(rows)} are open, {said}: whoever has seen one says campaigns acknowledge ID --tenant SLUG"


def _journeys(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = failed_runs(ctx.session)
    if not rows:
        return "no run failed within a week"
    named = [f"{row.n} of journey {row.journey_id} of {row.slug} ({row.reason})" for row in rows[:3]]
    raise OSError(f"runs failed within a week: {'; '.join(named)}. See journeys runs ID --tenant SLUG --state failed")


def _plugins(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        wanted = tenants_by_plugin(ctx.session)
    gone = sorted(wanted.keys() - runtime.plugins.plugins.keys())
    if gone:
        named = "; ".join(f"{name} (on for {', '.join(wanted[name][:3])})" for name in gone)
        raise OSError(f"not active: {named}. Name them in nexus.includes, or switch them off: plugins disable")
    return ", ".join(sorted(runtime.plugins.plugins)) or "none is active"


def _audit_sinks(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = sinks_behind(ctx.session, _WAIT_SECONDS)
    if not rows:
        return f"{len(runtime.plugins.audit_sinks)}; none is behind"
    named = "; ".join(f"{row.sink} of {row.slug} ({row.rows} records, {_span(float(row.seconds))})" for row in rows[:3])
    said = "what it refuses holds back what is behind it. See audit_sink_failed in the log of the workers"
    raise OSError(f"not told of the audit: {named}. Mend the sink, or switch its plugin off (plugins disable): {said}")


def _sandbox(runtime: Runtime) -> str:
    if runtime.plugins.refused:
        raise OSError("; ".join(runtime.plugins.refused.values()))
    found = list(troubles(runtime.settings.state_dir / TROUBLES))
    if found:
        raise OSError("; ".join(map(_trouble, found)))
    inside = [each.name for each in runtime.plugins.plugins.values() if each.is_sandboxed]
    if inside:
        return f"runs {', '.join(sorted(inside))}"
    return refusal() or "nobody is in it (nexus.plugins.untrusted); this machine can run one"


def _trouble(found: Trouble) -> str:
    left = "left alone for now" if found.is_open else "asked again"
    said = f"{found.plugin} failed {found.failures} times in a row, last at {found.at} ({found.reason}): {left}"
    return f"{said}. Mend or update it, or switch it off: plugins disable {found.plugin} --tenant SLUG"


def _visitors(runtime: Runtime) -> str:
    now = SystemClock().now()
    found = [each for each in read_back(runtime.settings.state_dir / FLOODS, Flood) if each.is_recent(now)]
    away: Counter[str] = Counter()
    for each in found:
        away.update(each.turned_away)
    if any(each.unnamed_proxy for each in found):
        raise OSError(
            "strangers come through a proxy that is not named, so that nobody can be told apart and nobody is limited: write "
            "its address as trusted_proxies of [server:main] (waitress: trusted_proxy and trusted_proxy_headers)"
        )
    if away[Crowd.ENGAGEMENTS] > _MANY_NOT_RECORDED:
        raise OSError(
            f"{away[Crowd.ENGAGEMENTS]} opens and clicks of a day were answered and not recorded, as too many came from one "
            "address: see the log of your proxy for which. If it is a proxy of yours, name it (trusted_proxies); if it is one "
            "of a mail provider, raise nexus.visitors.engagements_per_minute"
        )
    named = ", ".join(f"{crowd}: {count}" for crowd, count in sorted(away.items()))
    return f"too many from one address, within a day: {named}" if named else "nobody asked for too much within a day"


def _accounts(runtime: Runtime) -> str:
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = ill_accounts(ctx.session)
    if not rows:
        return "none is known to fail"
    named = [f"{row.type} {row.name} of {row.slug} is {row.health} ({row.health_reason})" for row in rows[:3]]
    raise OSError(f"{len(rows)} fail: {'; '.join(named)}. Mend them and see: nexus-marketing channels health")


def _secrets(runtime: Runtime) -> str:
    found = stale_secrets(runtime)
    if found.unreadable:
        remedy = "write their key back behind the others in nexus.secret_key, or set them again"
        raise OSError(f"{found.unreadable} cannot be read: {remedy}")
    if found.renewed:
        raise OSError(f"{found.renewed} of {found.sealed} are under an older key: nexus-marketing keys rotate")
    return f"{found.sealed} are under the newest key" if found.sealed else "there are none"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"


def _mail(catcher_dir: str, runtime: Runtime) -> str:
    smtp = runtime.settings.smtp
    if catcher_dir:
        return f"caught in {catcher_dir}: nothing leaves this machine"
    try:
        with socket.create_connection((smtp.host, smtp.port), timeout=3) as connection:
            greeting = connection.recv(200).decode("ascii", "replace").strip()
    except OSError as error:
        remedy = "start the relay or name another in nexus.smtp.host, or keep mail here with nexus.catcher_dir"
        raise OSError(f"{smtp.host}:{smtp.port} does not answer ({error}): {remedy}") from error
    if not greeting.startswith("220"):
        raise OSError(f"{smtp.host}:{smtp.port} answers {greeting[:80]!r}, not 220")
    return f"{smtp.host}:{smtp.port} answers"
