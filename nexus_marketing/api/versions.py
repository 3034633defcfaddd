"""Optimistic locking at the door: ``ETag`` out, ``If-Match`` or a body ``version`` in (DESIGN.md 4.10)."""

import re
from collections.abc import MutableMapping
from typing import Any

from pyramid.request import Request

from nexus_marketing.api.errors import HttpFault

#: The rule for ``version`` in the schema of a PATCH.
VERSION = {"type": "integer", "min": 1}
_ETAG = re.compile(r'"([0-9]{1,18})"\Z', re.ASCII)


def expected_version(request: Request, body: MutableMapping[str, Any] | None = None) -> int | None:
    """The version a change is meant for; takes ``version`` out of the body.

    A stale body version answers 409, a stale ``If-Match`` 412 (RFC 9110 13.1.1).

    Raises:
        HttpFault: 400, the header is not one of our entity tags, or contradicts the body.
    """
    in_body = body.pop("version", None) if body is not None else None
    header = request.environ.get("HTTP_IF_MATCH", "").strip()
    if not header or header == "*":
        return in_body
    match = _ETAG.match(header)
    if match is None:
        raise HttpFault(400, "bad_if_match", 'If-Match takes the ETag of the resource, for example "3".')
    in_header = int(match.group(1))
    if in_body not in (None, in_header):
        raise HttpFault(400, "bad_if_match", "If-Match and the body name different versions: send one of them.")
    request.environ["nexus.if_match"] = True
    return in_header
