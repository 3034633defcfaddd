"""A client of the API as other programs are, over its own connection."""

import http.client
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.services.tenants import create_key
from tests.chaos.judge import query
from tests.chaos.stage import Stage, begin_campaign
from tests.chaos.verdicts import wait_until

_TIMEOUT_SECONDS = 60.0
#: So soon there is an answer, whatever is broken.
_ANSWER_SECONDS = 15.0
_PATIENCE_SECONDS = 0.1


@dataclass(slots=True)
class Caller:
    """Somebody with a key to the stage's server."""

    connection: http.client.HTTPConnection
    key: str
    template_id: int
    launched: int = 0

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """When the server answers."""
        with stage.runtime.work(stage.tenant_id, role="app") as ctx:
            key = create_key(ctx, "chaos", ["*"])[1]
        stage.campaign_id = begin_campaign(stage, "first")
        stage.send_id = 1
        wait_until(lambda: answers(stage.server_port))
        connection = http.client.HTTPConnection("127.0.0.1", stage.server_port, timeout=_TIMEOUT_SECONDS)
        return cls(connection, key, stage.template_id, launched=1)

    def launch(self) -> int:
        """Create a campaign for everybody and launch it; which one."""
        values = {"name": uuid4().hex, "segment_id": "1", "template_id": str(self.template_id), "obeys_caps": False}
        campaign_id = int(self._post("/api/v1/campaigns", values)["id"])
        self._post(f"/api/v1/campaigns/{campaign_id}/launch", {})
        self.launched += 1
        return campaign_id

    def _post(self, path: str, values: dict[str, Any]) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid4().hex,
        }
        self.connection.request("POST", path, json.dumps(values), headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status >= 300:
            raise AssertionError(f"POST {path} was answered {answer.status}: {body.decode('utf-8', 'replace')[:500]}")
        return dict(json.loads(body))


class Reader(threading.Thread):
    """Somebody whose mail program asks for the pixel, and who follows the link: nobody tells them of our trouble."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        sign, whose = stage.runtime.keys.tokens.sign, {"tenant_id": stage.tenant_id, "send_id": stage.send_id}
        self._asks = {
            f"/t/o/{sign(Token(TokenKind.OPEN, seq=1, lead_id=1, **whose))}": 200,
            f"/t/c/{sign(Token(TokenKind.CLICK, seq=1, lead_id=1, **whose))}": 302,
        }
        self._port, self._ended = stage.server_port, threading.Event()
        self.answered: Counter[int] = Counter()
        self.complaints: list[str] = []
        wait_until(lambda: answers(self._port))
        self.start()

    def run(self) -> None:
        while not self._ended.wait(_PATIENCE_SECONDS):
            for path, expected in self._asks.items():
                try:
                    status = asked(self._port, path)
                except OSError as error:
                    self.complaints.append(f"{path[:5]} was not answered: {type(error).__name__}")
                    continue
                self.answered[status] += 1
                if status != expected:
                    self.complaints.append(f"{path[:5]} was answered {status}")

    def finish(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()


class Writer(threading.Thread):
    """A program that creates leads one after the other, each with one key until it is told that it is there.

    What is called ``written`` was created by it, with addresses by number.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        with stage.runtime.work(stage.tenant_id, role="app") as ctx:
            self._key = create_key(ctx, "writer", ["*"])[1]
        # The stage's people were given ids by hand.
        query(stage.dsn, f"SELECT setval(pg_get_serial_sequence('marketing_leads', 'id'), {2 * stage.audience})")
        self._port, self._ended = stage.server_port, threading.Event()
        self.created = self.refused = 0
        self.complaints: list[str] = []
        wait_until(lambda: answers(self._port))
        self.start()

    def run(self) -> None:
        word, key = uuid4().hex, uuid4().hex
        while not self._ended.is_set():
            try:
                status, patience, body = self._create(f"{word}.{self.created}@inbox.example", key)
            except OSError as error:
                self.complaints.append(f"the API did not answer: {type(error).__name__}")
                continue
            if status == 201:
                self.created, key = self.created + 1, uuid4().hex
            elif status == 503 and patience is not None:
                self.refused += 1
                self._ended.wait(_PATIENCE_SECONDS)
            else:
                self.complaints.append(f"the API answered {status}, Retry-After {patience}: {body[:300]}")
                self._ended.wait(_PATIENCE_SECONDS)
        self.complaints = list(dict.fromkeys(self.complaints))[:5]

    def finish(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()

    def _create(self, email: str, key: str) -> tuple[int, str | None, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Idempotency-Key": key}
        try:
            connection.request("POST", "/api/v1/leads", json.dumps({"email": email, "name": "written"}), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Retry-After"), answer.read().decode("utf-8", "replace")
        finally:
            connection.close()


def unsubscribe(connection: http.client.HTTPConnection, token: str) -> int:
    """One click as a mail program does it (RFC 8058); the status."""
    form = urlencode({"List-Unsubscribe": "One-Click"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", f"/u/{token}", form, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def answers(port: int) -> bool:
    """Whether the server there is up."""
    try:
        return asked(port, "/__lbheartbeat__") == 200
    except OSError:
        return False


def asked(port: int, path: str) -> int:
    """The status of a page.

    Raises:
        OSError: there is no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
