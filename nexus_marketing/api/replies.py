"""What a client gets: JSON by orjson, with the resource's ETag and address."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pyramid.response import Response

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_NON_STR_KEYS
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a change. ``path`` is the resource's own address, ``document`` ``None`` for 204."""

    document: Any
    status: int = 200
    path: str = ""
    version: int | None = None


class ApiResponse(Response):
    """A response whose ``Location`` stays a path: an absolute one would repeat the caller's ``Host``."""

    def _abs_headerlist(self, _environ: dict[str, Any]) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = self._headerlist
        return headers


def dump(document: Any) -> bytes:
    """JSON bytes; aware datetimes as RFC 3339 with ``Z``."""
    return orjson.dumps(document, default=str, option=_OPTIONS)


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of bytes that are JSON already."""
    response = ApiResponse(body, status=status, content_type=_JSON)
    if headers:
        response.headerlist.extend(headers.items())
    return response


def show(document: Any, version: int | None = None) -> Response:
    """What a GET answers."""
    return json_response(dump(document), headers=None if version is None else {"ETag": f'"{version}"'})
