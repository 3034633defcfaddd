"""Lists: ``limit``, ``cursor``, ``sort``, ``fields``, ``filter`` in; ``data``, ``has_more``, ``next`` out."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

import orjson
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import show
from nexus_marketing.core.conditions import Evaluation, Schema
from nexus_marketing.core.engagements import query_words
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.db.queries.listings import Listing, Wish, page, read_wish
from nexus_marketing.keys import Keys
from nexus_marketing.services.searches import search_page

_PARAMETERS = frozenset({"limit", "cursor", "sort", "fields", "filter"})
_SEARCHED = _PARAMETERS | {"q"}
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
    searchable: bool = False,
) -> Response:
    """One page of a listing as the request wishes it.

    Args:
        request: an authenticated one.
        listing: what may be seen.
        schema: names of the filter, asked for only when there is a filter.
        scope: values of the listing's own parameters.
        rendering: turns columns into what the API shows.
        searchable: whether ``q`` asks for words.
    """
    query = read_query(request, _SEARCHED if searchable else _PARAMETERS)
    wish = _wish(listing, query)
    bound = _bound(request.identity.tenant_id, listing, query)
    keys: Keys = request.registry["nexus.runtime"].keys
    if "cursor" in query:
        value, id_ = read_cursor(keys, query["cursor"], bound)
        wish = replace(wish, after=(value, id_))
    wish = replace(wish, parameters=scope or {})
    names = schema() if schema is not None and wish.filter else None
    context = request.nexus
    if "q" in query:
        found = search_page(context, listing, wish, query_words(query["q"]))
    else:
        found = page(context.session, listing, wish, Evaluation(context.now), names)
    documents = found.documents()
    return show(
        {
            "data": rendering(documents) if rendering else documents,
            "has_more": found.last is not None,
            "next": None if found.last is None else make_cursor(keys, found.last, bound),
        }
    )


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of a list, each given once.

    Raises:
        ValidationError: each that is not known, or given twice.
    """
    if not request.environ.get("QUERY_STRING"):
        return {}
    try:
        items = request.GET.mixed().items()
    except UnicodeDecodeError:
        raise ValidationError.at("", "not_utf8", "The query string is not UTF-8.") from None
    problems = [
        Problem(name, "unknown_parameter", f"Use {', '.join(sorted(known))}.") for name, _ in items if name not in known
    ]
    problems += [Problem(name, "given_twice", f"Give {name} once.") for name, value in items if isinstance(value, list)]
    if problems:
        raise ValidationError(problems=problems)
    return dict(items)


def asked_limit(query: Mapping[str, str]) -> int:
    """How many rows are asked for; 0 for what is no number, which no list allows."""
    text = query.get("limit", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else (0 if text else _DEFAULT_LIMIT)


def _wish(listing: Listing, query: Mapping[str, str]) -> Wish:
    return read_wish(
        listing,
        fields=query.get("fields", ""),
        sort=query.get("sort", ""),
        limit=asked_limit(query),
        filter_text=query.get("filter", ""),
    )


def _bound(tenant_id: int, listing: Listing, query: Mapping[str, str]) -> bytes:
    return bound_to(tenant_id, listing.name, *(query.get(name, "") for name in ("sort", "filter", "q")))


def bound_to(tenant_id: int, *parts: str) -> bytes:
    """What a cursor belongs to: it continues this list of this tenant and no other."""
    return blake2b(orjson.dumps([str(tenant_id), *parts]), digest_size=8).digest()


def make_cursor(keys: Keys, position: Any, bound: bytes) -> str:
    """A position in a list as text that nobody can make up."""
    payload = orjson.dumps(position)
    return urlsafe_b64encode(payload + keys.cursor_tag(bound + payload)).rstrip(b"=").decode()


def read_cursor(keys: Keys, text: str, bound: bytes) -> Any:
    """The position in a cursor of this list.

    Raises:
        ValidationError: it is another list's, or made up.
    """
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raw = b""
    payload, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if not payload or not compare_digest(keys.cursor_tag(bound + payload), tag):
        raise ValidationError.at(
            "cursor", "cursor_invalid", "Pass next of the page before, with the same sort and filter."
        )
    return orjson.loads(payload)
