"""A new sender gets more to send after days that were good."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.services.warm_ups import warm_up_rows
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004")

MakeScene = Callable[..., Scene]
MORNING = datetime(2026, 3, 2, 9, tzinfo=UTC)
SENDER = "news@shop.example"


def days_of(scene: Scene, database_time: DatabaseTime, days: int) -> list[int]:
    """How many left on each day; a worker looks morning and evening."""
    counts = []
    for day in range(days):
        for hours in (0, 10):
            database_time.set_to(MORNING + timedelta(days=day, hours=hours, minutes=day))
            scene.work()
        counts.append(len(scene.channel.sent) - sum(counts))
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            assert broken_invariants(ctx.session) == {}
    return counts


def plan(scene: Scene, *daily: int) -> None:
    with scene.runtime.work(None, role="owner") as ctx:
        settings = {"warm_up": [{"sender": SENDER, "daily": list(daily)}]}
        ctx.session.get_one(Tenant, scene.tenant_id).settings = settings


def standing(scene: Scene) -> dict[str, object]:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        return warm_up_rows(ctx)[0]


def test_more_leave_each_day_until_the_plan_is_through(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(60, chunk_size=25)
    database_time.set_to(MORNING)
    plan(scene, 5, 10, 20)
    scene.launch(message_class="transactional")
    assert standing(scene)["day"] == 1
    assert days_of(scene, database_time, 4) == [5, 10, 20, 25]
    assert standing(scene) == {
        "sender": SENDER,
        "day": 4,
        "of": 3,
        "allowed": None,
        "left": 25,
        "bounced": 0,
        "complained": 0,
    }
    assert scene.states() == ["accepted"] * 60
    assert scene.send().status == "completed"


def test_a_day_with_too_many_bounces_is_repeated(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(40, {"person3@example.org": [OutcomeKind.PERMANENT_RECIPIENT]}, chunk_size=25)
    database_time.set_to(MORNING)
    plan(scene, 5, 10, 20)
    scene.launch(message_class="transactional")
    assert days_of(scene, database_time, 1) == [4]
    assert standing(scene) == {
        "sender": SENDER,
        "day": 1,
        "of": 3,
        "allowed": 5,
        "left": 5,
        "bounced": 1,
        "complained": 0,
    }
    assert days_of(scene, database_time, 3)[1:] == [5, 10]


def test_a_day_on_which_nothing_was_sent_proves_nothing(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(3)
    database_time.set_to(MORNING)
    plan(scene, 5, 10)
    scene.launch()
    assert days_of(scene, database_time, 3) == [3, 0, 0]
    assert standing(scene)["day"] == 1
