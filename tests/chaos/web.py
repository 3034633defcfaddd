"""A client of the API as other programs are, over its own connection."""

import http.client
import json
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

from nexus_marketing.services.tenants import create_key
from tests.chaos.stage import Stage, begin_campaign
from tests.chaos.verdicts import wait_until

_TIMEOUT_SECONDS = 60.0


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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/__lbheartbeat__")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
