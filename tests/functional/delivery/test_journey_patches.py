"""Words put right for those on their way: what was not sent says it in the new ones, and everything else stays as it is."""

from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import Delivery, JourneyStep, JourneyVersion, Send, Template
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys import patching as journey_patching
from nexus_marketing.services.journeys.patching import patch_journey
from nexus_marketing.services.journeys.records import update_journey
from nexus_marketing.services.templates import update_template
from tests.functional.delivery.conftest import CONTENT
from tests.functional.delivery.journeys import API, Way, message

pytestmark = pytest.mark.req("US-020", "FR-P3-011")

NODES: dict[str, Any] = {
    "hello": message(next="wait"),
    "wait": {"type": "delay", "for": "1 day", "next": "again"},
    "again": message(next="end", obeys_quiet_hours=True),
}
QUIET = {"quiet_hours": [{"from": "09:00", "to": "12:00", "spread": "1 minute"}]}


def rewrite(way: Way, subject: str = "Ahoy") -> None:
    """The typo in the template is corrected."""
    with way.runtime.work(way.tenant) as ctx:
        template = ctx.session.scalars(select(Template).where(Template.name == "email")).one()
        update_template(ctx, template.id, {"content": {**CONTENT, "subject": subject}})


def patch(way: Way, *, dry_run: bool = False) -> dict[str, Any]:
    with way.runtime.work(way.tenant) as ctx:
        found = patch_journey(ctx, way.journey, dry_run=dry_run)
    way.work()
    return found


def draft(way: Way, nodes: dict[str, Any], **more: Any) -> None:
    with way.runtime.work(way.tenant) as ctx:
        update_journey(ctx, way.journey, {"draft": {"id": "way", **API, "nodes": nodes, **more}})


def sent(way: Way) -> list[tuple[str, str, int]]:
    """(node, state, version of the journey) of every message, as it was written."""
    with way.runtime.work(way.tenant, mode="read") as ctx:
        wanted = select(Delivery.step, Delivery.state, Send.campaign_version).join(
            Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id)
        )
        return [tuple(each) for each in ctx.session.execute(wanted.order_by(Send.id, Delivery.seq))]


def test_what_waits_for_its_turn_goes_out_in_the_new_words_once(way, monkeypatch):
    monkeypatch.setattr(journey_patching, "_PIECE", 1)
    way.publish({"again": NODES["again"]}, **QUIET)
    way.enter(1, 2)
    way.work()
    assert sent(way) == [("again", "planned", 1)] * 2
    rewrite(way)
    draft(way, {"again": NODES["again"]}, name="The way", **QUIET)
    found = patch(way, dry_run=True)
    assert (found["version"], found["runs"]) == (2, {"again": 2})
    assert [each["path"] for each in found["changes"]] == ["name", "nodes.again.email"]
    assert {run.version_number for run in way.runs()} == {1}
    patch(way)
    assert sent(way) == [("again", "skipped", 1)] * 2 + [("again", "planned", 2)] * 2
    assert {run.version_number for run in way.runs()} == {2}
    way.go_on(hours=3)
    assert sent(way)[2:] == [("again", "accepted", 2)] * 2
    assert way.where() == {"done:end": 2}
    with way.runtime.work(way.tenant, mode="read") as ctx:
        pins = ctx.session.execute(select(Send.campaign_version, Send.template_version).order_by(Send.id)).all()
    assert [tuple(each) for each in pins] == [(1, 1), (2, 2)]
    assert way.is_sound()


class TestOnOneDatabase:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_whoever_waits_goes_on_waiting_and_what_was_sent_stays(self, way):
        way.publish(NODES)
        way.enter(1)
        way.work()
        (before,) = way.runs()
        rewrite(way)
        way.move(JourneyMove.PAUSE)
        patch(way)
        (after,) = way.runs()
        assert (after.wake_at, after.wait_token, after.node) == (before.wake_at, before.wait_token, "wait")
        way.move(JourneyMove.RESUME)
        way.go_on(days=1, hours=3)
        assert sent(way) == [("hello", "accepted", 1), ("again", "accepted", 2)]
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert {"patched": 2} in ctx.session.scalars(
                select(JourneyStep.detail).where(JourneyStep.said == "moved")
            ).all()
            assert ctx.session.scalars(select(JourneyVersion.patches).order_by(JourneyVersion.number)).all() == [
                None,
                1,
            ]

    def test_only_words_are_patched(self, way):
        way.publish(NODES)
        with pytest.raises(Conflict, match="Nothing differs"):
            patch(way)
        draft(way, {**NODES, "wait": {**NODES["wait"], "for": "2 days"}, "again": message(next="wait", priority=9)})
        rewrite(way)
        with pytest.raises(ValidationError) as raised:
            patch(way)
        problems = {each.path: each for each in raised.value.problems}
        assert problems.keys() >= {"draft.nodes.wait.for", "draft.nodes.again.priority"}
        wait = problems["draft.nodes.wait.for"]
        assert (wait.code, "'1 day' becomes '2 days'" in wait.message, "publish" in wait.message) == (
            "not_content",
            True,
            True,
        )
