"""What a client sends: JSON, checked against a Cerberus schema."""

from collections.abc import Collection
from typing import Any

from pyramid.request import Request

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.schemas import Schema, check
from nexus_marketing.core.values import parse_json

_JSON_TYPES = ("application/json", "application/merge-patch+json")


def read_json(request: Request) -> Any:
    """The body as a canonical JSON value.

    Raises:
        ValidationError: it is not declared as JSON (415), is not JSON (400), or holds a value that cannot
            be stored (422).
    """
    if request.content_type not in _JSON_TYPES:
        raise ValidationError.at(
            "", "unsupported_media_type", f"Send application/json, not {request.content_type or 'an untyped body'}."
        )
    return parse_json(request.body)


def read_document(request: Request) -> dict[str, Any]:
    """The body as an object, not held against anything yet."""
    document = read_json(request)
    if not isinstance(document, dict):
        raise ValidationError.at("", "not_an_object", "Send a JSON object.")
    return document


def read_object(
    request: Request, schema: Schema, read_only: Collection[str] = (), *, patch: bool = False
) -> dict[str, Any]:
    """The body as an object that fits the schema.

    Args:
        request: with the body.
        schema: Cerberus rules by field.
        read_only: fields that exist but are the server's to write; named as such when sent.
        patch: missing fields are left alone; at least one must be there.
    """
    document = read_document(request)
    check(document, schema, read_only, patch=patch)
    if patch and not document.keys() - {"version"}:
        raise ValidationError.at("", "nothing_to_change", f"Name a field to change: {', '.join(sorted(schema))}.")
    return document
