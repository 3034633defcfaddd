"""What failed, or nobody knows of: listed, replayed through the gate, accepted (BEHAVIOUR.md 5.2)."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.core.errors import Conflict, NotFound
from nexus_marketing.db.models import AuditEntry
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.dead_letters import Chosen, dead_letters
from nexus_marketing.services import dead_letters as services
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.dead_letters import accept_unknown, replay_dead_letters
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P2-004", "REL-002", "REL-005")

MakeScene = Callable[..., Scene]
FAILED, UNKNOWN = DeliveryState.FAILED, DeliveryState.UNKNOWN


@pytest.fixture
def ended(make_scene: MakeScene, database_time: DatabaseTime) -> Scene:
    """Six people: one was put off until it was enough, one refused, of one nobody knows, three got it."""
    script = {
        "person1@example.org": [OutcomeKind.TRANSIENT] * 8,
        "person2@example.org": [OutcomeKind.PERMANENT_RECIPIENT],
        "person3@example.org": [OutcomeKind.UNKNOWN],
    }
    scene = make_scene(6, script=script)
    scene.launch()
    for _ in range(9):
        scene.work()
        database_time.advance(hours=7)
    assert scene.states() == ["failed(exhausted)", "failed(permanent_recipient)", "unknown", *["accepted"] * 3]
    assert scene.send().status == "completed"
    return scene


def letters(scene: Scene, state: str, *reasons: str) -> list[int]:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        return [row["seq"] for row in dead_letters(ctx.session, Chosen(scene.campaign_id, state, reasons), (0, 0), 100)]


def replay(scene: Scene, state: DeliveryState = FAILED, **options: object) -> int:
    with scene.runtime.work(scene.tenant_id) as ctx:
        return replay_dead_letters(ctx, scene.campaign_id, state, **options)  # type: ignore[arg-type]


def test_they_are_listed_by_what_became_of_them(ended: Scene) -> None:
    assert letters(ended, FAILED) == [1, 2]
    assert letters(ended, FAILED, "exhausted") == [1]
    assert letters(ended, UNKNOWN) == [3]


def test_a_replay_sends_what_was_put_off_too_often_and_nothing_twice(ended: Scene) -> None:
    before = len(ended.channel.sent)
    assert replay(ended) == 1
    assert ended.send().status == "running"
    with ended.runtime.work(ended.tenant_id, mode="read") as ctx:
        assert broken_invariants(ctx.session) == {}
    ended.work()
    assert ended.states() == ["accepted", "failed(permanent_recipient)", "unknown", *["accepted"] * 3]
    assert ended.send().status == "completed"
    sent = ended.channel.sent[before:]
    assert [each.address for each in sent] == ["person1@example.org"]
    # As at the first try: the recipient's server can tell that it is the same message.
    assert sent[0].message_id == f"<r1.s{ended.send_id}.t{ended.tenant_id}@shop.example>"
    assert replay(ended) == 0


def test_the_gate_is_asked_again(ended: Scene) -> None:
    ended.suppress(1)
    assert replay(ended) == 1
    ended.work()
    assert ended.states()[0] == "skipped(suppressed)"


def test_what_was_refused_for_good_is_taken_up_only_by_name(ended: Scene) -> None:
    assert replay(ended, reason="permanent_recipient") == 1
    ended.work()
    assert ended.states()[:2] == ["failed(exhausted)", "accepted"]


def test_of_what_nobody_knows_a_person_decides(ended: Scene) -> None:
    with ended.runtime.work(ended.tenant_id) as ctx:
        assert accept_unknown(ctx, ended.campaign_id) == 1
    assert ended.states()[2] == "accepted(operator)"
    with ended.runtime.work(ended.tenant_id, mode="read") as ctx:
        numbers = campaign_analytics(ctx, ended.campaign_id)
        actions = ctx.session.scalars(select(AuditEntry.action).where(AuditEntry.action.like("deliveries.%"))).all()
    assert (numbers["accepted"], numbers["unknown"]) == (4, 0)
    assert actions == ["deliveries.accepted"]
    assert replay(ended, UNKNOWN) == 0


def test_or_risks_a_second_copy(ended: Scene) -> None:
    assert replay(ended, UNKNOWN, lead_id=ended.lead_ids[0]) == 0
    assert replay(ended, UNKNOWN, lead_id=ended.lead_ids[2]) == 1
    ended.work()
    assert ended.states()[2] == "accepted"


def test_many_are_taken_up_in_several_calls(ended: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "AT_ONCE", 1)
    monkeypatch.setattr(services, "REPLAYED", ("exhausted", "permanent_recipient"))
    assert [replay(ended) for _ in range(3)] == [1, 1, 0]


def test_a_replay_that_stopped_itself_goes_on_with_the_next(ended: Scene, database_time: DatabaseTime) -> None:
    ended.channel.script["person1@example.org"] = [OutcomeKind.PERMANENT_SENDER]
    assert replay(ended) == 1
    ended.work()
    assert (ended.send().status, ended.campaign().status) == ("paused", "completed")
    replay(ended)
    database_time.advance(hours=1)
    ended.work()
    assert ended.states()[0] == "accepted"
    assert ended.send().status == "completed"


def test_of_a_cancelled_campaign_nothing_is_sent(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    scene.launch()
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "cancel")
    with pytest.raises(Conflict, match="cancelled"):
        replay(scene)


def test_another_tenants_campaign_is_not_found(ended: Scene, other_tenant: int) -> None:
    with ended.runtime.work(other_tenant) as ctx:
        for act in (
            lambda: replay_dead_letters(ctx, ended.campaign_id, FAILED),
            lambda: accept_unknown(ctx, ended.campaign_id),
        ):
            with pytest.raises(NotFound):
                act()
        assert ctx.session.scalar(select(func.count()).select_from(AuditEntry)) == 0
