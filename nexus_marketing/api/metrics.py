"""``/metrics``: what monitors read, for the holder of ``nexus.metrics_token`` alone; without one there is nothing here."""

from hmac import compare_digest

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.core.errors import AuthenticationFailed, NotFound
from nexus_marketing.metrics import CONTENT_TYPE, PrometheusTelemetry
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.security.visitors import Crowd
from nexus_marketing.services.backlog import backlog_gauges


def includeme(config: Configurator) -> None:
    """Public to the routes, because its token is the operator's and no tenant's."""
    config.add_api_route("GET", "/metrics", metrics, permission=PUBLIC, crowd=Crowd.CALLS)


def metrics(request: Request) -> Response:
    """Counters of every process of this host, and what waits in the database."""
    runtime: Runtime = request.registry["nexus.runtime"]
    telemetry, token = runtime.telemetry, runtime.settings.metrics_token
    if not token or not isinstance(telemetry, PrometheusTelemetry):
        raise NotFound("There are no metrics here: set nexus.metrics_token.")
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    with request.registry["nexus.visitors"].guarding("metrics", request.environ):
        if not compare_digest(given.encode(), token.encode()):
            raise AuthenticationFailed("Metrics are for the holder of nexus.metrics_token: send it as a bearer token.")
    return Response(telemetry.exposition(backlog_gauges(runtime)), headers={"Content-Type": CONTENT_TYPE})
