"""The one place where a process is put together: web, worker, CLI and tests build from here.

Settings are read once (``nexus.*`` of the ini section), the runtime is built from them, and one
ordered list of includes makes the application: ours first, then the deployment's ``nexus.includes``.
"""

import atexit
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import plaster
from pyramid.config import Configurator
from pyramid.router import Router

from nexus_marketing.builtins.blobs.files import FileBlobs
from nexus_marketing.builtins.caches.memory import MemoryCache
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.home import HOME, use_storage
from nexus_marketing.core.storages import BlobStore, Cache
from nexus_marketing.db.engines import DatabaseSettings, build_engines, check_versions
from nexus_marketing.db.queries.clock import DatabaseClock
from nexus_marketing.db.queries.tenants import require_tenant
from nexus_marketing.db.upgrade import lock_file, require_current
from nexus_marketing.keys import Keys
from nexus_marketing.metrics import PrometheusTelemetry
from nexus_marketing.plugin.circuits import TROUBLES
from nexus_marketing.plugin.hosts import Host
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.rehearsal import rehearse, settle
from nexus_marketing.plugin.sandbox.hosting import log_refused, sandboxed
from nexus_marketing.runtime import Doorbell, MemoryDoorbell, Runtime
from nexus_marketing.services.storage import SqlStorage
from nexus_marketing.settings import Settings
from nexus_marketing.telemetry import NullTelemetry, Telemetry, configure_logging, get_logger

__all__ = ["build", "make_app", "make_runtime", "open_storage", "read_settings", "rehearse", "with_environment"]

log = get_logger(__name__)

#: Our own plugins: without its line a part is not there, and the rest works.
BUILTINS = (
    "nexus_marketing.builtins.channels.email",
    "nexus_marketing.builtins.channels.by_http:sms",
    "nexus_marketing.builtins.channels.by_http:webhook",
    "nexus_marketing.builtins.channels.by_http:mastodon",
    "nexus_marketing.builtins.channels.by_http:bluesky",
)
#: In order: later ones rest on earlier ones.
INCLUDES = (
    "pyramid_retry",
    "pyramid_tm",
    "nexus_marketing.security",
    "nexus_marketing.api",
    "nexus_marketing.graphql",
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PYRAMID = {
    "tm.manager_hook": "pyramid_tm.explicit_manager",
    # The key is checked by the view's entrance; asking again here would cost a request its speed.
    "tm.annotate_user": "false",
    "retry.attempts": "3",
    "retry.activate_hook": "nexus_marketing.api.retries.attempts",
}


def build(
    settings: Mapping[str, str],
    *,
    runtime: Runtime | None = None,
    now_seconds: Callable[[], float] = time.monotonic,
    web: bool = True,
) -> Configurator:
    """Everything a process is made of: web, worker and command line get the same plugins.

    Args:
        settings: an ini section.
        runtime: one built already, with its plugins; from the settings otherwise.
        now_seconds: a clock that never goes back, for limits and short memories.
        web: with the application; workers and commands need none.

    Raises:
        ConfigurationError: a setting is missing or wrong, each named; or the plugins do not go together.
    """
    config = Configurator(settings={**settings, **_PYRAMID})
    registry = config.registry["nexus.plugins"] = PluginRegistry()
    config.registry["nexus.runtime"] = built = runtime or _parts(settings, registry)
    config.registry["nexus.now_seconds"] = now_seconds
    host = config.registry["nexus.host"] = registry.host = _host(built, now_seconds)
    registry.at_end(host.close)
    config.include("nexus_marketing.plugin.directives")
    try:
        for name in _includes(settings, web=web, plugins=runtime is None):
            config.include(sandboxed(name) if name in host.plugins.untrusted else name)
        if runtime is None:
            settle(config)
            _keep_campaigns(registry)
    except BaseException:
        if runtime is None:
            built.close()
        raise
    return config


def _includes(settings: Mapping[str, str], *, web: bool, plugins: bool) -> list[str]:
    deployment = settings.get("nexus.includes", "").split()
    strange = sorted(set(settings.get("nexus.plugins.untrusted", "").split()) - set(deployment))
    if strange:
        raise ConfigurationError(
            f"nexus.plugins.untrusted: {strange[0]!r} is no module of nexus.includes: write it there as well."
        )
    return [*(BUILTINS if plugins else ()), *(INCLUDES if web else ()), *deployment]


def _host(runtime: Runtime, now_seconds: Callable[[], float]) -> Host:
    settings = runtime.settings
    folder = settings.state_dir / TROUBLES
    return Host(settings.plugins, settings.http, runtime.clock, now_seconds, folder, runtime.telemetry)


def _keep_campaigns(registry: PluginRegistry) -> None:
    # A program that is just opening the database by connect() has said where its campaigns are.
    if registry.storage is not None and HOME.opener is None:
        registry.at_end(use_storage(registry.storage))


def make_runtime(settings: Mapping[str, str]) -> Runtime:
    """The parts of a process that is no web server: those of :func:`build` without the application."""
    runtime: Runtime = build(settings, web=False).registry["nexus.runtime"]
    return runtime


def _parts(settings: Mapping[str, str], registry: PluginRegistry) -> Runtime:
    """The parts of a process; no connection is made yet. The registry is filled by the includes."""
    parsed = Settings.parse(with_environment(settings, os.environ))
    machine = SystemClock()
    # A process without the owner's login gets the least of the others: what needs the owner is then refused there.
    urls = (parsed.database_url, parsed.database_worker_url, parsed.database_owner_url or parsed.database_url)
    database = DatabaseSettings(*urls, pool_size=parsed.pool_size, prepared_statements=parsed.prepared_statements)
    engines = build_engines(database, machine.now)
    return Runtime(
        settings=parsed,
        engines=engines,
        keys=Keys(parsed.secret_keys),
        channels=registry.channels,
        plugins=registry,
        # An embedded database has no clock of its own.
        clock=DatabaseClock(engines.worker, machine) if engines.dialect == "postgresql" else machine,
        telemetry=_telemetry(parsed),
        doorbell=_doorbell(parsed),
        blobs=_blobs(parsed),
        cache=_cache(parsed),
    )


def _blobs(settings: Settings) -> BlobStore:
    if not settings.blob_url:
        return FileBlobs(settings.blob_dir or settings.state_dir / "blobs")
    if settings.blob_dir is not None:
        raise ConfigurationError(
            "nexus.blob_dir and nexus.blob_url are two places for the same: leave one of them out."
        )
    try:
        from nexus_marketing.builtins.blobs.s3 import S3Blobs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(f"nexus.blob_url needs {error.name}: pip install 'nexus-marketing[s3]'.") from error
    return S3Blobs(settings.blob_url, settings.blob_endpoint_url or None, connections=settings.pool_size)


def _cache(settings: Settings) -> Cache:
    if not settings.redis_url:
        return MemoryCache(time.monotonic)
    from nexus_marketing.builtins.caches.redis import RedisCache  # noqa: PLC0415 - loads Redis

    return RedisCache(settings.redis_url)


def read_settings(ini: str) -> dict[str, str]:
    """The ``app:main`` section of a configuration file.

    Raises:
        ConfigurationError: it cannot be read, or has no such section.
    """
    try:
        found: dict[str, str] = plaster.get_settings(ini, "app:main")
    except (plaster.PlasterError, LookupError, ValueError, OSError) as error:
        raise ConfigurationError(f"{ini} cannot be read: {error}.") from error
    if not found:
        raise ConfigurationError(f"{ini} has no [app:main] section: copy development.ini of the distribution.")
    return found


def open_storage(ini: str, tenant: str) -> SqlStorage:
    """The database behind ``nexus_marketing.connect``: campaigns of one tenant, for a program that is no server.

    Raises:
        ConfigurationError: the file cannot be read, or the schema is not this version's.
        NotFound: there is no such tenant.
    """
    settings = read_settings(ini)
    settings.pop("nexus.catcher_dir", None)  # nothing leaves from here
    runtime = make_runtime(settings)
    try:
        require_current(runtime.engines)
        with runtime.work(None, mode="read", role="worker") as ctx:
            tenant_id = require_tenant(ctx.session, tenant).id
    except BaseException:
        runtime.close()
        raise
    return SqlStorage(runtime, tenant_id)


def with_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Settings with ``${NAME}`` filled in from the environment, so that secrets can stay out of files.

    >>> with_environment({"nexus.secret_key": "${KEY}"}, {"KEY": "s3cret"})
    {'nexus.secret_key': 's3cret'}

    Raises:
        ConfigurationError: a variable that a setting names is not set.
    """

    def fill(name: str, match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise ConfigurationError(f"{name}: the environment variable {match[1]} is not set.") from None

    return {
        name: _VARIABLE.sub(partial(fill, name), value) if name.startswith("nexus.") else value
        for name, value in settings.items()
    }


def make_app(global_config: Mapping[str, str], settings: Mapping[str, str]) -> Router:
    """The WSGI application of ``pserve``; in embedded mode with its worker threads.

    Raises:
        ConfigurationError: a setting is wrong, the server too old, or the schema not this version's.
    """
    del global_config
    configure_logging(settings.get("nexus.log_level", "INFO"))
    config = build(settings)
    runtime: Runtime = config.registry["nexus.runtime"]
    version = check_versions(runtime.engines)
    lock = lock_file(runtime.engines.app)
    if lock is not None:
        lock.hold_shared()
        config.registry["nexus.server_lock"] = lock  # held as long as the application lives
    require_current(runtime.engines)
    app = config.make_wsgi_app()
    log_refused(runtime.plugins)
    if runtime.settings.worker_threads > 0:
        _start_workers(runtime)
    log.info("application_ready", database=version, worker_threads=runtime.settings.worker_threads)
    return app


def _telemetry(settings: Settings) -> Telemetry:
    return PrometheusTelemetry(settings.state_dir / "metrics") if settings.metrics_token else NullTelemetry()


def _doorbell(settings: Settings) -> Doorbell:
    url = settings.broker_url or settings.redis_url
    if not url:
        return MemoryDoorbell()
    from nexus_marketing.tasks.broker import DramatiqDoorbell  # noqa: PLC0415 - loads Redis

    try:
        return DramatiqDoorbell(url)
    except ImportError as error:
        raise ConfigurationError(
            f"nexus.broker_url needs {error.name}: pip install 'nexus-marketing[rabbitmq]'."
        ) from error
    except ValueError as error:
        setting = "nexus.broker_url" if settings.broker_url else "nexus.redis_url"
        raise ConfigurationError(
            f"{setting}: its options (behind the question mark) cannot be read: {error}."
        ) from error


def _start_workers(runtime: Runtime) -> None:
    from nexus_marketing.tasks import embedded  # noqa: PLC0415 - production's web processes run no workers

    atexit.register(embedded.start(runtime))
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # Without this, SIGTERM would skip the exit functions that finish what is on the wire.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
