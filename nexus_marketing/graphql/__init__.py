"""The GraphQL entrance: the same services, permissions and tenant as REST."""

from pyramid.config import Configurator

from nexus_marketing.graphql.documents import Documents
from nexus_marketing.graphql.schema import build_schema
from nexus_marketing.graphql.views import execute
from nexus_marketing.security.routes import ANY_KEY


def includeme(config: Configurator) -> None:
    """One route: POST only, a key for everything, introspection included; fields have permissions of their own."""
    config.registry["nexus.graphql"] = Documents(build_schema())
    config.add_api_route("POST", "/graphql", execute, permission=ANY_KEY)
