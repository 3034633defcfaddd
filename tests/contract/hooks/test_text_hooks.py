"""Text messages: what Twilio's callbacks say, proved by the account's token."""

import pytest

from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.core.contracts import HearingChannel, ProviderEventKind
from nexus_marketing.plugin.http import HttpClient
from tests.common import provider_reports as reports

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "D07", "R21")

URL = "https://mail.example.com/hooks/acme/sms"
STATUS_URL = "https://mail.example.com/hooks/-/sms?message=r7.s3.t1"
K = ProviderEventKind


@pytest.fixture
def channel(clock):
    client = HttpClient()
    yield SmsChannel(
        SmsProvider("https://api.twilio.com/2010-04-01", "AC1", reports.TWILIO_TOKEN, "+1500"), client, clock
    )
    client.close()


@pytest.fixture
def said(channel, lower):
    def read(fields, url=URL):
        call = reports.twilio(url, fields)
        headers = lower(call, **{":url": url, ":provider": ""})
        assert channel.verify({}, headers, call.body)
        return list(channel.parse_events({}, headers, call.body))

    return read


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("delivered", "", K.DELIVERED),
        ("undelivered", "30003", K.BOUNCED_SOFT),
        ("undelivered", "30005", K.BOUNCED_HARD),
        ("undelivered", "30006", K.BOUNCED_HARD),
        ("failed", "21610", K.UNSUBSCRIBED),
        ("failed", "", K.BOUNCED_SOFT),
    ],
)
def test_what_became_of_a_message(channel, said, status, code, kind):
    assert isinstance(channel, HearingChannel)
    more = {"ErrorCode": code} if code else {}
    (event,) = said(reports.text_status(status, **more), STATUS_URL)
    assert (event.kind, event.event_id, event.message_id, event.code) == (kind, f"SM1:{status}", "r7.s3.t1", "SM1")
    assert event.address == "+4930123456"


def test_a_form_that_is_no_text_message_is_not_read(channel, lower):
    """Reading a megabyte of escapes takes a third of a second, for each account that might have signed it."""
    call = reports.twilio(URL, reports.text_received("\u00e9" * 20_000))
    assert not channel.verify({}, lower(call, **{":url": URL, ":provider": ""}), call.body)


@pytest.mark.parametrize("status", ["queued", "sending", "sent", "accepted", "read", "", "x"])
def test_the_way_there_is_let_go(said, status):
    assert said(reports.text_status(status), STATUS_URL) == []


def test_somebody_writes(said):
    (event,) = said(reports.text_received("Stop please 🛑"))
    assert (event.kind, event.address, event.detail) == (K.INBOUND_MESSAGE, "+4930123456", "Stop please 🛑")
    assert said(reports.text_received("ARRETER", OptOutType="STOP"))[0].detail == "STOP"


def test_the_address_and_each_field_are_signed(channel, lower):
    call = reports.twilio(URL, reports.text_received("STOP"))
    headers = lower(call, **{":url": URL, ":provider": ""})
    assert channel.verify({}, headers, call.body)
    changed = [
        (headers | {":url": URL + "?x=1"}, call.body),
        (headers | {":url": URL.replace("acme", "globex")}, call.body),
        (headers, call.body.replace(b"STOP", b"HELP")),
        (headers, call.body + b"&x=1"),
        (headers | {"content-type": "application/json"}, call.body),
        (headers | {"x-twilio-signature": ""}, call.body),
        (headers, b"\xff=\xff"),
        (headers, b"&".join(b"a%d=1" % n for n in range(300))),
    ]
    for other, body in changed:
        assert not channel.verify({}, other, body)


def test_a_tenants_own_account_signs_with_its_own_token(channel, lower):
    own = {"account": "AC2", "token": "other"}
    for token, settings in (("other", own), (reports.TWILIO_TOKEN, {})):
        call = reports.twilio(URL, reports.text_received("STOP"), token=token)
        headers = lower(call, **{":url": URL, ":provider": ""})
        assert channel.verify(settings, headers, call.body)
        assert not channel.verify({} if settings else own, headers, call.body)


def test_without_a_token_nobody_is_believed(clock, lower):
    client = HttpClient()
    channel = SmsChannel(SmsProvider("https://api.twilio.com/2010-04-01"), client, clock)
    call = reports.twilio(URL, reports.text_received("STOP"), token="")
    assert not channel.verify({}, lower(call, **{":url": URL}), call.body)
    client.close()


def test_fields_that_come_twice_are_signed_as_twilio_does(channel, lower):
    call = reports.twilio(URL, [("MessageSid", "SM1"), ("Media", "b"), ("Media", "a")])
    assert channel.verify({}, lower(call, **{":url": URL}), call.body)


def test_a_form_without_a_message_says_nothing(said):
    assert said({"x": "1"}) == []
    assert said({"Body": "STOP"}) == []
