"""Campaigns by SMS and by webhook through the delivery engine, to servers that refuse, put off, hang up and stall."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import standardwebhooks
from sqlalchemy import select, update

from nexus_marketing.builtins.channels import by_http
from nexus_marketing.config import rehearse
from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import ConfigurationError, ValidationError
from nexus_marketing.db.models import ChannelAccount, Delivery, Lead, Preflight, Send, Tenant
from nexus_marketing.db.tenancy import find
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.preflights import preflight_document, request_preflight
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.declarations import apply_declarations
from nexus_marketing.services.sent_messages import sent_message
from nexus_marketing.services.templates import create_template
from nexus_marketing.settings import HttpSettings, Settings, SmsSettings, WebhookSettings
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.contract.channels.servers import Heard, HttpServer, Reply
from tests.functional.delivery.conftest import SENDER, Stage

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-P2-004", "BR-008", "R21", "R22"),
    # Servers that hang up leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

SECRET = f"whsec_{b64encode(b's' * 32).decode()}"
TAKEN = Reply(201, b'{"sid": "SM1", "status": "queued"}')


def error(status: int, code: int, **headers: str) -> Reply:
    return Reply(status, json.dumps({"code": code, "message": "no"}).encode(), headers)


def name_of(heard: Heard) -> str:
    return str(json.loads(heard.body)["name"])


@pytest.fixture
def provider() -> Iterator[HttpServer]:
    with HttpServer(usual=TAKEN, choose=lambda heard: heard.form["To"]) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[HttpServer]:
    with HttpServer(usual=Reply(204), choose=name_of) as server:
        yield server


def http_channels(settings: Settings, clock: Clock) -> Mapping[str, Channel]:
    """The channels as a process with these settings includes them."""

    def process(config: Any) -> None:
        config.registry["nexus.runtime"] = SimpleNamespace(settings=settings, clock=clock)

    return rehearse({}, process, by_http.sms, by_http.webhook).channels


@pytest.fixture
def staged(runtime: Runtime, provider: HttpServer, receiver: HttpServer) -> Iterator[Runtime]:
    """The runtime with both channels, as the settings of an operator make them."""
    settings = replace(
        runtime.settings,
        sms=SmsSettings(url=provider.url, account="AC1", token="t", price_minor=8),
        webhook=WebhookSettings(secrets=(SECRET,)),
        http=HttpSettings(allow_hosts=(provider.allowed, receiver.allowed)),
    )
    staged = replace(runtime, settings=settings, channels=dict(http_channels(settings, SystemClock())))
    yield staged
    close(staged)


def close(runtime: Runtime) -> None:
    """What a process keeps until its end."""
    for channel in runtime.channels.values():
        channel._client.close()  # type: ignore[attr-defined]


def make_stage(runtime: Runtime, tenant: int, channel: str, config: dict[str, Any], text: str) -> Stage:
    stage = Stage(runtime, tenant, make_leads(runtime, tenant, 20))
    with runtime.work(tenant) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            lead.phone = f"+49301234{number:04}"
    stage.set_up({channel: config})
    with runtime.work(tenant) as ctx:
        stage.templates["text"] = create_template(ctx, {"name": "own", "type": "text", "content": {"text": text}}).id
    return stage


def test_a_campaign_goes_out_by_sms(staged, tenant, provider, database_time: DatabaseTime):
    provider.scripts["+493012340001"] = [error(400, 21211)]
    provider.scripts["+493012340002"] = [error(400, 21610)]
    provider.scripts["+493012340003"] = [Reply(503), Reply(500)]
    provider.scripts["+493012340004"] = [Reply(hang_up="after")]
    stage = make_stage(
        staged, tenant, "sms", {"from": "Shop"}, "Hello {{ first_name }}, {{ metadata.city | default('you') }}"
    )
    stage.launch("sms")
    stage.work()
    assert stage.sends() == {"sms": "running"}
    for _ in range(4):
        database_time.advance(hours=2)
        stage.work()
    assert stage.states() == {"sms": Counter({"accepted": 17, "failed(permanent_recipient)": 2, "unknown": 1})}
    assert stage.campaign().status == "completed"
    asked = Counter(heard.form["To"] for heard in provider.heard)
    assert asked == Counter({f"+49301234{number:04}": 3 if number == 3 else 1 for number in range(20)})
    assert provider.heard[0].form["From"] == "Shop"
    assert {heard.form["Body"] for heard in provider.heard} == {f"Hello First{number}, you" for number in range(1, 21)}
    with staged.work(tenant, mode="read") as ctx:
        codes = Counter(ctx.session.scalars(select(Delivery.provider_code)))
    assert (codes["SM1"], codes["21211"], codes["21610"]) == (17, 1, 1)


@pytest.mark.no_cover
def test_a_thousand_leads_by_mail_sms_and_webhook(staged, tenant, provider, receiver, database_time: DatabaseTime):
    """R21 with the real channels: each goes its own way, the failed ones alone are tried again, the barrier opens once."""
    staged = replace(staged, channels={"email": RecordingChannel(), **staged.channels})
    stage = Stage(staged, tenant, make_leads(staged, tenant, 1_000))
    with staged.work(tenant) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            lead.phone = f"+49301234{number:04}"
    stage.set_up({"email": SENDER, "sms": {"from": "Shop"}, "webhook": {"url": receiver.url}})
    with staged.work(tenant) as ctx:
        hook = create_template(ctx, {"name": "hook", "type": "text", "content": {"text": '{"name": "{{ name }}"}'}})
        channels = {**stage.channels("email", "sms"), "webhook": {"template_id": str(hook.id)}}
    for number in range(0, 1_000, 50):
        provider.scripts[f"+49301234{number:04}"] = [Reply(503)]
    provider.scripts["+493012340007"] = [Reply(hang_up="after")]
    receiver.scripts["Person 8"] = [Reply(500), Reply(400)]
    stage.launch(channels=channels)
    stage.work(60)
    assert stage.sends() == {"email": "completed", "sms": "running", "webhook": "running"}
    assert stage.joined == []
    for _ in range(6):
        database_time.advance(hours=2)
        stage.work(60)
    assert stage.states() == {
        "email": Counter(accepted=1_000),
        "sms": Counter(accepted=999, unknown=1),
        "webhook": Counter(accepted=1_000),
    }
    asked = Counter(heard.form["To"] for heard in provider.heard)
    assert Counter(asked.values()) == Counter({1: 980, 2: 20})
    assert Counter(Counter(map(name_of, receiver.heard)).values()) == Counter({1: 999, 3: 1})
    assert (stage.campaign().status, len(stage.joined)) == ("completed", 1)


def test_messages_can_be_made_again_as_they_left(staged, tenant, provider, receiver):
    texts = {
        "sms": " Hello {{ first_name }} https://shop.example/sale ",
        "webhook": '{"name": "{{ name }}", "s": {{ score }}}',
    }
    configs = {"sms": {"from": "Shop"}, "webhook": {"url": receiver.url}}
    stage = make_stage(staged, tenant, "sms", configs["sms"], texts["sms"])
    with staged.work(tenant) as ctx:
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        ctx.session.add(ChannelAccount(type="webhook", name="main", config=configs["webhook"], enabled=True, **times))
        hook = create_template(ctx, {"name": "hook", "type": "text", "content": {"text": texts["webhook"]}}).id
    stage.launch(channels={**stage.channels("sms"), "webhook": {"template_id": str(hook)}})
    stage.work()
    with staged.work(tenant) as ctx:
        numbers = {lead.phone: lead.id for lead in ctx.session.scalars(select(Lead))}
        names = {lead.name: lead.id for lead in ctx.session.scalars(select(Lead))}
        sends = {send.channel: send.id for send in ctx.session.scalars(select(Send))}
        ctx.session.execute(update(Lead).values(first_name="Changed", name="Changed"))
    with staged.work(tenant, mode="read") as ctx:
        for heard in provider.heard:
            found = sent_message(ctx, numbers[heard.form["To"]], sends["sms"]).rendered
            assert (found.media_type, found.content.decode()) == ("text/plain; charset=utf-8", heard.form["Body"])
        for heard in receiver.heard:
            found = sent_message(ctx, names[name_of(heard)], sends["webhook"]).rendered
            assert (found.media_type, found.content) == ("application/json", heard.body)
    assert len(provider.heard) == len(receiver.heard) == 20


def test_a_preflight_counts_the_segments_that_are_paid_for(staged, tenant, provider):
    stage = make_stage(staged, tenant, "sms", {"from": "Shop"}, "{{ first_name }}: " + "x" * 150)
    with staged.work(tenant) as ctx:
        leads = list(ctx.session.scalars(select(Lead).order_by(Lead.id)))
        # With its greeting 160 septets, 161, and 154 code units.
        leads[0].first_name, leads[1].first_name, leads[2].first_name = "x" * 8, "x" * 9, "я你"
        leads[3].phone = None
        for lead in leads[4:]:
            lead.first_name = "Jo"
    with staged.work(tenant) as ctx:
        data = {"name": "c", "segment_id": stage.segment_id, "channels": stage.channels("sms")}
        preflight_id = request_preflight(ctx, create_campaign(ctx, data).id).id
    stage.work()
    with staged.work(tenant, mode="read") as ctx:
        found = preflight_document(ctx, find(ctx.session, Preflight, preflight_id))["channels"]["sms"]
    assert (found["sendable"], found["segments"], found["cost_minor"]) == (19, 1 + 2 + 3 + 16, 8 * 22)
    assert provider.connections == 0


def test_patience_is_had_with_a_provider_that_asks_for_it(staged, tenant, provider, database_time: DatabaseTime):
    provider.usual = error(429, 20429, **{"Retry-After": "90"})
    stage = make_stage(staged, tenant, "sms", {"from": "Shop"}, "Hello")
    stage.launch("sms")
    stage.work()
    first = len(provider.heard)
    assert first <= 8
    assert stage.states() == {"sms": Counter({"planned": 20})}
    with staged.work(tenant, mode="read") as ctx:
        assert set(ctx.session.scalars(select(Delivery.attempts))) == {0}
    database_time.advance(seconds=60)
    stage.work()
    assert len(provider.heard) == first


def test_a_refused_login_stops_the_send_and_says_why(staged, tenant, provider):
    provider.usual = error(401, 20003)
    stage = make_stage(staged, tenant, "sms", {"from": "Shop"}, "Hello")
    stage.launch("sms")
    stage.work()
    assert stage.campaign().status_reason == "send paused: sender_refused: 20003"
    assert len(provider.heard) <= 8


def test_a_campaign_goes_out_by_webhook(staged, tenant, receiver, database_time: DatabaseTime):
    receiver.scripts["Person 2"] = [Reply(503, headers={"Retry-After": "30"}), Reply(302, headers={"Location": "/x"})]
    receiver.scripts["Person 3"] = [Reply(500)]
    receiver.scripts["Person 4"] = [Reply(hang_up="after")]
    text = '{"name": "{{ name }}", "score": {{ score }}, "phone": "{{ phone }}", "link": "https://shop.example/sale"}'
    stage = make_stage(staged, tenant, "webhook", {"url": f"{receiver.url}/in"}, text)
    stage.launch("webhook")
    stage.work()
    for _ in range(5):
        database_time.advance(hours=2)
        restart_patience(staged)
        stage.work()
    assert stage.states() == {"webhook": Counter(accepted=20)}
    assert stage.campaign().status == "completed"
    ids: dict[str, set[str]] = {}
    for heard in receiver.heard:
        document = standardwebhooks.Webhook(SECRET).verify(heard.body, heard.headers)
        assert document["link"].startswith(f"{staged.settings.public_url}/t/c/")
        ids.setdefault(document["name"], set()).add(heard.headers["webhook-id"])
    # However often it was tried, a message has one id, and no two share one.
    assert {len(each) for each in ids.values()} == {1}
    assert len(set.union(*ids.values())) == len(ids) == 20
    assert Counter(map(name_of, receiver.heard)).most_common(1) == [("Person 2", 3)]


def restart_patience(runtime: Runtime) -> None:
    """Hours have gone by for the database only: what the channels remember is by this machine's clock."""
    close(runtime)
    runtime.channels.update(http_channels(runtime.settings, SystemClock()))  # type: ignore[attr-defined]


def test_one_that_wants_no_more_stops_the_send(staged, tenant, receiver):
    receiver.usual = Reply(410)
    stage = make_stage(staged, tenant, "webhook", {"url": receiver.url}, '"{{ name }}"')
    receiver._choose = lambda _: ""
    stage.launch("webhook")
    stage.work()
    assert stage.campaign().status_reason == "send paused: sender_refused: 410"


@pytest.mark.parametrize(
    ("config", "text", "reason"),
    [
        ({"url": "https://127.0.0.1/"}, '"{{ name }}"', "127.0.0.1 is not connected to"),
        ({"url": "https://hooks.example/"}, "Hello {{ name }}", "The text is not JSON"),
        ({}, '"{{ name }}"', "The address that messages are posted to is required"),
    ],
)
def test_what_cannot_be_posted_pauses_the_send_with_the_reason(staged, tenant, config, text, reason, receiver):
    stage = make_stage(staged, tenant, "webhook", config, text)
    stage.launch("webhook")
    stage.work()
    assert stage.sends() == {"webhook": "paused"}
    assert "cannot be sent: " in stage.campaign().status_reason
    assert reason in stage.campaign().status_reason
    assert receiver.connections == 0


class TestDeclared:
    """A tenant's settings of these channels stand in its file, and the channels judge them."""

    def write(self, folder, text: str) -> None:
        (folder / "acme2").mkdir(exist_ok=True)
        (folder / "acme2" / "tenant.toml").write_text(f'name = "Acme"\n{text}\n', encoding="utf-8")

    def test_they_are_kept_and_changed(self, staged, tmp_path):
        self.write(tmp_path, '[channels.sms]\nfrom = "Shop"\n[channels.webhook]\nurl = "https://hooks.example/a"')
        (applied,) = apply_declarations(staged, tmp_path)
        assert [each.outcome for each in apply_declarations(staged, tmp_path)] == ["unchanged"]
        self.write(tmp_path, '[channels.sms]\nfrom = "Shop"\n[channels.webhook]\nurl = "https://hooks.example/b"')
        assert [each.outcome for each in apply_declarations(staged, tmp_path)] == ["changed"]
        with staged.work(applied.tenant_id, mode="read") as ctx:
            found = {each.type: each.config for each in ctx.session.scalars(select(ChannelAccount))}
        assert found == {"sms": {"from": "Shop"}, "webhook": {"url": "https://hooks.example/b"}}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('[channels.fax]\nnumber = "1"', r"acme2/tenant\.toml: channels\.fax: There is no channel 'fax' here"),
            (
                '[channels.webhook]\nurl = "https://10.0.0.1/"',
                r"channels\.webhook\.url: 10\.0\.0\.1 is not connected to",
            ),
            ('[channels.sms]\nfrom = "+0"', r"channels\.sms\.from"),
            ('[channels.sms]\nfrom = "Shop"\naccount = "AC2"\ntoken = "c4n4ry"', r"nexus\.sms\.token"),
            ('[channels.email]\nfrom_email = "a@b.example"', r"E-mail is declared as \[email\]"),
            ("channels = 3", r"write \[channels\]"),
        ],
    )
    def test_a_fault_is_named_and_changes_nothing(self, staged, tmp_path, text, words):
        self.write(tmp_path, text)
        with pytest.raises(ValidationError, match=words) as refused:
            apply_declarations(staged, tmp_path)
        assert "c4n4ry" not in str(refused.value)
        with staged.work(None, mode="read", role="owner") as ctx:
            assert "acme2" not in ctx.session.scalars(select(Tenant.slug)).all()


class TestOperator:
    def test_only_what_is_set_up_is_there(self, runtime):
        secret = replace(runtime.settings, webhook=WebhookSettings(secrets=(SECRET,)))
        assert list(http_channels(secret, SystemClock())) == ["webhook"]
        assert dict(http_channels(runtime.settings, SystemClock())) == {}

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"sms": SmsSettings(url="http://10.0.0.1/x")}, r"nexus\.sms\.url: 10\.0\.0\.1 is not connected to"),
            ({"webhook": WebhookSettings(secrets=("c4n4ry",))}, r"nexus\.webhook\.secrets: A secret is whsec_"),
            (
                {"webhook": WebhookSettings(secrets=(SECRET,)), "http": HttpSettings(allow_hosts=("a/b",))},
                r"nexus\.http\.allow_hosts: 'a/b' is no host",
            ),
        ],
    )
    def test_a_setting_that_cannot_be_stops_the_start(self, runtime, changes, words):
        with pytest.raises(ConfigurationError, match=words) as refused:
            http_channels(replace(runtime.settings, **changes), SystemClock())
        assert "c4n4ry" not in str(refused.value)


def test_the_sends_keep_no_secret(staged, tenant):
    stage = make_stage(staged, tenant, "webhook", {"url": "https://hooks.example/"}, '"{{ name }}"')
    stage.launch("webhook")
    with staged.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Send.sender)).all() == [{"url": "https://hooks.example/"}]
