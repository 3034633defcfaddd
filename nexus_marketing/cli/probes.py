"""What ``doctor`` looks at of the installation: versions, database, servers around it, plugins, secrets, mail."""

import platform
import socket
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from time import monotonic

from redis import Redis

from nexus_marketing.cli.session import OPERATOR
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.db.queries.accounts import ill_accounts
from nexus_marketing.db.queries.clock import database_now
from nexus_marketing.db.queries.plugins import tenants_by_plugin
from nexus_marketing.db.queries.tenants import list_tenants
from nexus_marketing.db.queries.workers import seconds_since_worker
from nexus_marketing.db.upgrade import require_current
from nexus_marketing.plugin.circuits import TROUBLES, Trouble, read_back, troubles
from nexus_marketing.plugin.sandbox.probe import refusal
from nexus_marketing.runtime import Runtime, new_blob_key
from nexus_marketing.security.visitors import FLOODS, Crowd, Flood
from nexus_marketing.services.secret_rotation import stale_secrets

SILENCE_SECONDS = 90.0
_SKEW_SECONDS = 2.0
#: So many opens and clicks may get lost in a day before somebody should know.
_MANY_NOT_RECORDED = 100


def probe_versions(_runtime: Runtime) -> str:
    """What runs: Python and the packages that matter."""
    try:
        ours = version("nexus-marketing")
    except PackageNotFoundError:
        ours = "not installed"
    return f"nexus-marketing {ours}, Python {platform.python_version()}"


def probe_revision(runtime: Runtime) -> str:
    """Whether the schema is that of this version."""
    require_current(runtime.engines)
    return "the schema is this version's"


def probe_clock(runtime: Runtime) -> str:
    """Whether this machine and the database agree on the time."""
    begun = monotonic()
    theirs = database_now(runtime.engines.worker)
    skew = abs((theirs - SystemClock().now()).total_seconds()) - (monotonic() - begun)
    if skew > _SKEW_SECONDS:
        raise OSError(
            f"this machine and the database differ by {skew:.1f} s. Work goes by the database's clock and is not harmed; "
            "logs and certificates go by this machine's: run a time service (chrony, systemd-timesyncd) on both"
        )
    return "this machine and the database agree"


def probe_tenants(runtime: Runtime) -> str:
    """Whether anybody is here to send for."""
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        count = len(list_tenants(ctx.session))
    if not count:
        raise OSError("there is no tenant yet: nexus-marketing tenants create SLUG")
    return f"{count}"


def probe_workers(runtime: Runtime) -> str:
    """Whether workers say that they are alive."""
    silence = seconds_since_worker(runtime.engines.app)
    if silence is None or silence > SILENCE_SECONDS:
        raise OSError("no worker seen for 90 s: start `nexus-marketing worker`, or `serve` in embedded mode")
    return f"one was seen {silence:.0f} s ago"


def probe_redis(runtime: Runtime) -> str:
    """Whether Redis answers, where one is named."""
    if not runtime.settings.redis_url:
        return "not used: nothing is cached beyond a process"
    _ping_redis(runtime.settings.redis_url)
    return "answers"


def probe_broker(runtime: Runtime) -> str:
    """Whether the broker answers, where one is named."""
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


def probe_blobs(runtime: Runtime) -> str:
    """Whether files can be written and read."""
    runtime.blobs.get(new_blob_key(0))  # a tenant that nobody is: read only, as the operator may be another user
    return f"{type(runtime.blobs).__name__} answers"


def probe_plugins(runtime: Runtime) -> str:
    """Which plugins are on for tenants, and what is wrong with any."""
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        wanted = tenants_by_plugin(ctx.session)
    gone = sorted(wanted.keys() - runtime.plugins.plugins.keys())
    if gone:
        named = "; ".join(f"{name} (on for {', '.join(wanted[name][:3])})" for name in gone)
        raise OSError(f"not active: {named}. Name them in nexus.includes, or switch them off: plugins disable")
    return ", ".join(sorted(runtime.plugins.plugins)) or "none is active"


def probe_sandbox(runtime: Runtime) -> str:
    """Whether untrusted plugins can be shut in here."""
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


def probe_visitors(runtime: Runtime) -> str:
    """Whether opens and clicks went unrecorded because too many came from one address."""
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


def probe_accounts(runtime: Runtime) -> str:
    """Which channel accounts are ill."""
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = ill_accounts(ctx.session)
    if not rows:
        return "none is known to fail"
    named = [f"{row.type} {row.name} of {row.slug} is {row.health} ({row.health_reason})" for row in rows[:3]]
    raise OSError(f"{len(rows)} fail: {'; '.join(named)}. Mend them and see: nexus-marketing channels health")


def probe_secrets(runtime: Runtime) -> str:
    """Whether stored secrets can be read, and are under the newest key."""
    found = stale_secrets(runtime)
    if found.unreadable:
        remedy = "write their key back behind the others in nexus.secret_key, or set them again"
        raise OSError(f"{found.unreadable} cannot be read: {remedy}")
    if found.renewed:
        raise OSError(f"{found.renewed} of {found.sealed} are under an older key: nexus-marketing keys rotate")
    return f"{found.sealed} are under the newest key" if found.sealed else "there are none"


def probe_mail(catcher_dir: str, runtime: Runtime) -> str:
    """Whether the mail relay answers."""
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
