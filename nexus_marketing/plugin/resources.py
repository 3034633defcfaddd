"""What a plugin's resource must say of itself before its routes are part of the API."""

import re
from collections.abc import Callable
from typing import Any, Final

from pyramid.config import Configurator

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.extensions import Resource, Route
from nexus_marketing.core.permissions import Permission

#: Of the web application's registry: makes the views of a plugin's resource. Workers and commands have none.
VIEWS: Final = "nexus.resource_views"
#: Configurator, the plugin's name and its resource.
AddViews = Callable[[Configurator, str, Resource], None]
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PATH: Final = re.compile(r"(/([a-z0-9_-]{1,40}|\{[a-z_]{1,40}\})){0,6}").fullmatch


def declaration_faults(resource: Resource) -> list[str]:
    """What is wrong with what a resource says of itself, each as a sentence; it is not asked anything."""
    if not resource.routes or not all(isinstance(each, Route) for each in resource.routes):
        return ["routes are at least one nexus_marketing.plugin.Route."]
    faults = [fault for each in resource.routes for fault in _faults(each)]
    ways = [(each.method, each.path) for each in resource.routes]
    twice = sorted({" ".join(way) for way in ways if ways.count(way) > 1})
    return faults + [f"routes say twice what {way.strip()} is." for way in twice]


def add_views(config: Configurator, plugin: str, resource: Resource) -> None:
    """Make its routes part of the web application, where there is one."""
    make: AddViews | None = config.registry.get(VIEWS)
    if make is not None:
        make(config, plugin, resource)


def _faults(route: Route) -> list[str]:
    said, faults = f"{route.method} {route.path or '/'}", []
    if route.method not in METHODS:
        faults.append(f"{said}: the method is one of {', '.join(METHODS)}.")
    if not _PATH(route.path):
        faults.append(f"{said}: the path is empty, or up to six of /word and /{{name}}.")
    if route.permission not in tuple(Permission):
        faults.append(f"{said}: {route.permission!a} is no permission: use one of {', '.join(sorted(Permission))}.")
    if (route.schema is not None) is not (route.method in _WITH_BODY):
        faults.append(f"{said}: a schema belongs to {', '.join(sorted(_WITH_BODY))}, and to no other method.")
    if route.schema is not None:
        faults += _schema_faults(said, route.schema)
    return faults


def _schema_faults(said: str, schema: Any) -> list[str]:
    from cerberus import SchemaError  # noqa: PLC0415 - programs that only listen load no Cerberus

    from nexus_marketing.core.schemas import DocumentValidator  # noqa: PLC0415 - see above

    try:
        DocumentValidator(dict(schema))
    except SchemaError as error:
        return [f"{said}: its schema is none: {error}."]
    return []


def check_owner(name: str | None, resource: str) -> str:
    """The plugin that adds a resource: its routes lie below its name.

    Raises:
        ConfigurationError: it has not said yet who it is.
    """
    if name is None:
        said = "call config.add_marketing_plugin(Manifest(…)) before it."
        raise ConfigurationError(f"The resource {resource!r} is added by nobody: {said}")
    return name
