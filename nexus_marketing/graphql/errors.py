"""Errors inside a GraphQL answer: our own with their code, everything else masked."""

from typing import Any

from graphql import GraphQLError

from nexus_marketing.core.errors import ForeignTenant, NexusError, TenantRequired
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_OUR_FAULT = (TenantRequired, ForeignTenant)


def format_error(error: GraphQLError) -> dict[str, Any]:
    """What a client learns of an error."""
    original = error.original_error
    formatted: dict[str, Any] = {"path": error.path} if error.path else {}
    if isinstance(original, NexusError) and not isinstance(original, _OUR_FAULT):
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in original.problems]
        return {
            "message": original.message,
            **formatted,
            "extensions": {"code": original.code, "errors": problems},
        }
    if original is None:
        places = [{"line": place.line, "column": place.column} for place in error.locations or ()]
        extensions = {"code": "graphql_invalid"}
        return {"message": error.message, **formatted, "locations": places, "extensions": extensions}
    log.error("graphql_field_failed", exc_info=original, field=".".join(map(str, error.path or ())))
    return {
        "message": "Something went wrong on our side. Quote the request id when you ask about it.",
        **formatted,
        "extensions": {"code": "internal_error"},
    }
