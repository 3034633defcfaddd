"""Providers at the door: nothing is believed without proof, everything with proof is kept, and what follows happens once."""

import os
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update
from webtest import TestApp

from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.builtins.hooks.mailgun import MailgunHook
from nexus_marketing.builtins.hooks.postmark import PostmarkHook
from nexus_marketing.builtins.hooks.sendgrid import SendGridHook
from nexus_marketing.builtins.hooks.ses import SesHook
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import AddressKind, Capabilities, ProviderEvent, ProviderEventKind
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.db.models import Delivery, ProviderReport, Suppression
from nexus_marketing.plugin.http import HttpClient
from nexus_marketing.runtime import Runtime
from nexus_marketing.services import hooks as hook_services
from nexus_marketing.services.channels.records import create_account
from nexus_marketing.services.provider_reports import take_in_reports
from nexus_marketing.smtp.client import PoolSettings
from tests.common import provider_reports as reports
from tests.common.factories import make_campaign, make_leads, make_send, make_template
from tests.common.provider_reports import Amazon, Call
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "SR-001", "BR-012")

K = ProviderEventKind
#: Bodies of garbage in a run of everything; 10,000 were sent once.
GARBAGE = int(os.environ.get("NEXUS_GARBAGE", "60"))
EMAIL = {"email": "jane@example.org"}


class StrangeChannel:
    """A plugin's channel, that reports whatever its test wants."""

    name = "strange"
    capabilities = Capabilities(AddressKind.EMAIL, 1)
    says: Any = ()

    def verify(self, _settings: Mapping[str, Any], headers: Mapping[str, str], _body: bytes) -> bool:
        if headers.get("x-fault") == "verify":
            raise RuntimeError
        if headers.get("x-fault") == "away":
            raise Unavailable
        return headers.get("x-secret") == "s3cret"

    def parse_events(self, _settings: Mapping[str, Any], _headers: Mapping[str, str], body: bytes) -> Any:
        if body == b"fault":
            raise RuntimeError
        return self.says


class DeafChannel:
    name = "deaf"
    capabilities = Capabilities(AddressKind.NONE, 1)


@pytest.fixture
def amazon() -> Amazon:
    return reports.amazon()


@pytest.fixture
def strange() -> StrangeChannel:
    return StrangeChannel()


@pytest.fixture
def runtime(runtime: Runtime, clock: FakeClock, amazon: Amazon, strange: StrangeChannel) -> Runtime:
    """With every provider set up."""
    hooks = {
        "ses": SesHook([reports.TOPIC], amazon, clock),
        "sendgrid": SendGridHook([reports.sendgrid_public()]),
        "mailgun": MailgunHook([reports.MAILGUN_KEY], clock),
        "postmark": PostmarkHook([reports.POSTMARK_TOKEN]),
    }
    provider = SmsProvider("https://api.twilio.com/2010-04-01", "AC1", reports.TWILIO_TOKEN, "+1500")
    channels: Any = {
        "email": EmailChannel(PoolSettings(host="127.0.0.1", port=25), clock, hooks),
        "sms": SmsChannel(provider, HttpClient(), clock),
        "strange": strange,
        "deaf": DeafChannel(),
    }
    return replace(runtime, channels=channels)


@pytest.fixture
def message(runtime: Runtime, tenant: int) -> str:
    """The Message-ID of an accepted message to jane@example.org."""
    leads = make_leads(runtime, tenant, **EMAIL)
    return accepted(runtime, tenant, leads)


def accepted(runtime: Runtime, tenant: int, leads: list[int], channel: str = "email", **values: Any) -> str:
    template = make_template(runtime, tenant, f"T{leads[0]}{channel}{len(values)}")
    send = make_send(runtime, tenant, make_campaign(runtime, tenant), template, leads, channel=channel)
    with runtime.work(tenant) as ctx:
        changes = {"state": "accepted", "channel": channel, "settled_at": ctx.now, "provider_code": "250", **values}
        ctx.session.execute(update(Delivery).where(Delivery.send_id == send).values(**changes))
    return f"<r1.s{send}.t{tenant}@example.com>"


def post(app: TestApp, path: str, call: Call, status: int = 200) -> Any:
    answer = app.post(path, call.body, headers=dict(call.headers), status="*")
    assert answer.status_int == status, answer.text
    return answer


def waiting(runtime: Runtime, tenant: int) -> list[ProviderReport]:
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(ProviderReport).order_by(ProviderReport.id)))


def settle(runtime: Runtime, tenant: int) -> None:
    while take_in_reports(runtime, tenant):
        pass


def states(runtime: Runtime, tenant: int) -> list[str]:
    settle(runtime, tenant)
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(Delivery.state).order_by(Delivery.send_id, Delivery.seq)))


def suppressions(runtime: Runtime, tenant: int) -> list[tuple[str, str, str, str]]:
    settle(runtime, tenant)
    with runtime.work(tenant, mode="read") as ctx:
        rows = ctx.session.scalars(select(Suppression).order_by(Suppression.id))
        return [(row.channel, row.type, row.reason, row.source) for row in rows]


def calls(message: str) -> dict[str, Call]:
    """A hard bounce in each provider's words."""
    trace = message.strip("<>").partition("@")[0]
    return {
        "ses": reports.sns(reports.ses("Bounce", message_id=message)),
        "sendgrid": reports.sendgrid(reports.sendgrid_event("bounce", message_id=message, type="bounce")),
        "mailgun": reports.mailgun("failed", message_id=message, severity="permanent", reason="bounce"),
        "postmark": reports.postmark("Bounce", message=trace),
    }


PROVIDERS = ["ses", "sendgrid", "mailgun", "postmark"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("place", ["acme", "-"])
def test_a_bounce_reaches_its_message_and_its_address(
    app: TestApp, runtime: Runtime, tenant: int, message: str, provider: str, place: str
) -> None:
    for _ in range(3):  # providers repeat
        answer = post(app, f"/hooks/{place}/email/{provider}", calls(message)[provider])
        assert answer.body == b""
    assert states(runtime, tenant) == ["bounced_hard"]
    assert suppressions(runtime, tenant) == [("email", "all", "bounced", f"email:{provider}")]
    assert waiting(runtime, tenant) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_who_proves_nothing_changes_nothing(
    app: TestApp, runtime: Runtime, tenant: int, message: str, provider: str, count_statements: Any
) -> None:
    call = calls(message)[provider]
    names = {"Authorization": "Basic bmV4dXM6eA==", "X-Twilio-Email-Event-Webhook-Timestamp": "1"}
    forged = {name: names.get(name, value) for name, value in call.headers.items()}
    body = call.body.replace(b'"signature": "', b'"signature": "0').replace(b'"Signature": "', b'"Signature": "A')
    with count_statements() as statements:
        for place in ("acme", "globex", "-"):
            answer = post(app, f"/hooks/{place}/email/{provider}", Call(body, forged), 403)
            assert answer.json["code"] == "permission_denied"
    assert statements == []  # not even the tenant is looked up
    assert waiting(runtime, tenant) == []


def test_what_is_not_set_up_is_not_there(app: TestApp, tenant: int, message: str) -> None:
    del tenant
    call = calls(message)["postmark"]
    for path in ("fax", "deaf", "deaf/x", "fax/x"):
        post(app, f"/hooks/acme/{path}", call, 404)
    for path in ("email", "email/mandrill", "email/-"):
        post(app, f"/hooks/acme/{path}", call, 403)
    post(app, "/hooks/nobody/email/postmark", call, 404)
    assert app.get("/hooks/acme/email/postmark", status="*").status_int == 405


@pytest.mark.req("SR-003", "S02")
class TestOtherTenants:
    def test_a_message_of_another_tenant_is_none_of_this_one(
        self, app: TestApp, runtime: Runtime, tenant: int, other_tenant: int, message: str
    ) -> None:
        make_leads(runtime, other_tenant, **EMAIL)
        post(app, "/hooks/globex/email/postmark", calls(message)["postmark"])
        for each in (tenant, other_tenant):
            assert suppressions(runtime, each) == []
        assert states(runtime, tenant) == ["accepted"]

    def test_a_number_of_a_send_of_another_tenant_reaches_nothing(
        self, app: TestApp, runtime: Runtime, tenant: int, other_tenant: int, message: str
    ) -> None:
        make_leads(runtime, other_tenant, **EMAIL)
        forged = message.replace(f".t{tenant}@", f".t{other_tenant}@")
        post(app, "/hooks/globex/email/postmark", calls(forged)["postmark"])
        # The address is one of theirs: that it bounces is theirs to know, the message is not.
        assert suppressions(runtime, other_tenant) == [("email", "all", "bounced", "email:postmark")]
        assert states(runtime, tenant) == ["accepted"]
        assert suppressions(runtime, tenant) == []

    def test_a_tenant_that_is_no_more_keeps_nothing(self, app: TestApp, runtime: Runtime, tenant: int) -> None:
        post(app, "/hooks/-/email/postmark", calls("<r1.s1.t999999@x>")["postmark"])
        assert waiting(runtime, tenant) == waiting(runtime, 999999) == []

    def test_one_call_may_be_about_several(
        self, app: TestApp, runtime: Runtime, tenant: int, other_tenant: int, message: str
    ) -> None:
        theirs = accepted(runtime, other_tenant, make_leads(runtime, other_tenant, **EMAIL))
        events = [
            reports.sendgrid_event("delivered", message_id=message, number="1"),
            reports.sendgrid_event("spamreport", message_id=theirs, number="2"),
            reports.sendgrid_event("bounce", message_id="<14c5d75ce93.dfd.64b469@ismtpd-555>", number="3"),
        ]
        post(app, "/hooks/-/email/sendgrid", reports.sendgrid(*events))
        assert states(runtime, tenant) == ["delivered"]
        assert states(runtime, other_tenant) == ["complained"]
        assert suppressions(runtime, tenant) == []
        assert suppressions(runtime, other_tenant) == [("email", "marketing", "complained", "email:sendgrid")]


class TestUnknown:
    def test_a_message_of_somebody_else_is_heard_and_forgotten(
        self, app: TestApp, runtime: Runtime, tenant: int, message: str
    ) -> None:
        call = reports.postmark("Bounce", message="", Email="stranger@example.net")
        post(app, "/hooks/acme/email/postmark", call)
        assert suppressions(runtime, tenant) == []
        assert states(runtime, tenant) == ["accepted"]

    def test_a_wish_counts_without_the_message(self, app: TestApp, runtime: Runtime, tenant: int, message: str) -> None:
        post(app, "/hooks/acme/email/postmark", reports.postmark("SpamComplaint"))
        assert suppressions(runtime, tenant) == [("email", "marketing", "complained", "email:postmark")]
        assert states(runtime, tenant) == ["accepted"]

    def test_the_providers_code_says_the_message_too(self, app: TestApp, runtime: Runtime, tenant: int) -> None:
        code = "883953f4-6105-42a2-a16a-77a8eac79483"
        accepted(runtime, tenant, make_leads(runtime, tenant, **EMAIL), provider_code=code)
        post(app, "/hooks/acme/email/postmark", reports.postmark("Delivery"))
        assert states(runtime, tenant) == ["delivered"]


class TestAmazon:
    def test_a_subscription_is_confirmed(self, app: TestApp, amazon: Amazon, tenant: int) -> None:
        del tenant
        post(app, "/hooks/acme/email/ses", reports.confirmation())
        assert reports.CONFIRM_URL in amazon.asked

    def test_what_cannot_be_told_now_comes_again(
        self, app: TestApp, runtime: Runtime, tenant: int, message: str, amazon: Amazon
    ) -> None:
        amazon.is_away = True
        answer = post(app, "/hooks/acme/email/ses", calls(message)["ses"], 503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert waiting(runtime, tenant) == []


class TestStrangers:
    """A third party's channel reports like our own, and its faults are its own."""

    secret = {"X-Secret": "s3cret"}  # noqa: RUF012 - read only

    def test_its_events_are_ours(self, app: TestApp, runtime: Runtime, tenant: int, strange: StrangeChannel) -> None:
        key = accepted(runtime, tenant, make_leads(runtime, tenant, **EMAIL), channel="strange")
        strange.says = [ProviderEvent(K.COMPLAINED, "1", message_id=key, address="jane@example.org")]
        post(app, "/hooks/acme/strange", Call(b"x", self.secret))
        assert states(runtime, tenant) == ["complained"]
        assert suppressions(runtime, tenant) == [("strange", "marketing", "complained", "strange")]

    @pytest.mark.parametrize(
        ("headers", "body", "status"),
        [
            ({}, b"x", 403),
            ({"X-Fault": "verify"}, b"x", 403),
            ({"X-Fault": "away"}, b"x", 503),
            (secret, b"fault", 200),
        ],
    )
    def test_its_faults_are_not_those_of_the_provider(
        self, app: TestApp, runtime: Runtime, tenant: int, headers: Any, body: bytes, status: int
    ) -> None:
        post(app, "/hooks/acme/strange", Call(body, headers), status)
        assert waiting(runtime, tenant) == []

    def test_what_it_says_is_made_fit_for_a_database(
        self, app: TestApp, runtime: Runtime, tenant: int, strange: StrangeChannel
    ) -> None:
        bad = "\x00\ud800" + "x" * 100_000
        strange.says = [ProviderEvent(K.BOUNCED_HARD, f"{n}{bad}", bad, bad, bad, None, bad) for n in range(3)]
        post(app, "/hooks/acme/strange", Call(b"x", self.secret))
        assert len(waiting(runtime, tenant)) == 3
        settle(runtime, tenant)
        assert suppressions(runtime, tenant) == []

    @pytest.mark.parametrize(
        "says",
        [None, 7, [None], ["x"], [{}], [ProviderEvent("nonsense", "1")], [ProviderEvent(K.DELIVERED, "1", at=7)]],
    )
    def test_what_is_no_event_is_not_kept(
        self, app: TestApp, runtime: Runtime, tenant: int, strange: StrangeChannel, says: Any
    ) -> None:
        strange.says = says
        post(app, "/hooks/acme/strange", Call(b"x", self.secret))
        assert waiting(runtime, tenant) == []

    def test_channels_do_not_speak_of_each_others_messages(
        self, app: TestApp, runtime: Runtime, tenant: int, message: str, strange: StrangeChannel
    ) -> None:
        strange.says = [ProviderEvent(K.BOUNCED_HARD, "1", message_id=message)]
        post(app, "/hooks/acme/strange", Call(b"x", self.secret))
        assert states(runtime, tenant) == ["accepted"]


@pytest.mark.parametrize("share", [0, 1], ids=["unsigned", "signed"])
def test_garbage_makes_nothing_fail(app: TestApp, runtime: Runtime, tenant: int, message: str, share: int) -> None:
    rng = random.Random(share)
    good = calls(message)
    words = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"1e999", b'"Type"', b'"event-data"', b"\x00", b"\xff"]
    for number in range(GARBAGE):
        body = b"".join(rng.choices(words, k=rng.randrange(40))) + rng.randbytes(rng.randrange(30))
        provider = PROVIDERS[number % 4]
        broken = bytearray(good[provider].body)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        signed = {"sendgrid": reports.sendgrid(raw=body), "ses": reports.sns(body.decode("latin-1"))}
        known = signed.get(provider, Call(bytes(broken), good[provider].headers))
        call = known if share else Call(rng.choice([body, bytes(broken)]), {})
        headers = dict(call.headers)
        status = app.post(f"/hooks/acme/email/{provider}", call.body, headers=headers, status="*").status_int
        # Signatures that lie in the body cover less than all of it: of Mailgun's not the event, of Amazon's not each link.
        may_be_theirs = share or provider in ("mailgun", "ses")
        assert status in ({200, 403} if may_be_theirs else {403}), (provider, body)
        assert app.post("/hooks/acme/sms", body, status="*").status_int == 403
    settle(runtime, tenant)


def test_a_body_has_a_bound(app: TestApp, tenant: int) -> None:
    del tenant
    post(app, "/hooks/acme/email/postmark", Call(b" " * 1_000_001), 413)


class TestTexts:
    base = "http://127.0.0.1:6543"

    def say(self, app: TestApp, fields: Mapping[str, str], path: str = "/hooks/acme/sms", status: int = 200) -> Any:
        return post(app, path, reports.twilio(self.base + path, fields), status)

    def test_a_status_finds_its_message_of_any_tenant(self, app: TestApp, runtime: Runtime, tenant: int) -> None:
        key = accepted(runtime, tenant, make_leads(runtime, tenant, phone="+4930123456"), channel="sms")
        path = f"/hooks/-/sms?message={key.strip('<>').partition('@')[0]}"
        for status in ("sent", "delivered", "delivered"):
            self.say(app, reports.text_status(status), path)
        assert states(runtime, tenant) == ["delivered"]

    def test_a_message_for_nobody_in_particular_is_refused(self, app: TestApp, tenant: int) -> None:
        del tenant
        answer = self.say(app, reports.text_received("STOP"), "/hooks/-/sms", 422)
        assert "Write its name" in answer.text

    def test_the_answer_is_no_text_message(self, app: TestApp, tenant: int) -> None:
        del tenant
        answer = self.say(app, reports.text_received("hello"))
        assert (answer.body, answer.content_type) == (b"", "text/plain")

    def test_another_tenants_address_is_another_signature(self, app: TestApp, tenant: int, other_tenant: int) -> None:
        del tenant, other_tenant
        call = reports.twilio(self.base + "/hooks/acme/sms", reports.text_received("STOP"))
        post(app, "/hooks/globex/sms", call, 403)
        post(app, "/hooks/nobody/sms", call, 403)

    def test_what_takes_long_to_tell_is_left(
        self, app: TestApp, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Anybody may send anything, and a tenant may have many accounts: not all are tried whatever that costs."""
        with runtime.work(tenant) as ctx:
            create_account(
                ctx, {"type": "sms", "name": "own", "config": {"from": "Shop", "account": "A", "token": "t"}}
            )
        call = reports.twilio(self.base + "/hooks/acme/sms", reports.text_received("hello"), token="t")
        post(app, "/hooks/acme/sms", call, 200)
        monkeypatch.setattr(hook_services, "_LONGEST_SECONDS", -1.0)
        assert int(post(app, "/hooks/acme/sms", call, 503).headers["Retry-After"]) > 0

    def test_any_account_of_the_tenants_own_may_be_reported_on(
        self, app: TestApp, runtime: Runtime, tenant: int
    ) -> None:
        with runtime.work(tenant) as ctx:
            for name in ("first", "second"):
                config = {"from": "Shop", "account": f"AC-{name}", "token": f"token of the {name}"}
                create_account(ctx, {"type": "sms", "name": name, "config": config})
        for token, status in (("token of the second", 200), ("token of the third", 403), (reports.TWILIO_TOKEN, 403)):
            call = reports.twilio(self.base + "/hooks/acme/sms", reports.text_received("hello"), token=token)
            post(app, "/hooks/acme/sms", call, status)


def test_numbers_of_the_campaign_follow(client: Client, runtime: Runtime, tenant: int, message: str) -> None:
    campaign = client.get("/api/v1/campaigns").json["data"][0]["id"]
    before = client.get(f"/api/v1/campaigns/{campaign}/analytics").json
    assert (before["accepted"], before["delivered"], before["bounced"]) == (1, 0, 0)
    post(client.app, "/hooks/acme/email/postmark", calls(message)["postmark"])
    settle(runtime, tenant)
    after = client.get(f"/api/v1/campaigns/{campaign}/analytics").json
    assert (after["accepted"], after["delivered"], after["bounced"]) == (1, 0, 1)
    assert after["planned"] == after["accepted"] + after["open"] + after["failed"]
