"""A small REST client: the demonstration uses the API like any other program."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class ApiError(Exception):
    """The API said no; the message is its own."""


class Client:
    """Speaks JSON with one server, as the holder of one key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def get(self, path: str) -> dict[str, Any]:
        """The document at a path."""
        return self._call("GET", path, None)

    def post(self, path: str, document: object | None = None) -> dict[str, Any]:
        """Create or act."""
        return self._call("POST", path, {} if document is None else document)

    def _call(self, method: str, path: str, document: object | None) -> dict[str, Any]:
        body = None if document is None else json.dumps(document).encode()
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read() or b"{}")
        if response.status >= 400:
            raise ApiError(f"{method} {path}: {response.status} {json.dumps(answer)}")
        return dict(answer)
