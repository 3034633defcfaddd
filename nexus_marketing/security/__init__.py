"""Keys, permissions and the table of routes."""

from pyramid.config import Configurator
from pyramid.viewderivers import INGRESS

from nexus_marketing.security.contexts import ApiRequest, request_context
from nexus_marketing.security.memories import open_memories
from nexus_marketing.security.policy import KeyPolicy
from nexus_marketing.security.routes import RouteTable, add_api_route, entrance


def includeme(config: Configurator) -> None:
    """Authentication, authorisation and limits for every route."""
    config.registry["nexus.routes"] = RouteTable()
    open_memories(config.registry)
    config.set_request_factory(ApiRequest)
    config.set_security_policy(KeyPolicy())
    config.add_request_method(request_context, "nexus", reify=True)
    config.add_view_deriver(entrance, under=INGRESS, over="secured_view")
    config.add_directive("add_api_route", add_api_route)
