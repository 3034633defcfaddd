"""Many callers at once: one launch, one answer per key, no lost update (SECURITY.md, R05, R06, R17).

Callers go through the whole application, each with its own client, on both databases.
"""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from nexus_marketing.db.models import ChannelAccount, History, Send
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_segment, make_template
from tests.functional.conftest import Client

pytestmark = [pytest.mark.req("REL-003", "REL-006", "REL-001"), pytest.mark.slow]

#: Campaigns of R06, and an eightieth of it the rounds of each writer of R17; SECURITY.md asks for 10,000: NEXUS_RACES=10000.
CAMPAIGNS = int(os.environ.get("NEXUS_RACES", "100"))
CONTENT = {"subject": "Hello", "text": "Hello\n{{ postal_address }}\n{{ unsubscribe_url }}"}
SENDER = {"from": "news@example.org", "from_name": "Acme", "postal_address": "1 Street"}


@pytest.fixture
def drafts(runtime: Runtime, tenant: int) -> Callable[[int], list[int]]:
    """Make so many campaigns that can be launched."""
    runtime.channels["email"] = RecordingChannel()  # type: ignore[index]  # a dict in tests
    segment, template = make_segment(runtime, tenant), make_template(runtime, tenant, content=CONTENT)
    with runtime.work(tenant) as ctx:
        account = {"type": "email", "name": "main", "config": SENDER, "enabled": True}
        ctx.session.add(ChannelAccount(**account, created_at=ctx.now, updated_at=ctx.now))

    def make(count: int) -> list[int]:
        refers = {"segment_id": segment, "template_id": template}
        return [make_campaign(runtime, tenant, f"c{number}", **refers) for number in range(count)]

    return make


def at_once(calls: list[Callable[[], Any]], workers: int) -> list[Any]:
    with ThreadPoolExecutor(workers) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


def count(runtime: Runtime, tenant: int, model: Any, *where: Any) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalars(select(func.count()).select_from(model).where(*where)).one()


@pytest.mark.req("R05")
def test_one_campaign_launched_by_two_hundred_is_launched_once(
    client: Client, runtime: Runtime, tenant: int, drafts: Callable[[int], list[int]], unlimited: None
) -> None:
    [campaign] = drafts(1)
    path = f"/api/v1/campaigns/{campaign}/launch"
    statuses = Counter(at_once([lambda: client.send("POST", path).status_int] * 200, 20))
    assert statuses == {200: 1, 409: 199}
    assert count(runtime, tenant, Send) == 1
    assert count(runtime, tenant, History, History.event == "launch") == 1


@pytest.mark.req("R06")
def test_each_launch_sent_three_times_with_its_key_happens_once(
    client: Client, runtime: Runtime, tenant: int, drafts: Callable[[int], list[int]], unlimited: None
) -> None:
    ids = drafts(CAMPAIGNS)

    def launch(campaign: int) -> tuple[int, int, bytes]:
        headers = {**client.headers, "Idempotency-Key": f"launch-{campaign}"}
        answer = client.app.post(f"/api/v1/campaigns/{campaign}/launch", headers=headers, status="*")
        return campaign, answer.status_int, answer.body

    calls = [lambda campaign=campaign: launch(campaign) for campaign in ids for _ in range(3)]
    answers = at_once(calls, 50)
    assert {status for _, status, _ in answers} <= {200, 409}  # 409 while the first of its key is under way
    bodies: dict[int, set[bytes]] = {campaign: set() for campaign in ids}
    for campaign, status, body in answers:
        if status == 200:
            bodies[campaign].add(body)
    assert {len(each) for each in bodies.values()} == {1}
    assert count(runtime, tenant, Send) == len(ids)
    assert count(runtime, tenant, History, History.event == "launch") == len(ids)


@pytest.mark.req("R17")
def test_no_update_of_many_writers_is_lost(
    client: Client, runtime: Runtime, tenant: int, drafts: Callable[[int], list[int]], unlimited: None
) -> None:
    [campaign] = drafts(1)
    path = f"/api/v1/campaigns/{campaign}"

    def write() -> list[int]:
        statuses = []
        for _ in range(max(8, CAMPAIGNS // 80)):
            now = client.get(path).json
            body = {"data": {"sum": now["data"].get("sum", 0) + 1}, "version": now["version"]}
            answer = client.send("PATCH", path, body)
            statuses.append(answer.status_int)
            if answer.status_int == 409:
                assert answer.json["code"] == "stale_version"
                assert answer.json["current_version"] > now["version"]
        return statuses

    start = client.get(path).json["version"]
    statuses = Counter(status for each in at_once([write] * 64, 16) for status in each)
    end = client.get(path).json
    assert set(statuses) <= {200, 409}
    assert end["version"] - start == statuses[200] == end["data"]["sum"]
    assert count(runtime, tenant, Send) == 0
