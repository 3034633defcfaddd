"""What follows from what providers report: once, in any order, and in the lead's history."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import select, update

from nexus_marketing.builtins.caches.memory import MemoryCache
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import AddressKind, Capabilities, ProviderEvent, ProviderEventKind
from nexus_marketing.db.models import Consent, Delivery, Engagement, ProviderReport, Send, SendFeedback, Suppression
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.hooks import HookCall, receive_call
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.timeline import read_timeline
from nexus_marketing.services.privacy import lift, record_consent, suppress
from nexus_marketing.services.provider_reports import take_in_reports
from nexus_marketing.tasks.loops import tend_queues
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("US-018", "BR-012", "FR-P2-009", "D07")

K = ProviderEventKind
JANE, PHONE = "person1@example.org", "+4930123456"


class HearingTestChannel:
    """Believes everybody and reports what it was given."""

    def __init__(self, name: str, kind: AddressKind) -> None:
        self.name = name
        self.capabilities = Capabilities(kind, 1)
        self.says: list[ProviderEvent] = []

    def verify(self, _settings: Any, _headers: Any, _body: bytes) -> bool:
        return True

    def parse_events(self, _settings: Any, _headers: Any, _body: bytes) -> list[ProviderEvent]:
        return self.says


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    channels: Any = {
        "email": HearingTestChannel("email", AddressKind.EMAIL),
        "sms": HearingTestChannel("sms", AddressKind.PHONE),
    }
    return replace(runtime, channels=channels)


Tell = Callable[..., None]


@pytest.fixture
def tell(runtime: Runtime, tenant: int) -> Tell:
    """Have a provider report these, and act on them."""

    def say(*events: ProviderEvent, channel: str = "email", act: bool = True) -> None:
        runtime.channels[channel].says = list(events)  # type: ignore[attr-defined]
        receive_call(runtime, HookCall("acme", channel, "test", {}, b""))
        while act and take_in_reports(runtime, tenant):
            pass

    return say


@pytest.fixture
def campaign(runtime: Runtime, tenant: int) -> int:
    return make_campaign(runtime, tenant)


def send_to(
    runtime: Runtime,
    tenant: int,
    campaign: int,
    leads: list[int],
    number: int = 1,
    channel: str = "email",
    **values: Any,
) -> int:
    """A running send, all of whose messages were accepted."""
    template = make_template(runtime, tenant, f"{channel}{number}")
    send = make_send(runtime, tenant, campaign, template, leads, channel=channel, occurrence_key=str(number))
    with runtime.work(tenant) as ctx:
        changes = {"state": "accepted", "channel": channel, "settled_at": ctx.now, **values}
        ctx.session.execute(update(Delivery).where(Delivery.send_id == send).values(**changes))
    return send


_NUMBER = iter(range(1, 10**9))


def event(
    kind: ProviderEventKind, send: int | None = None, tenant: int = 0, seq: int = 1, **values: Any
) -> ProviderEvent:
    message_id = "" if send is None else f"<r{seq}.s{send}.t{tenant}@example.com>"
    shared = {"event_id": f"e{next(_NUMBER)}", "message_id": message_id, "address": JANE}
    return ProviderEvent(kind, **{**shared, **values})


def rows(runtime: Runtime, tenant: int, model: Any, *columns: str) -> list[Any]:
    keys = [column.key for column in model.__mapper__.primary_key]
    with runtime.work(tenant, mode="read") as ctx:
        found = sorted(ctx.session.scalars(select(model)), key=lambda row: [getattr(row, key) for key in keys])
        return [attrgetter(*columns)(row) for row in found]


def states(runtime: Runtime, tenant: int) -> list[str]:
    return rows(runtime, tenant, Delivery, "state")


def suppressed(runtime: Runtime, tenant: int) -> list[tuple[str, str, str]]:
    return rows(runtime, tenant, Suppression, "type", "reason", "source")


@pytest.mark.parametrize("order", list(permutations([K.DELIVERED, K.BOUNCED_HARD, K.COMPLAINED])))
def test_the_order_makes_no_difference(runtime: Runtime, tenant: int, campaign: int, tell: Tell, order: Any) -> None:
    send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant))
    for kind in order[:2]:
        tell(event(kind, send, tenant))
    tell(event(order[2], send, tenant), event(order[0], send, tenant))
    assert states(runtime, tenant) == ["complained"]
    assert set(suppressed(runtime, tenant)) == {
        ("all", "bounced", "email:test"),
        ("marketing", "complained", "email:test"),
    }
    (counted,) = rows(runtime, tenant, SendFeedback, "bounced", "complained")
    assert counted == (0, 1)


def test_an_event_is_acted_on_once(runtime: Runtime, tenant: int, campaign: int, tell: Tell) -> None:
    send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant))
    bounce = event(K.BOUNCED_HARD, send, tenant)
    tell(bounce, bounce)
    tell(bounce)
    assert len(suppressed(runtime, tenant)) == 1
    with runtime.work(tenant) as ctx:
        lift(ctx, JANE, reason="manual", source="test", type="all")
    tell(bounce)  # a replay brings nothing back
    assert len(suppressed(runtime, tenant)) == 2


def test_an_event_of_long_ago_cannot_be_told_from_a_repeat(
    runtime: Runtime, tenant: int, campaign: int, tell: Tell, clock: FakeClock
) -> None:
    send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant))
    old = event(K.BOUNCED_HARD, send, tenant, at=clock.now())
    clock.advance(days=36)
    tell(old)
    assert states(runtime, tenant) == ["accepted"]
    assert suppressed(runtime, tenant) == []


def test_what_nobody_can_act_on_keeps_nobody_waiting(runtime: Runtime, tenant: int, campaign: int, tell: Tell) -> None:
    send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant))
    with runtime.work(tenant) as ctx:
        for body in ({}, {"kind": "x", "message_id": "", "at": ""}):
            common = {"received_at": ctx.now, "due_at": ctx.now, "channel": "email", "provider": ""}
            ctx.session.add(ProviderReport(body=body, **common))
    tell(event(K.DELIVERED, send, tenant))
    assert states(runtime, tenant) == ["delivered"]
    assert rows(runtime, tenant, ProviderReport, "tries") == []


class TestEarly:
    """A provider may be faster than the worker that writes down what it answered."""

    def test_an_event_waits_for_its_message(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell, database_time: DatabaseTime
    ) -> None:
        send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant), state="planned")
        early = event(K.DELIVERED, send, tenant)
        tell(early)
        assert rows(runtime, tenant, ProviderReport, "tries") == [1]
        assert take_in_reports(runtime, tenant) == 0
        with runtime.work(tenant) as ctx:
            ctx.session.execute(update(Delivery).values(state="accepted"))
        database_time.advance(seconds=3)
        assert tend_queues(runtime) == 1
        assert states(runtime, tenant) == ["delivered"]
        assert rows(runtime, tenant, ProviderReport, "tries") == []

    def test_it_does_not_wait_for_ever(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell, database_time: DatabaseTime
    ) -> None:
        send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant), state="planned")
        tell(event(K.COMPLAINED, send, tenant))
        for _ in range(10):
            database_time.advance(hours=1)
            take_in_reports(runtime, tenant)
        assert states(runtime, tenant) == ["planned"]
        assert rows(runtime, tenant, ProviderReport, "tries") == []
        # The wish counts, whatever became of the message.
        assert suppressed(runtime, tenant) == [("marketing", "complained", "email:test")]


class TestSoftBounces:
    def bounce(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell, lead: int, kinds: list[ProviderEventKind]
    ) -> None:
        for number, kind in enumerate(kinds, start=1):
            send = send_to(runtime, tenant, campaign, [lead], number)
            tell(event(kind, send, tenant), event(kind, send, tenant))
            runtime.clock.advance(days=1)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("kinds", "is_suppressed"),
        [
            ([K.BOUNCED_SOFT] * 2, False),
            ([K.BOUNCED_SOFT] * 3, True),
            ([K.BOUNCED_SOFT, K.BOUNCED_SOFT, K.DELIVERED, K.BOUNCED_SOFT], False),
            ([K.DELIVERED, K.BOUNCED_SOFT, K.DEFERRED, K.BOUNCED_SOFT, K.BOUNCED_SOFT], True),
        ],
    )
    def test_three_sends_in_a_row_are_enough(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell, kinds: Any, is_suppressed: bool
    ) -> None:
        (lead,) = make_leads(runtime, tenant)
        self.bounce(runtime, tenant, campaign, tell, lead, kinds)
        assert set(suppressed(runtime, tenant)) == ({("all", "bounced", "email:test:soft")} if is_suppressed else set())

    def test_those_of_long_ago_do_not_count(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell, clock: FakeClock
    ) -> None:
        (lead,) = make_leads(runtime, tenant)
        self.bounce(runtime, tenant, campaign, tell, lead, [K.BOUNCED_SOFT] * 2)
        clock.advance(days=30)
        send = send_to(runtime, tenant, campaign, [lead], 3)
        tell(event(K.BOUNCED_SOFT, send, tenant))
        assert suppressed(runtime, tenant) == []


class TestUnsubscribing:
    def test_it_is_as_if_the_link_had_been_pressed(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell
    ) -> None:
        (lead,) = make_leads(runtime, tenant)
        send = send_to(runtime, tenant, campaign, [lead])
        tell(event(K.UNSUBSCRIBED, send, tenant), event(K.UNSUBSCRIBED, send, tenant))
        assert suppressed(runtime, tenant) == [("marketing", "unsubscribed", "email:test")]
        assert rows(runtime, tenant, Engagement, "type", "send_id", "campaign_id") == [("unsubscribed", send, campaign)]
        assert rows(runtime, tenant, Consent, "source") == ["email:test"]

    def test_of_somebody_erased_only_the_address_is_left(
        self, runtime: Runtime, tenant: int, campaign: int, tell: Tell
    ) -> None:
        (lead,) = make_leads(runtime, tenant)
        send = send_to(runtime, tenant, campaign, [lead])
        with runtime.work(tenant) as ctx:
            erase_lead(ctx, lead)
        before = len(suppressed(runtime, tenant))
        tell(event(K.UNSUBSCRIBED, send, tenant), event(K.BOUNCED_HARD, send, tenant))
        assert len(suppressed(runtime, tenant)) >= before
        assert rows(runtime, tenant, Engagement, "type") == []


class TestBreaker:
    @pytest.fixture
    def send(self, runtime: Runtime, tenant: int, campaign: int) -> int:
        return send_to(runtime, tenant, campaign, make_leads(runtime, tenant, 600))

    def complain(self, tell: Tell, tenant: int, send: int, seqs: range, kind: ProviderEventKind = K.COMPLAINED) -> None:
        tell(*(event(kind, send, tenant, seq, address=f"person{seq}@example.org") for seq in seqs))

    def status(self, runtime: Runtime, tenant: int) -> tuple[str, str | None]:
        (found,) = rows(runtime, tenant, Send, "status", "status_reason")
        return found

    def test_complaints_stop_a_send(self, runtime: Runtime, tenant: int, send: int, tell: Tell) -> None:
        self.complain(tell, tenant, send, range(1, 2))
        assert self.status(runtime, tenant) == ("running", None)  # 0.17 %: a warning
        self.complain(tell, tenant, send, range(2, 3))
        assert self.status(runtime, tenant) == ("paused", "too_many_complaints: 2 of 600 recipients complained")

    def test_whoever_resumes_it_gives_it_a_new_chance(
        self, runtime: Runtime, tenant: int, send: int, tell: Tell
    ) -> None:
        self.complain(tell, tenant, send, range(1, 3))
        with runtime.work(tenant) as ctx:
            ctx.session.execute(update(Send).values(status="running", status_reason=None))
        self.complain(tell, tenant, send, range(3, 6))
        assert self.status(runtime, tenant) == ("running", None)

    def test_addresses_that_do_not_exist_stop_a_send(
        self, runtime: Runtime, tenant: int, send: int, tell: Tell
    ) -> None:
        self.complain(tell, tenant, send, range(1, 30), K.BOUNCED_HARD)
        assert self.status(runtime, tenant) == ("running", None)
        self.complain(tell, tenant, send, range(30, 31), K.BOUNCED_HARD)
        assert self.status(runtime, tenant) == ("paused", "too_many_bounces: 30 of 600 messages bounced for good")

    def test_what_is_over_stays_over(self, runtime: Runtime, tenant: int, send: int, tell: Tell) -> None:
        with runtime.work(tenant) as ctx:
            ctx.session.execute(update(Send).values(status="completed"))
        self.complain(tell, tenant, send, range(1, 10))
        assert self.status(runtime, tenant) == ("completed", None)

    def test_a_few_prove_nothing(self, runtime: Runtime, tenant: int, campaign: int, tell: Tell) -> None:
        send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant, 199))
        self.complain(tell, tenant, send, range(1, 100))
        assert self.status(runtime, tenant) == ("running", None)


class TestKeywords:
    def write(self, tell: Tell, text: str, number: str = PHONE) -> None:
        tell(event(K.INBOUND_MESSAGE, address=number, detail=text), channel="sms")

    def may_be_written_to(self, runtime: Runtime, tenant: int) -> bool:
        with runtime.work(tenant, mode="read") as ctx:
            newest = (
                select(Suppression.suppressed_at).where(Suppression.channel == "sms").order_by(Suppression.id.desc())
            )
            return ctx.session.scalars(newest.limit(1)).first() is None

    def test_stop_ends_marketing_on_the_channel_and_start_begins_it_again(
        self, runtime: Runtime, tenant: int, tell: Tell
    ) -> None:
        make_leads(runtime, tenant, 2, phone=PHONE)  # who share a telephone
        self.write(tell, "Stop, please!")
        self.write(tell, "STOP")
        assert not self.may_be_written_to(runtime, tenant)
        assert suppressed(runtime, tenant) == [("marketing", "unsubscribed", "keyword:stop")]
        assert rows(runtime, tenant, Consent, "source") == ["keyword:stop"] * 2
        self.write(tell, "hello?")
        assert not self.may_be_written_to(runtime, tenant)
        self.write(tell, "START")
        assert self.may_be_written_to(runtime, tenant)
        given = rows(runtime, tenant, Consent, "channel", "source", "granted_at")
        assert [source for _, source, at in given if at is not None] == ["keyword:start"] * 2

    def test_start_lifts_nothing_but_stop(self, runtime: Runtime, tenant: int, tell: Tell) -> None:
        (lead,) = make_leads(runtime, tenant, phone=PHONE)
        with runtime.work(tenant) as ctx:
            suppress(ctx, PHONE, reason="manual", source="test", channel="sms")
            record_consent(ctx, lead, granted=False, source="page", channel="sms")
        self.write(tell, "START")
        assert not self.may_be_written_to(runtime, tenant)
        assert rows(runtime, tenant, Consent, "source") == ["page"]

    def test_help_is_written_down_and_changes_nothing(self, runtime: Runtime, tenant: int, tell: Tell) -> None:
        (lead,) = make_leads(runtime, tenant, phone=PHONE)
        self.write(tell, "HELP")
        self.write(tell, "Is this still on?")
        found = rows(runtime, tenant, Engagement, "type", "name", "lead_id", "attributes")
        assert found == [
            ("custom", "sms_received", lead, {"keyword": "help"}),
            ("custom", "sms_received", lead, {}),
        ]
        assert suppressed(runtime, tenant) == []

    def test_a_number_of_nobody_may_say_stop_too(self, runtime: Runtime, tenant: int, tell: Tell) -> None:
        self.write(tell, "STOP")
        assert suppressed(runtime, tenant) == [("marketing", "unsubscribed", "keyword:stop")]
        self.write(tell, "START")
        assert self.may_be_written_to(runtime, tenant)

    def test_other_tenants_and_other_channels_are_not_stopped(
        self, runtime: Runtime, tenant: int, other_tenant: int, tell: Tell
    ) -> None:
        make_leads(runtime, other_tenant, phone=PHONE)
        make_leads(runtime, tenant, phone=PHONE)
        self.write(tell, "STOP")
        assert suppressed(runtime, other_tenant) == []
        assert set(rows(runtime, tenant, Suppression, "channel", "type")) == {("sms", "marketing")}


def test_the_leads_history_says_what_became_of_it(runtime: Runtime, tenant: int, campaign: int, tell: Tell) -> None:
    (lead,) = make_leads(runtime, tenant, phone=PHONE)
    mail = send_to(runtime, tenant, campaign, [lead])
    text = send_to(runtime, tenant, campaign, [lead], 2, channel="sms")
    tell(event(K.COMPLAINED, mail, tenant))
    tell(event(K.DELIVERED, text, tenant), channel="sms")
    with runtime.work(tenant, mode="read") as ctx:
        types = [entry.type for entry in read_timeline(ctx, lead).entries]
    assert {"message_complained", "message_delivered", "suppressed", "sms_delivered"} <= set(types)


def test_numbers_of_a_send_that_is_over_do_not_stand_still(
    runtime: Runtime, tenant: int, campaign: int, tell: Tell
) -> None:
    runtime = replace(runtime, cache=MemoryCache(lambda: 0.0))
    send = send_to(runtime, tenant, campaign, make_leads(runtime, tenant, 3))
    with runtime.work(tenant) as ctx:
        ctx.session.execute(update(Send).values(status="completed", finished_at=ctx.now))

    def numbers() -> tuple[int, int]:
        with runtime.work(tenant, mode="read") as ctx:
            found = campaign_analytics(ctx, campaign)
            return found["accepted"], found["delivered"]

    assert numbers() == (3, 0)
    tell(event(K.DELIVERED, send, tenant))
    assert numbers() == (3, 1)
