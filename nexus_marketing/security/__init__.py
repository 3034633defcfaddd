"""Keys, permissions and the table of routes."""

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.viewderivers import INGRESS

from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.security.contexts import ApiRequest, request_context
from nexus_marketing.security.keys import KeyRing
from nexus_marketing.security.policy import KeyPolicy
from nexus_marketing.security.routes import RouteTable, add_api_route, entrance
from nexus_marketing.services.idempotency import KeysInFlight


def includeme(config: Configurator) -> None:
    """Authentication, authorisation and limits for every route."""
    config.registry["nexus.routes"] = RouteTable()
    open_memories(config.registry)
    config.set_request_factory(ApiRequest)
    config.set_security_policy(KeyPolicy())
    config.add_request_method(request_context, "nexus", reify=True)
    config.add_view_deriver(entrance, under=INGRESS, over="secured_view")
    config.add_directive("add_api_route", add_api_route)


def open_memories(registry: Registry) -> None:
    """What a process remembers of callers, empty: keys it has seen, windows of their limits, requests under way.

    Made of ``nexus.runtime`` and ``nexus.now_seconds``, as the registry has them.
    """
    runtime = registry["nexus.runtime"]
    now_seconds = registry["nexus.now_seconds"]
    registry["nexus.keys"] = KeyRing(runtime, now_seconds)
    registry["nexus.limits"] = SlidingWindows(runtime.settings.rate_limit_per_minute, 60.0, now_seconds)
    # Strangers with a public key get windows of their own: they must not use up those of the tenant's programs.
    registry["nexus.public_limits"] = SlidingWindows(runtime.settings.public_events_per_minute, 60.0, now_seconds)
    registry["nexus.public_key_limits"] = SlidingWindows(runtime.settings.rate_limit_per_minute, 60.0, now_seconds)
    registry["nexus.keys_in_flight"] = KeysInFlight()
