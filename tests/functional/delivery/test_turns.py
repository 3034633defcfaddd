"""Sends of several tenants take turns, and what somebody waits for goes first."""

from dataclasses import replace

import pytest

from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_leads, make_tenant
from tests.functional.delivery.conftest import SENDER, Stage

pytestmark = pytest.mark.req("SCL-001", "SCL-004")

CHUNK, LEADS = 5, 20


def stage_of(runtime: Runtime, tenant_id: int) -> Stage:
    stage = Stage(runtime, tenant_id, make_leads(runtime, tenant_id, LEADS))
    stage.set_up({"email": SENDER})
    return stage


@pytest.fixture
def crowd(runtime: Runtime) -> tuple[Stage, Stage]:
    """A tenant with four sends, and one with a single send that was launched after all of them."""
    staged = replace(
        runtime, channels={"email": RecordingChannel()}, settings=replace(runtime.settings, chunk_size=CHUNK)
    )
    busy, other = (stage_of(staged, make_tenant(runtime, name)) for name in ("busy", "other"))
    for _ in range(4):
        busy.launch("email", obeys_caps=False)
    other.launch("email", obeys_caps=False)
    return busy, other


def order(stage: Stage) -> list[str]:
    """Whose message left, one after the other, by tenant."""
    channel = stage.runtime.channels["email"]
    assert isinstance(channel, RecordingChannel)
    return [each.message_id.rpartition(".t")[2].partition("@")[0] for each in channel.sent]


def test_a_tenant_with_many_sends_gets_no_more_than_one_with_a_single_one(crowd):
    busy, other = crowd
    busy.work()
    left = order(busy)
    assert len(left) == 5 * LEADS
    # Chunk by chunk: as long as both have something to send, each has had as much as the other.
    both = 2 * LEADS
    for end in range(0, both + 1, 2 * CHUNK):
        assert left[:end].count(str(other.tenant_id)) == end // 2


def test_a_message_that_somebody_waits_for_overtakes_all_others(crowd):
    busy, other = crowd
    other.launch("email", message_class="transactional")
    busy.work()
    assert order(busy)[:LEADS] == [str(other.tenant_id)] * LEADS
