"""Servers of social networks on ports of this machine: they keep what is posted, and answer as the real ones do."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.contract.channels.servers import Heard, HttpServer, Reply

TOKEN = "t0ken-of-the-shop"
PASSWORD = "abcd-efgh-ijkl-mnop"
DID = "did:plc:shop"


def told(status: int, document: Any, **headers: str) -> Reply:
    """An answer of an API."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **named})


def path_of(heard: Heard) -> str:
    return urlsplit(heard.path).path


def query_of(heard: Heard) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(heard.path).query).items()}


class MastodonServer(HttpServer):
    """Keeps statuses; one with an ``Idempotency-Key`` that it knows is not made again."""

    def __init__(self) -> None:
        super().__init__(choose=path_of, reply=self._reply_to)
        self.statuses: dict[str, dict[str, Any]] = {}
        #: Numbers of statuses that are somebody else's.
        self.others: set[str] = set()
        self.lists: dict[str, Any] = {}

    def _reply_to(self, heard: Heard) -> Reply:
        if heard.headers.get("authorization") != f"Bearer {TOKEN}":
            return told(401, {"error": "The access token is invalid"})
        path = path_of(heard)
        if path == "/api/v1/accounts/verify_credentials":
            return told(200, {"id": "1", "acct": "Shop"})
        if path == "/api/v1/statuses":
            key = heard.headers["idempotency-key"]
            status = {"id": str(len(self.statuses) + 1), **json.loads(heard.body)}
            return told(200, self.statuses.setdefault(key, status))
        if path.removeprefix("/api/v1/statuses/").isdigit():
            return self._reply_about(heard.method, path.rpartition("/")[2])
        found = self.lists.get(heard.path, self.lists.get(path))
        if found is None:
            return told(404, {"error": "Record not found"})
        document, link = found if isinstance(found, tuple) else (found, "")
        return told(200, document, **({"Link": link} if link else {}))

    def _reply_about(self, method: str, number: str) -> Reply:
        """One status: whoever deletes another's is told that there is none."""
        key = next((key for key, each in self.statuses.items() if each["id"] == number), None)
        if key is None or (method == "DELETE" and number in self.others):
            return told(404, {"error": "Record not found"})
        return told(200, self.statuses.pop(key) if method == "DELETE" else self.statuses[key])


class BlueskyServer(HttpServer):
    """Gives logins, and writes a record where there is none of its key."""

    def __init__(self) -> None:
        super().__init__(choose=path_of, reply=self._reply_to)
        self.records: dict[str, dict[str, Any]] = {}
        self.lists: dict[tuple[str, str], Any] = {}
        self.logins = 0
        self.expires = 4_102_444_800

    @property
    def token(self) -> str:
        """The login that is good now: a token that says when it ends."""
        claims = base64.urlsafe_b64encode(json.dumps({"exp": self.expires}).encode()).decode().rstrip("=")
        return f"e30.{claims}.login{self.logins}"

    def _reply_to(self, heard: Heard) -> Reply:
        method = path_of(heard).removeprefix("/xrpc/")
        if method == "com.atproto.server.createSession":
            body = json.loads(heard.body)
            if body != {"identifier": "shop.bsky.social", "password": PASSWORD}:
                return told(401, {"error": "AuthenticationRequired", "message": "Invalid identifier or password"})
            self.logins += 1
            return told(200, {"did": DID, "handle": body["identifier"], "accessJwt": self.token, "refreshJwt": "r"})
        if heard.headers.get("authorization") != f"Bearer {self.token}":
            return told(400, {"error": "ExpiredToken", "message": "Token has expired"})
        if method == "com.atproto.repo.putRecord":
            return self._put(json.loads(heard.body))
        if method == "com.atproto.repo.deleteRecord":
            body = json.loads(heard.body)
            if body["repo"] != DID or body["collection"] != "app.bsky.feed.post":
                return told(400, {"error": "InvalidRequest"})
            self.records.pop(body["rkey"], None)
            return told(200, {"commit": {"cid": "bafy2", "rev": "1"}})
        query = query_of(heard)
        found = self.lists.get((method, query.get("cursor", "")))
        return told(200, found) if found is not None else told(400, {"error": "NotFound", "message": "Post not found"})

    def _put(self, body: dict[str, Any]) -> Reply:
        if body["repo"] != DID or body["swapRecord"] is not None:
            return told(400, {"error": "InvalidRequest"})
        if body["rkey"] in self.records:
            return told(400, {"error": "InvalidSwap", "message": "Record was at bafy1"})
        self.records[body["rkey"]] = body["record"]
        return told(200, {"uri": f"at://{DID}/{body['collection']}/{body['rkey']}", "cid": "bafy1"})
