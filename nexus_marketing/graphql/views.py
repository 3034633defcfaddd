"""``POST /graphql`` (GraphQL over HTTP)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationType,
    get_operation_ast,
)
from graphql import execute as run_document
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.core.errors import QueryTimeout, Unavailable, ValidationError
from nexus_marketing.core.values import parse_json
from nexus_marketing.db.retry import is_timeout, is_transient
from nexus_marketing.graphql.bounds import TIMEOUT_SECONDS, check_bounds
from nexus_marketing.graphql.documents import Documents
from nexus_marketing.graphql.errors import format_error
from nexus_marketing.graphql.loaders import GraphContext
from nexus_marketing.runtime import Context
from nexus_marketing.security.contexts import open_context
from nexus_marketing.security.repeats import repeatable
from nexus_marketing.services.idempotency import Answer
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_MEMBERS = frozenset({"query", "variables", "operationName", "extensions"})


def execute(request: Request) -> Response:
    """One operation: a query reads, a mutation is committed when it ends without an error."""
    query, variables, name = _read(request)
    documents: Documents = request.registry["nexus.graphql"]
    document = documents.read(query)
    if isinstance(document, list):
        return _respond(_dump({"errors": [format_error(error) for error in document]}), 400)
    operation = get_operation_ast(document, name)
    if operation is None:
        raise ValidationError.at("operationName", "unknown_operation", "Name one of the document's operations.")
    check_bounds(document, operation, variables)
    run = _Run(documents.schema, document, variables, name, request.registry["nexus.now_seconds"])
    if operation.operation is OperationType.QUERY:
        return _respond(run.answer(_context(request, "read")))
    return _mutate(request, run)


def _mutate(request: Request, run: "_Run") -> Response:
    context = _context(request, "write")
    claim = repeatable(request)
    known = claim.recall(context) if claim else None
    if known is not None:
        response = _respond(known.body)
        response.headers["Idempotency-Replayed"] = "true"
        return response
    body = run.answer(context)
    if b'"errors":' in body[:10]:  # the first member, where there are any
        request.tm.doom()
    elif claim:
        claim.keep(context, Answer(200, body))
    return _respond(body)


@dataclass(frozen=True, slots=True)
class _Run:
    """A document that may run, with what it runs on."""

    schema: GraphQLSchema
    document: DocumentNode
    variables: Mapping[str, Any]
    name: str | None
    now_seconds: Callable[[], float]

    def answer(self, context: Context) -> bytes:
        """The body of the answer; what goes away by itself is raised, to be tried again or told as 503."""
        result = asyncio.run(self._finish(context))
        for error in result.errors or ():
            original = error.original_error
            if original is None:
                continue
            if is_timeout(original) or isinstance(original, QueryTimeout):
                return _timed_out(error)
            if is_transient(original) or isinstance(original, Unavailable):
                raise original
        answer: dict[str, Any] = {"errors": [format_error(error) for error in result.errors]} if result.errors else {}
        return _dump({**answer, "data": result.data})

    async def _finish(self, context: Context) -> ExecutionResult:
        # Loaders belong to the running loop from the moment they are made, hence a coroutine around a plain call.
        result = run_document(
            self.schema,
            self.document,
            context_value=GraphContext(context, self.now_seconds, TIMEOUT_SECONDS),
            variable_values=dict(self.variables),
            operation_name=self.name,
        )
        if isawaitable(result):
            waiting: Awaitable[ExecutionResult] = result
            return await waiting
        return result


def _timed_out(error: GraphQLError) -> bytes:
    """One error for the whole document: the transaction is over, and what else failed failed for that."""
    log.warning("graphql_timed_out", field=".".join(map(str, error.path or ())))
    told = GraphQLError("", path=error.path, original_error=QueryTimeout())
    return _dump({"errors": [format_error(told)], "data": None})


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


def _context(request: Request, mode: str) -> Context:
    identity = request.identity
    return open_context(request, identity.tenant_id, identity.actor, mode, timeout_seconds=TIMEOUT_SECONDS)


def _dump(answer: Mapping[str, Any]) -> bytes:
    return orjson.dumps(answer, default=str)


def _respond(body: bytes, status: int = 200) -> Response:
    return Response(body, status=status, content_type="application/json")
