"""Probes for load balancers and monitors: ``/__lbheartbeat__`` and ``/__heartbeat__``."""

from collections.abc import Callable

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from redis import Redis, RedisError
from sqlalchemy.exc import SQLAlchemyError

from nexus_marketing.api.replies import dump, json_response
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.core.extensions import Heartbeat
from nexus_marketing.db.queries.workers import seconds_since_worker
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Workers say every ten seconds that they are alive.
_WORKER_SILENCE_SECONDS = 90.0


def includeme(config: Configurator) -> None:
    """Public, because probes have no key; they say yes or no and nothing more.

    Not counted: a balancer that is told to come again takes the server out. They are for the inside; a proxy need not pass
    them on.
    """
    config.add_api_route("GET", "/__lbheartbeat__", lbheartbeat, permission=PUBLIC, crowd=None)
    config.add_api_route("GET", "/__heartbeat__", heartbeat, permission=PUBLIC, crowd=None)


def lbheartbeat(_request: Request) -> Response:
    """This process answers."""
    return json_response(b"{}")


def heartbeat(request: Request) -> Response:
    """Everything that messages need: 503 when a part is missing, and which."""
    runtime = request.registry["nexus.runtime"]
    checks: dict[str, Callable[[Runtime], bool]] = {"database": _has_database, "workers": _has_worker}
    if runtime.settings.redis_url:
        checks["redis"] = _has_redis
    results = {name: _ask(name, check, runtime) for name, check in checks.items()}
    results |= {name: _ask_plugin(each) for name, each in runtime.plugins.heartbeats.items()}
    return json_response(dump(results), 200 if all(results.values()) else 503)


def _ask(name: str, check: Callable[[Runtime], bool], runtime: Runtime) -> bool:
    try:
        return check(runtime)
    except (SQLAlchemyError, RedisError, Unavailable) as error:
        log.warning("heartbeat_failed", part=name, error=type(error).__name__)
        return False


def _ask_plugin(heartbeat: Heartbeat) -> bool:
    try:
        return bool(heartbeat.answers())
    except Exception as error:  # noqa: BLE001 - isolation boundary: whatever it raises, the part does not answer
        log.warning("heartbeat_failed", part=heartbeat.name, error=type(error).__name__)
        return False


def _has_database(runtime: Runtime) -> bool:
    seconds_since_worker(runtime.engines.app)
    return True


def _has_worker(runtime: Runtime) -> bool:
    silence = seconds_since_worker(runtime.engines.app)
    return silence is not None and silence <= _WORKER_SILENCE_SECONDS


def _has_redis(runtime: Runtime) -> bool:
    with Redis.from_url(runtime.settings.redis_url, socket_timeout=1, socket_connect_timeout=1) as client:
        return bool(client.ping())
