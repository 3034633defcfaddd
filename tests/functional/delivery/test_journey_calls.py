"""Runs that wait for somebody else: a program that is called, a member who is asked; and runs whose timer died."""

import json
import queue
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook

from nexus_marketing.builtins.channels.webhook import WebhookChannel
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import Conflict, NotFound, PermissionDenied, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.core.permissions import FORMER
from nexus_marketing.core.timers import MAX_CRASHES, TimerFact
from nexus_marketing.db.models import JourneyApproval, TakenAction, Timer
from nexus_marketing.plugin.http import HttpClient, HttpLimits
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.asides import Asides
from nexus_marketing.services.journeys.runs import answer_question
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.tenants import change_role, create_member
from tests.common.databases import NOW
from tests.common.plugins import Deed, deeds_plugin, with_plugins
from tests.contract.channels.servers import HttpServer, Reply
from tests.functional.delivery.journeys import Way

pytestmark = pytest.mark.req("US-020", "FR-P3-011")

SECRET = "whsec_" + "TUZLd0VmMnJTSk9zcjVsWGxONlV6d2dRS2pEdA=="
LATER = {"type": "delay", "for": "9 days"}
WENT = {name: {"type": "exit", "reason": name} for name in ("yes", "no")}
LATE = {"late": {"type": "exit", "reason": "late"}}


@pytest.fixture
def receiver(way: Way):
    with HttpServer() as server:
        client = HttpClient(HttpLimits(allow_hosts=(server.allowed,), total_seconds=2.0))
        channel = WebhookChannel(client, way.clock, secrets=(SECRET,), origin="here")
        way.runtime = replace(way.runtime, channels={**way.runtime.channels, "webhook": channel})
        way.stage.runtime = way.runtime
        yield server
        client.close()


def call(server: HttpServer, **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": f"{server.url}/crm", "next": "yes", "failed": "no", **more}


class TestWebhooks:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_a_program_is_told_signed_and_the_run_goes_on(self, way, receiver):
        body = {"mail": "{{ email }}", "seats": 3, "hello": "Dear {{ email }}!", "plan": "{{ event.plan }}"}
        way.publish({"tell": call(receiver, body=body), **WENT})
        way.enter(1)
        way.work()
        assert way.where() == {"exited:yes": 1}
        (heard,) = receiver.heard
        said = json.loads(heard.body)
        assert said == {
            "mail": "person1@example.org",
            "seats": 3,
            "hello": "Dear person1@example.org!",
            "plan": None,
        }
        signature = {name: heard.headers[name] for name in heard.headers if name.startswith("webhook-")}
        assert set(signature) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        expected = Webhook(SECRET).sign(signature["webhook-id"], way.clock.now(), heard.body.decode())
        assert signature["webhook-signature"] == expected
        assert way.is_sound()

    def test_one_that_is_away_is_called_again_under_the_same_id(self, way, receiver):
        receiver.scripts[""] += [Reply(503), Reply(500)]
        way.publish({"tell": call(receiver), **WENT})
        way.enter(1)
        way.work()
        assert way.where() == {"sending:tell": 1}
        for _ in range(2):
            way.go_on(minutes=5)
        assert way.where() == {"exited:yes": 1}
        assert len(receiver.heard) == 3
        assert len({each.headers["webhook-id"] for each in receiver.heard}) == 1

    @pytest.mark.parametrize("status", [410, 500])
    def test_one_that_never_takes_it_leads_to_the_failed_edge(self, way, receiver, status):
        receiver.usual = Reply(status)
        way.publish({"tell": call(receiver), **WENT})
        way.enter(1)
        for _ in range(14):
            way.go_on(hours=3)
        assert way.where() == {"exited:no": 1}
        assert len(receiver.heard) == (1 if status == 410 else 12)
        assert way.is_sound()

    def test_a_pause_holds_it_and_an_exit_calls_it_off(self, way, receiver):
        receiver.usual = Reply(503)
        way.publish({"tell": call(receiver), **WENT}, exit=[{"event": "ordered"}])
        way.enter(1)
        way.work()
        way.move(JourneyMove.PAUSE)
        heard = len(receiver.heard)
        way.go_on(hours=2)
        assert len(receiver.heard) == heard
        way.move(JourneyMove.RESUME)
        way.event(1, "ordered")
        way.go_on(hours=3)
        assert way.where() == {"exited:ordered": 1}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert ctx.session.scalars(select(Timer)).all() == []

    def test_addresses_and_gaps_are_looked_at_before_anybody_comes(self, way, receiver):
        inside = call(receiver, url="https://169.254.169.254/latest", body={"a": "{{ shoe }}"})
        with pytest.raises(ValidationError) as raised:
            way.publish({"tell": inside, **WENT})
        found = {(each.path, each.code) for each in raised.value.problems}
        assert found >= {("draft.nodes.tell.url", "host_refused"), ("draft.nodes.tell.body.a", "unknown_field")}


class TestApprovals:
    @pytest.fixture
    def asked(self, way: Way) -> Way:
        timeout = {"after": "2 days", "to": "late"}
        node = {"type": "approval", "by": "approver", "approved": "yes", "rejected": "no", "timeout": timeout}
        way.publish({"ask": node, **WENT, **LATE})
        way.enter(1, 2, 3)
        way.work()
        return way

    def member(self, way: Way, role: str) -> Actor:
        with way.runtime.work(way.tenant) as ctx:
            member = create_member(ctx, role.title(), f"{role}@shop.example", role)
            return Actor(f"key:{member.id}", member_id=member.id)

    def answer(self, way: Way, actor: Actor, question: JourneyApproval, *, approved: bool = True) -> None:
        with way.runtime.work(way.tenant, actor) as ctx:
            answer_question(ctx, question.id, approved=approved)

    def questions(self, way: Way) -> list[JourneyApproval]:
        with way.runtime.work(way.tenant, mode="read") as ctx:
            return list(ctx.session.scalars(select(JourneyApproval).order_by(JourneyApproval.id)))

    def test_a_run_goes_on_by_the_answer_and_without_one_by_the_timeout(self, asked):
        approver = self.member(asked, "approver")
        one, two, three = self.questions(asked)
        self.answer(asked, approver, one)
        self.answer(asked, approver, two, approved=False)
        asked.work()
        assert asked.where() == {"exited:yes": 1, "exited:no": 1, "waiting:ask": 1}
        asked.go_on(days=3)
        assert asked.where() == {"exited:yes": 1, "exited:no": 1, "exited:late": 1}
        assert [each.answer for each in self.questions(asked)] == ["approved", "rejected", "expired"]
        with pytest.raises(Conflict, match="expired"):
            self.answer(asked, approver, three)
        assert asked.is_sound()

    def test_only_who_is_asked_may_answer_and_once(self, asked):
        (question, *_) = self.questions(asked)
        for stranger in (Actor("key:9"), self.member(asked, "analyst")):
            with pytest.raises(PermissionDenied, match="asked of approver"):
                self.answer(asked, stranger, question)
        owner = self.member(asked, "owner")
        self.answer(asked, owner, question)
        with pytest.raises(Conflict, match="approved"):
            self.answer(asked, owner, question)
        with pytest.raises(NotFound), asked.runtime.work(asked.tenant, owner) as ctx:
            answer_question(ctx, question.id + 99, approved=True)

    def test_whoever_is_stopped_is_asked_no_more(self, asked):
        asked.move(JourneyMove.STOP)
        asked.work()
        assert {each.answer for each in self.questions(asked)} == {"expired"}

    def test_nobody_is_asked_whom_there_is_not(self, way):
        timeout = {"after": "2 days", "to": "end"}
        node = {"type": "approval", "by": "the boss", "approved": "end", "timeout": timeout}
        with pytest.raises(ValidationError) as raised:
            way.publish({"ask": node})
        assert [each.code for each in raised.value.problems] == ["unknown_member"]

    def test_nobody_is_asked_who_has_left(self, way):
        with way.runtime.work(way.tenant) as ctx:
            change_role(ctx, create_member(ctx, "Bo", "bo@example.org", "owner").id, FORMER)
        timeout = {"after": "2 days", "to": "end"}
        with pytest.raises(ValidationError, match="nobody who could answer"):
            way.publish({"ask": {"type": "approval", "by": "bo@example.org", "approved": "end", "timeout": timeout}})


@pytest.mark.req("R22", "S18")
def test_a_receiver_who_takes_his_time_keeps_no_other_tenant_waiting(sqlite_only_runtime):
    answered, heard = threading.Event(), queue.SimpleQueue()

    def make(_runtime: Runtime, timer: TimerFact) -> None:
        if timer.tenant_id == 1:
            answered.wait(5)
        heard.put(timer.tenant_id)

    calls, until = Asides(sqlite_only_runtime, make, "journey-call"), time.monotonic() + 60
    for number, tenant_id in enumerate([1] * 12 + [2]):
        calls.take(TimerFact(tenant_id, number, "journey.call", f"{number}:1", NOW, {}, None, 1, 0, 1), until)
    try:
        assert heard.get(timeout=2) == 2
    finally:
        answered.set()
        calls.close()
    assert heard.qsize() == 12


def test_a_run_whose_timer_is_put_aside_has_failed_and_says_why(way):
    way.publish({"wait": LATER})
    way.enter(1, 2)
    way.work()
    (first, _) = way.runs()

    with way.runtime.work(way.tenant) as ctx:
        dying = {"crashes": MAX_CRASHES, "trigger_at": ctx.now}
        ctx.session.execute(update(Timer).where(Timer.key == str(first.id)).values(**dying))
    way.work()
    dead, alive = way.runs()
    assert (dead.state, alive.state) == ("failed", "waiting")
    assert dead.reason.startswith("timer_dead: ")
    assert way.said(1)[-1] == "ended wait"
    assert way.is_sound()


def test_an_action_is_taken_by_its_name_once_a_visit(way):
    nodes = {"tell": {"type": "action", "action": "send_to_sales_team", "with": {"team": "west"}, "next": "end"}}
    with pytest.raises(ValidationError) as raised:
        way.publish(nodes)
    assert [each.path for each in raised.value.problems] == ["draft.nodes.tell.action"]
    deed = Deed("send_to_sales_team")
    way.runtime = way.stage.runtime = with_plugins(way.runtime, deeds_plugin(deed))
    with way.runtime.work(way.tenant) as ctx:
        switch_on(ctx, "nexus-deeds", {"station": "west"})
    way.publish(nodes)
    way.enter(1)
    way.work()
    assert way.where() == {"done:end": 1}
    with way.runtime.work(way.tenant, mode="read") as ctx:
        (taken,) = ctx.session.scalars(select(TakenAction)).all()
    (run,) = way.runs()
    assert (taken.key, taken.lead_id, taken.data) == (f"journey:{run.id}:1", run.lead_id, {"team": "west"})
    assert taken.state == "done"
