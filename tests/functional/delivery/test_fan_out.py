"""One launch over several channels at once: each goes its own way, and the campaign waits for them (BR-008, R21)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from sqlalchemy import select

from nexus_marketing.core.contracts import AddressKind, OutcomeKind
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.db.models import Lead, SegmentMember, Send
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.plugin.testing import RecordingChannel, RecordingServer, SocketChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign, update_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.privacy import suppress, unsubscribe
from nexus_marketing.services.templates import delete_template
from nexus_marketing.tasks.loops import report_ends
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.functional.delivery.conftest import SENDER, Stage

pytestmark = pytest.mark.req("US-013", "FR-P2-004", "BR-008", "REL-002", "R21")


def sent(stage: Stage, channel: str) -> list[str]:
    found: Any = stage.runtime.channels[channel]
    return [each.address for each in found.sent]


def plan_first(stage: Stage) -> None:
    """Freeze the audience of the launch's first channel, and of no other yet."""
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        first = ctx.session.scalars(select(Send.id).order_by(Send.id)).first()
    plan_send(stage.runtime, SendRef(stage.tenant_id, first or 0))
    assert set(stage.sends().values()) == {"running", "planning"}


class TestAllOfThem:
    def test_everybody_gets_the_message_once_by_each_channel(self, stage):
        stage.launch("email", "sms", "push")
        stage.work()
        assert stage.states() == {name: Counter(accepted=20) for name in ("email", "sms", "push")}
        assert sent(stage, "sms") == [f"+49301234{number:04}" for number in range(20)]
        assert len(set(sent(stage, "email"))) == 20
        assert sent(stage, "push") == [""] * 20
        assert stage.campaign().status == "completed"
        assert stage.history() == ["created", "launch", "channels_joined", "complete"]

    def test_it_is_told_once_when_all_are_through(self, stage):
        stage.launch("email", "sms", "push")
        stage.work()
        (event,) = stage.joined
        assert (event.campaign_id, event.channels) == (str(stage.campaign_id), ("email", "sms", "push"))
        report_ends(stage.runtime)
        assert len(stage.joined) == 1

    def test_the_audience_is_the_same_for_all(self, stage):
        stage.launch("email", "sms")
        plan_first(stage)
        with stage.runtime.work(stage.tenant_id, role="owner") as ctx:
            for member in ctx.session.scalars(select(SegmentMember).limit(5)):
                ctx.session.delete(member)
        stage.work()
        assert stage.states() == {"email": Counter(accepted=20), "sms": Counter(accepted=20)}

    def test_who_is_erased_before_the_others_are_planned_gets_nothing(self, stage):
        stage.launch("email", "push")
        plan_first(stage)
        with stage.runtime.work(stage.tenant_id) as ctx:
            erase_lead(ctx, stage.lead_ids[4])
        stage.work()
        assert stage.states()["push"] == Counter({"accepted": 19, "skipped(lead_erased)": 1})
        assert stage.states()["email"]["accepted"] == 19

    def test_a_number_shared_by_two_leads_gets_one_message(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            leads = list(ctx.session.scalars(select(Lead).order_by(Lead.id)))
            leads[7].phone = leads[9].phone = leads[2].phone
            leads[3].phone = None
        stage.launch("email", "sms")
        stage.work()
        assert stage.states()["sms"] == Counter(
            {"accepted": 17, "skipped(duplicate_address)": 2, "skipped(no_address)": 1}
        )
        assert len(set(sent(stage, "sms"))) == 17

    def test_who_does_not_want_one_channel_gets_the_others(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            suppress(ctx, "+493012340000", reason="unsubscribed", source="test", channel="sms")
            suppress(ctx, "person2@example.org", reason="unsubscribed", source="test", channel="all")
        stage.launch("email", "sms", "push")
        stage.work()
        assert stage.states() == {
            "email": Counter({"accepted": 19, "skipped(suppressed)": 1}),
            "sms": Counter({"accepted": 19, "skipped(suppressed)": 1}),
            "push": Counter({"accepted": 19, "skipped(suppressed)": 1}),
        }

    def test_an_unsubscribe_is_for_the_channel_that_it_came_from(self, stage):
        stage.launch("email", "sms")
        stage.work()
        with stage.runtime.work(stage.tenant_id) as ctx:
            sms = ctx.session.scalars(select(Send).where(Send.channel == "sms")).one()
            unsubscribe(ctx, stage.lead_ids[0], source="page", send_id=sms.id, seq=1)
        stage.launch("email", "sms", obeys_caps=False)
        stage.work()
        assert stage.states()["sms"] == Counter({"accepted": 39, "skipped(suppressed)": 1})
        assert stage.states()["email"] == Counter({"accepted": 40})

    def test_a_lead_without_any_address_is_reached_where_none_is_needed(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            lead = ctx.session.scalars(select(Lead).order_by(Lead.id)).first()
            lead.email = lead.email_norm = lead.phone = None
            lead.external_id = "crm-1"
        stage.launch("email", "push")
        stage.work()
        assert stage.states() == {
            "email": Counter({"accepted": 19, "skipped(no_address)": 1}),
            "push": Counter(accepted=20),
        }

    def test_an_audience_without_any_address_is_reached_where_none_is_needed(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            for lead in ctx.session.scalars(select(Lead)):
                lead.email = lead.email_norm = lead.phone = None
                lead.external_id = f"crm-{lead.id}"
        stage.launch("push")
        stage.work()
        assert stage.states() == {"push": Counter(accepted=20)}

    def test_its_channels_are_one_use_of_a_cap(self, stage):
        stage.launch("email", "sms", "push")
        stage.work()
        stage.launch("push")
        stage.work()
        assert stage.states()["push"] == Counter({"accepted": 20, "skipped(cap)": 20})


class TestOneIsDead:
    def test_the_others_finish_and_it_alone_is_tried_again(self, stage, database_time: DatabaseTime):
        sms: Any = stage.runtime.channels["sms"]
        sms.script = {"+493012340000": [OutcomeKind.PERMANENT_SENDER]}
        stage.launch("email", "sms", "push")
        stage.work()
        states = stage.states()
        assert states["email"] == states["push"] == Counter(accepted=20)
        assert stage.sends() == {"email": "completed", "sms": "paused", "push": "completed"}
        campaign = stage.campaign()
        assert (campaign.status, stage.joined) == ("paused", [])
        assert campaign.status_reason.startswith("sms: send paused: sender_refused")
        stage.move("resume")
        database_time.advance(hours=2)
        stage.work()
        assert stage.states() == {name: Counter(accepted=20) for name in ("email", "sms", "push")}
        assert len(sent(stage, "email")) == len(sent(stage, "push")) == 20
        assert (stage.campaign().status, len(stage.joined)) == ("completed", 1)

    def test_each_tries_again_by_itself(self, stage, database_time: DatabaseTime):
        sms: Any = stage.runtime.channels["sms"]
        sms.script = {f"+49301234{number:04}": [OutcomeKind.TRANSIENT] * 2 for number in range(5)}
        stage.launch("email", "sms")
        stage.work()
        assert stage.sends() == {"email": "completed", "sms": "running"}
        assert stage.campaign().status == "active"
        for _ in range(6):
            database_time.advance(hours=2)
            stage.work()
        assert stage.states() == {"email": Counter(accepted=20), "sms": Counter(accepted=20)}
        assert stage.campaign().status == "completed"

    def test_a_channel_that_is_gone_holds_up_nobody(self, stage):
        stage.launch("push", "sms")
        del stage.runtime.channels["push"]
        stage.work()
        assert stage.states()["sms"] == Counter(accepted=20)
        assert stage.campaign().status_reason == "push: send paused: plugin_missing"

    def test_any_of_them_is_enough_where_a_campaign_says_so(self, stage):
        sms: Any = stage.runtime.channels["sms"]
        sms.script = {"+493012340000": [OutcomeKind.PERMANENT_SENDER]}
        stage.launch("email", "sms", wait_for="any")
        stage.work()
        assert (stage.campaign().status, len(stage.joined)) == ("completed", 1)
        assert stage.sends() == {"email": "completed", "sms": "cancelled"}
        assert set(stage.states()["sms"]) <= {"skipped(cancelled)", "failed(permanent_sender)", "accepted"}

    def test_enough_of_them_go_on_while_the_rest_still_tries(self, stage, database_time: DatabaseTime):
        sms: Any = stage.runtime.channels["sms"]
        sms.script = {"+493012340000": [OutcomeKind.TRANSIENT]}
        stage.launch("email", "sms", "push", wait_for=2)
        stage.work()
        (event,) = stage.joined
        assert event.channels == ("email", "push")
        assert stage.campaign().status == "active"
        database_time.advance(hours=2)
        stage.work()
        assert stage.states()["sms"] == Counter(accepted=20)
        assert (stage.campaign().status, len(stage.joined)) == ("completed", 1)

    def test_a_cancelled_launch_is_joined_by_nobody(self, stage):
        stage.launch("email", "sms")
        stage.move("cancel")
        stage.work()
        assert stage.states() == {} or set(stage.states()["email"]) == {"skipped(cancelled)"}
        assert (stage.campaign().status, stage.joined) == ("cancelled", [])


@pytest.fixture
def servers(runtime: Runtime) -> Iterator[dict[str, RecordingServer]]:
    with RecordingServer() as sms, RecordingServer() as hook:
        yield {"sms": sms, "hook": hook}


def test_a_thousand_leads_over_three_channels_of_which_two_are_servers(runtime, tenant, servers, database_time):
    """R21: one provider answers nothing but 503 for a while and hangs up on some; the barrier opens once."""
    channels = {
        "email": RecordingChannel(),
        "sms": SocketChannel("sms", AddressKind.PHONE),
        "hook": SocketChannel("hook"),
    }
    stage = Stage(replace(runtime, channels=channels), tenant, make_leads(runtime, tenant, 1_000))
    with runtime.work(tenant) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            lead.phone = f"+49301234{number:04}"
    stage.set_up({"email": SENDER, **{name: {**SENDER, "port": server.port} for name, server in servers.items()}})
    servers["sms"].answers = {f"+49301234{number:04}": [503, 202] for number in range(0, 1_000, 50)}
    servers["sms"].answers["+493012340007"] = [0]
    stage.launch("email", "sms", "hook")
    stage.work(60)
    assert stage.sends() == {"email": "completed", "sms": "running", "hook": "completed"}
    assert stage.joined == []
    for _ in range(6):
        database_time.advance(hours=2)
        stage.work(60)
    assert stage.states() == {
        "email": Counter(accepted=1_000),
        "sms": Counter(accepted=999, unknown=1),
        "hook": Counter(accepted=1_000),
    }
    # The message that was answered with a hang-up is nobody's to repeat; everybody else has exactly one.
    taken = servers["sms"].accepted
    assert {len(each) for each in taken.values()} == {1}
    assert len(taken) == 999
    assert len(servers["hook"].accepted[""]) == 1_000
    assert (stage.campaign().status, len(stage.joined)) == ("completed", 1)


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("data", "path", "code"),
        [
            ({"channels": {"sms": {"template_id": "999"}}}, "channels.sms.template_id", "not_found"),
            ({"channels": {"sms": {"template_id": None}}, "channel": "email"}, "channel", "not_allowed"),
            ({"channels": {"sms": {"template_id": None}}, "wait_for": 2}, "wait_for", "out_of_bounds"),
            ({"channels": {"sms": {"template_id": None}}, "wait_for": "most"}, "wait_for", "out_of_bounds"),
            ({"wait_for": 2}, "wait_for", "out_of_bounds"),
        ],
    )
    def test_is_refused_with_its_place(self, stage, data, path, code):
        with pytest.raises(ValidationError) as refused, stage.runtime.work(stage.tenant_id) as ctx:
            create_campaign(ctx, {"name": "c", **data})
        assert [(each.path, each.code) for each in refused.value.problems] == [(path, code)]

    def test_every_fault_of_every_channel_is_named_at_the_launch(self, stage):
        templates = {"email": stage.templates["text"], "sms": stage.templates["email"], "fax": stage.templates["text"]}
        channels = {name: {"template_id": str(each)} for name, each in templates.items()}
        with pytest.raises(ValidationError) as refused:
            stage.launch(channels={**channels, "push": {"template_id": None}})
        assert [(each.path, each.code) for each in refused.value.problems] == [
            ("channels.email.template_id", "wrong_type"),
            ("channels.sms.template_id", "wrong_type"),
            ("channels.fax", "no_sender"),
            ("channels.fax", "unknown_channel"),
            ("channels.push.template_id", "no_template"),
        ]

    def test_one_spelling_is_changed_into_the_other(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            campaign = create_campaign(ctx, {"name": "c", "template_id": stage.templates["email"]})
            update_campaign(ctx, campaign.id, {"channels": stage.channels("sms", "email"), "wait_for": "2"})
            assert (campaign.channel, campaign.template_id, campaign.wait_for) == ("sms", None, "2")
            with pytest.raises(ValidationError, match="set channels to null"):
                update_campaign(ctx, campaign.id, {"template_id": stage.templates["email"]})
            with pytest.raises(ValidationError, match="nothing to wait for"):
                update_campaign(ctx, campaign.id, {"channels": stage.channels("sms")})
            update_campaign(ctx, campaign.id, {"channels": None, "channel": "email", "wait_for": "all"})
            assert (campaign.channel, campaign.channels) == ("email", None)

    def test_a_template_of_one_of_the_channels_is_not_deleted(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            create_campaign(ctx, {"name": "c", "channels": stage.channels("sms", "email")})
        with pytest.raises(Conflict, match="use this template"), stage.runtime.work(stage.tenant_id) as ctx:
            delete_template(ctx, stage.templates["text"])


class TestDefinitions:
    """A definition whose channels have a template each goes out by all of them."""

    SCHEMA: ClassVar[dict[str, Any]] = {
        "id": "seasonal",
        "name": "Seasonal",
        "channels": {
            "sms": {"template": "text", "priority": 2},
            "email": {"template": "email", "priority": 1},
            "push": {"template": "text", "enabled": False},
        },
        "stages": ["draft", "active", {"name": "follow_up", "status": "active"}, "completed"],
        "transitions": {
            "launch": {"from": "draft", "to": "active"},
            "follow_up": {"from": "active", "to": "follow_up", "condition": "data.channels_joined > 0"},
            "complete": {"from": "follow_up", "to": "completed"},
        },
    }

    def test_what_comes_next_waits_for_all_of_them(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            definition = create_definition(ctx, {"schema": self.SCHEMA})
            publish_definition(ctx, definition.id)
            data = {"definition_id": str(definition.id), "segment_id": stage.segment_id}
            campaign = create_campaign(ctx, data)
            assert campaign.channels == stage.channels("email", "sms")
            assert list(campaign.channels) == ["email", "sms"]
            stage.campaign_id = campaign.id
            move_campaign(ctx, campaign.id, "launch")
        stage.work()
        assert stage.history() == ["created", "launch", "channels_joined", "follow_up"]
        assert stage.states() == {"email": Counter(accepted=20), "sms": Counter(accepted=20)}
