"""The schema, with one table of permissions: a field that leads to an object needs an entry."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import graphene
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, default_field_resolver, get_named_type
from pyramid.exceptions import ConfigurationError

from nexus_marketing.core.permissions import Permission
from nexus_marketing.graphql.mutations import Mutation
from nexus_marketing.graphql.queries import Query

#: Which permission a field asks for. Scalars belong to the object they stand on.
FIELD_PERMISSIONS: Mapping[tuple[str, str], Permission] = {
    ("Query", "campaigns"): Permission.CAMPAIGNS_READ,
    ("Query", "campaign"): Permission.CAMPAIGNS_READ,
    ("Query", "definitions"): Permission.CAMPAIGNS_READ,
    ("Query", "definition"): Permission.CAMPAIGNS_READ,
    ("Query", "leads"): Permission.LEADS_READ,
    ("Query", "lead"): Permission.LEADS_READ,
    ("Query", "journeys"): Permission.CAMPAIGNS_READ,
    ("Query", "journey"): Permission.CAMPAIGNS_READ,
    ("Query", "journeyRuns"): Permission.LEADS_READ,
    ("Mutation", "createJourney"): Permission.CAMPAIGNS_WRITE,
    ("Mutation", "publishJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "pauseJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "resumeJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "drainJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "stopJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "patchJourney"): Permission.CAMPAIGNS_PATCH,
    ("Mutation", "reviveJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "enterJourney"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "createCampaign"): Permission.CAMPAIGNS_WRITE,
    ("Mutation", "launchCampaign"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "pauseCampaign"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "moveCampaign"): Permission.CAMPAIGNS_LAUNCH,
    ("Mutation", "createDefinition"): Permission.CAMPAIGNS_WRITE,
    ("Mutation", "publishDefinition"): Permission.CAMPAIGNS_WRITE,
    ("Campaign", "leads"): Permission.LEADS_READ,
    ("Campaign", "analytics"): Permission.CAMPAIGNS_READ,
    ("Campaign", "engagements"): Permission.ENGAGEMENTS_READ,
    ("Lead", "engagements"): Permission.ENGAGEMENTS_READ,
    ("Lead", "scores"): Permission.LEADS_READ,
    ("Lead", "segments"): Permission.SEGMENTS_READ,
}


def build_schema(permissions: Mapping[tuple[str, str], Permission] = FIELD_PERMISSIONS) -> GraphQLSchema:
    """The executable schema.

    Raises:
        ConfigurationError: a field that leads to an object has no permission.
    """
    schema: GraphQLSchema = graphene.Schema(query=Query, mutation=Mutation).graphql_schema
    for type_name, kind in schema.type_map.items():
        if not isinstance(kind, GraphQLObjectType) or type_name.startswith("__"):
            continue
        for name, field in kind.fields.items():
            permission = permissions.get((type_name, name))
            if permission is not None:
                field.resolve = _guarded(field, permission)
            elif isinstance(get_named_type(field.type), GraphQLObjectType) or type_name in ("Query", "Mutation"):
                raise ConfigurationError(f"GraphQL field {type_name}.{name} declares no permission (SECURITY.md, S04).")
    return schema


def _guarded(field: GraphQLField, permission: Permission) -> Callable[..., Any]:
    resolve = field.resolve or default_field_resolver

    @wraps(resolve)
    def guarded(root: Any, info: Any, **arguments: Any) -> Any:
        info.context.require(permission)
        return resolve(root, info, **arguments)

    assert not inspect.iscoroutinefunction(guarded)  # an awaitable is passed through as it is
    return guarded
