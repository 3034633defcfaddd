"""``POST /graphql`` (GraphQL over HTTP)."""

import asyncio
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from inspect import isawaitable
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)
from graphql import execute as run_document
from graphql.validation import recommended_rules
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.core.errors import Unavailable, ValidationError
from nexus_marketing.core.values import parse_json
from nexus_marketing.db.retry import is_transient
from nexus_marketing.graphql.bounds import MAX_TOKENS, check_bounds
from nexus_marketing.graphql.errors import format_error
from nexus_marketing.graphql.loaders import GraphContext
from nexus_marketing.runtime import Context
from nexus_marketing.security.contexts import open_context
from nexus_marketing.security.repeats import repeatable
from nexus_marketing.services.idempotency import Answer

_RULES = tuple(dict.fromkeys((*specified_rules, *recommended_rules)))
_MEMBERS = frozenset({"query", "variables", "operationName", "extensions"})


def execute(request: Request) -> Response:
    """One operation: a query reads, a mutation is committed when it ends without an error."""
    query, variables, name = _read(request)
    schema: GraphQLSchema = request.registry["nexus.graphql"]
    document = _document(schema, query)
    if isinstance(document, list):
        return _respond(_dump({"errors": [format_error(error) for error in document]}), 400)
    operation = get_operation_ast(document, name)
    if operation is None:
        raise ValidationError.at("operationName", "unknown_operation", "Name one of the document's operations.")
    check_bounds(document, operation, variables)
    if operation.operation is OperationType.QUERY:
        return _respond(_run(schema, document, variables, name, _context(request, "read")))
    return _mutate(request, schema, document, variables, name)


def _mutate(
    request: Request, schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any], name: str | None
) -> Response:
    context = _context(request, "write")
    claim = repeatable(request)
    known = claim.recall(context) if claim else None
    if known is not None:
        response = _respond(known.body)
        response.headers["Idempotency-Replayed"] = "true"
        return response
    body = _run(schema, document, variables, name, context)
    if b'"errors":' in body[:10]:  # the first member, where there are any
        request.tm.doom()
    elif claim:
        claim.keep(context, Answer(200, body))
    return _respond(body)


def _run(
    schema: GraphQLSchema,
    document: DocumentNode,
    variables: Mapping[str, Any],
    name: str | None,
    context: Context,
) -> bytes:
    result = asyncio.run(_finish(schema, document, variables, name, context))
    for error in result.errors or ():
        original = error.original_error
        if original is not None and (is_transient(original) or isinstance(original, Unavailable)):
            raise original  # 503, and tried again where that is safe
    answer: dict[str, Any] = {"errors": [format_error(error) for error in result.errors]} if result.errors else {}
    return _dump({**answer, "data": result.data})


async def _finish(
    schema: GraphQLSchema,
    document: DocumentNode,
    variables: Mapping[str, Any],
    name: str | None,
    context: Context,
) -> ExecutionResult:
    # Loaders belong to the running loop from the moment they are made, hence a coroutine around a plain call.
    shared = GraphContext(context)
    result = run_document(schema, document, context_value=shared, variable_values=dict(variables), operation_name=name)
    if isawaitable(result):
        waiting: Awaitable[ExecutionResult] = result
        return await waiting
    return result


def _read(request: Request) -> tuple[str, Mapping[str, Any], str | None]:
    if request.content_type != "application/json":
        raise ValidationError.at("", "unsupported_media_type", "Send application/json.")
    body = parse_json(request.body)
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise ValidationError.at("query", "not_an_object", "Send an object with query; batches are off.")
    unknown = sorted(body.keys() - _MEMBERS)
    variables, name = body.get("variables") or {}, body.get("operationName")
    if unknown or not isinstance(variables, dict) or not isinstance(name, str | None):
        raise ValidationError.at(
            unknown[0] if unknown else "variables", "not_an_object", f"Members are {', '.join(sorted(_MEMBERS))}."
        )
    return str(body["query"]), variables, name


@lru_cache(maxsize=500)
def _document(schema: GraphQLSchema, query: str) -> DocumentNode | list[GraphQLError]:
    """A valid document, or what is wrong with it; documents repeat, and reading one costs more than running it."""
    try:
        document = parse(query, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        return [error]
    except RecursionError:
        return [GraphQLError("The document is nested too deeply.")]
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if any(node.operation is OperationType.SUBSCRIPTION for node in operations):
        return [GraphQLError("There are no subscriptions.")]
    return validate(schema, document, _RULES, max_errors=10) or document


def _context(request: Request, mode: str) -> Context:
    return open_context(request, request.identity.tenant_id, request.identity.actor, mode)


def _dump(answer: Mapping[str, Any]) -> bytes:
    return orjson.dumps(answer, default=str)


def _respond(body: bytes, status: int = 200) -> Response:
    return Response(body, status=status, content_type="application/json")
