"""Lists: ``limit``, ``cursor``, ``sort``, ``fields``, ``filter`` in; ``data``, ``has_more``, ``next`` out."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

import orjson
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import show
from nexus_marketing.core.conditions import Evaluation, Schema
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.db.queries.listings import Listing, Page, Wish, page, read_wish
from nexus_marketing.keys import Keys

_PARAMETERS = frozenset({"limit", "cursor", "sort", "fields", "filter"})
_DEFAULT_LIMIT = 50
_TAG_BYTES = 8

Rendering = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def respond_page(
    request: Request,
    listing: Listing,
    *,
    schema: Callable[[], Schema] | None = None,
    scope: Mapping[str, Any] | None = None,
    rendering: Rendering | None = None,
) -> Response:
    """One page of a listing as the request wishes it.

    Args:
        request: an authenticated one.
        listing: what may be seen.
        schema: names of the filter, asked for only when there is a filter.
        scope: values of the listing's own parameters.
        rendering: turns columns into what the API shows.
    """
    query = _query(request)
    wish = _wish(listing, query)
    bound = _bound(request.identity.tenant_id, listing, query)
    keys: Keys = request.registry["nexus.runtime"].keys
    if "cursor" in query:
        wish = replace(wish, after=_read_cursor(keys, query["cursor"], bound))
    wish = replace(wish, parameters=scope or {})
    names = schema() if schema is not None and wish.filter else None
    context = request.nexus
    found = page(context.session, listing, wish, Evaluation(context.now), names)
    documents = found.documents()
    return show(
        {
            "data": rendering(documents) if rendering else documents,
            "has_more": found.last is not None,
            "next": _cursor(keys, found, bound),
        }
    )


def _query(request: Request) -> dict[str, str]:
    if not request.environ.get("QUERY_STRING"):
        return {}
    try:
        items = request.GET.mixed().items()
    except UnicodeDecodeError:
        raise ValidationError.at("", "not_utf8", "The query string is not UTF-8.") from None
    problems = [
        Problem(name, "unknown_parameter", f"Use {', '.join(sorted(_PARAMETERS))}.")
        for name, _ in items
        if name not in _PARAMETERS
    ]
    problems += [Problem(name, "given_twice", f"Give {name} once.") for name, value in items if isinstance(value, list)]
    if problems:
        raise ValidationError(problems=problems)
    return dict(items)


def _wish(listing: Listing, query: Mapping[str, str]) -> Wish:
    text = query.get("limit", "")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else (0 if text else _DEFAULT_LIMIT)
    return read_wish(
        listing,
        fields=query.get("fields", ""),
        sort=query.get("sort", ""),
        limit=limit,
        filter_text=query.get("filter", ""),
    )


def _bound(tenant_id: int, listing: Listing, query: Mapping[str, str]) -> bytes:
    """What a cursor belongs to: it continues this list of this tenant and no other."""
    parts = [str(tenant_id), listing.name, query.get("sort", ""), query.get("filter", "")]
    return blake2b(orjson.dumps(parts), digest_size=8).digest()


def _cursor(keys: Keys, found: Page, bound: bytes) -> str | None:
    if found.last is None:
        return None
    payload = orjson.dumps(found.last)
    return urlsafe_b64encode(payload + keys.cursor_tag(bound + payload)).rstrip(b"=").decode()


def _read_cursor(keys: Keys, text: str, bound: bytes) -> tuple[Any, int]:
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raw = b""
    payload, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if not payload or not compare_digest(keys.cursor_tag(bound + payload), tag):
        raise ValidationError.at(
            "cursor", "cursor_invalid", "Pass next of the page before, with the same sort and filter."
        )
    value, id_ = orjson.loads(payload)
    return value, id_
