"""Providers of mail, with what their documentation shows: proved to be theirs, and put into our words."""

import json
import random
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.builtins.hooks.building import email_hooks
from nexus_marketing.builtins.hooks.mailgun import MailgunHook
from nexus_marketing.builtins.hooks.postmark import PostmarkHook
from nexus_marketing.builtins.hooks.sendgrid import SendGridHook
from nexus_marketing.builtins.hooks.ses import SesHook
from nexus_marketing.core.contracts import Content, HearingChannel, ProviderEventKind, Submission
from nexus_marketing.core.errors import ConfigurationError, Unavailable
from nexus_marketing.core.templates import parse_message
from nexus_marketing.plugin.http import Answer
from nexus_marketing.settings import EmailHookSettings, Settings
from nexus_marketing.smtp.client import PoolSettings
from tests.common import provider_reports as reports
from tests.common.databases import NOW
from tests.common.provider_reports import Amazon, Call

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "FR-EXT-001", "R21")

OURS = "<r7.s3.t1@example.com>"
K = ProviderEventKind


@pytest.fixture
def amazon() -> Amazon:
    return reports.amazon()


@pytest.fixture
def hooks(amazon, clock):
    return {
        "ses": SesHook([reports.TOPIC], amazon, clock),
        "sendgrid": SendGridHook([reports.sendgrid_public()]),
        "mailgun": MailgunHook(["another-key", reports.MAILGUN_KEY], clock),
        "postmark": PostmarkHook([reports.POSTMARK_TOKEN]),
    }


@pytest.fixture
def said(hooks, lower):
    """The events of a call, which is theirs."""

    def read(provider: str, call: Call):
        assert hooks[provider].verify(lower(call), call.body)
        return list(hooks[provider].parse_events(lower(call), call.body))

    return read


@pytest.fixture
def is_theirs(hooks, lower):
    return lambda provider, call: hooks[provider].verify(lower(call), call.body)


class TestSes:
    @pytest.mark.parametrize(
        ("what", "part", "kind"),
        [
            ("Bounce", {}, K.BOUNCED_HARD),
            ("Bounce", {"bounceType": "Transient", "bounceSubType": "MailboxFull"}, K.BOUNCED_SOFT),
            ("Bounce", {"bounceType": "Undetermined"}, K.BOUNCED_SOFT),
            ("Complaint", {}, K.COMPLAINED),
            ("Delivery", {}, K.DELIVERED),
            ("DeliveryDelay", {}, K.DEFERRED),
        ],
    )
    @pytest.mark.parametrize("version", ["1", "2"])
    def test_what_it_reports_is_put_into_our_words(self, said, what, part, kind, version):
        (event,) = said("ses", reports.sns(reports.ses(what, message_id=OURS, **part), version=version))
        assert (event.kind, event.event_id, event.address) == (kind, "m-1:0", "jane@example.org")
        assert (event.message_id, event.at) == (OURS, reports.AT)
        assert event.code.startswith("EXAMPLE7c191be45")

    def test_notifications_of_an_identity_say_another_word(self, said):
        told = reports.ses("Complaint", message_id=OURS)
        told["notificationType"] = told.pop("eventType")
        assert [event.kind for event in said("ses", reports.sns(told))] == [K.COMPLAINED]

    def test_the_return_path_says_the_message_where_headers_do_not(self, said):
        told = reports.ses("Delivery")
        told["mail"]["source"] = "bounce-r7.s3.t1@bounces.example.com"
        assert said("ses", reports.sns(told))[0].message_id == "bounce-r7.s3.t1@bounces.example.com"

    def test_each_recipient_is_an_event(self, said):
        listed = [{"emailAddress": "Jane <jane@example.org>"}, {"emailAddress": "joe@example.org"}, "x", {}]
        found = said("ses", reports.sns(reports.ses("Bounce", bouncedRecipients=listed)))
        assert [event.address for event in found] == ["jane@example.org", "joe@example.org", ""]
        assert len({event.event_id for event in found}) == 3

    @pytest.mark.parametrize("told", ["no json", [], {"eventType": "Send"}, {"eventType": "Bounce"}, {"eventType": 7}])
    def test_the_rest_is_let_go(self, said, told):
        assert said("ses", reports.sns(told)) == []

    def test_somebody_who_is_no_spam_has_not_complained(self, said):
        assert said("ses", reports.sns(reports.ses("Complaint", complaintFeedbackType="not-spam"))) == []

    @pytest.mark.req("S10")
    @pytest.mark.parametrize(
        "url",
        [
            "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",  # of another region than the topic
            "https://sns.eu-west-1.amazonaws.com.example.org/SimpleNotificationService-1.pem",
            "https://example.org/sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.eu-west-1.amazonaws.com@example.org/SimpleNotificationService-1.pem",
            "https://x@sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
            "https://bucket.s3.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.eu-west-1.amazonaws.com/../x.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem/x",
            "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem?1",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem#1",
            "https://[::1/SimpleNotificationService-1.pem",
            "",
        ],
    )
    def test_a_certificate_from_elsewhere_is_not_asked_for(self, is_theirs, amazon, url):
        assert not is_theirs("ses", reports.sns(reports.ses("Bounce"), SigningCertURL=url))
        assert amazon.asked == []

    def test_another_topic_proves_nothing_however_well_it_is_signed(self, is_theirs, amazon):
        theirs = reports.TOPIC.replace("123456789012", "999999999999")
        assert not is_theirs("ses", reports.sns(reports.ses("Complaint"), TopicArn=theirs))
        assert amazon.asked == []

    @pytest.mark.parametrize("name", ["Message", "MessageId", "Timestamp", "Signature", "Type"])
    def test_what_was_changed_on_the_way_is_refused(self, is_theirs, name):
        envelope = json.loads(reports.sns(reports.ses("Bounce")).body)
        envelope[name] = {"Type": "UnsubscribeConfirmation"}.get(name, envelope[name] + "A")
        assert not is_theirs("ses", Call(json.dumps(envelope).encode()))

    def test_a_subject_is_part_of_what_is_signed(self, is_theirs):
        call = reports.sns(reports.ses("Bounce"), Subject="Amazon SES Email Event Notification")
        assert is_theirs("ses", call)
        assert not is_theirs("ses", Call(call.body.replace(b"Event Notification", b"Event Notificatiox")))

    def test_the_certificate_is_asked_for_once(self, is_theirs, amazon, clock):
        for _ in range(3):
            assert is_theirs("ses", reports.sns(reports.ses("Bounce")))
        assert amazon.asked == [reports.CERTIFICATE_URL]
        clock.advance(hours=7)
        assert is_theirs("ses", reports.sns(reports.ses("Bounce")))
        assert len(amazon.asked) == 2

    def test_who_makes_up_addresses_does_not_push_out_the_certificate_that_signs(self, is_theirs, amazon):
        assert is_theirs("ses", reports.sns(reports.ses("Bounce")))
        for number in range(40):
            url = reports.CERTIFICATE_URL.replace(".pem", f"{number}.pem")
            amazon.answers[url] = Answer(404, {}, b"")
            assert not is_theirs("ses", reports.sns(reports.ses("Bounce"), SigningCertURL=url))
        amazon.is_away = True
        assert is_theirs("ses", reports.sns(reports.ses("Bounce")))

    def test_the_key_of_another_certificate_is_another(self, is_theirs, amazon):
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        amazon.answers[reports.CERTIFICATE_URL] = Answer(200, {}, reports.certificate(other))
        assert not is_theirs("ses", reports.sns(reports.ses("Bounce")))

    @pytest.mark.parametrize(
        "answer",
        [Answer(404, {}, b""), Answer(200, {}, b"no certificate"), Answer(200, {}, reports.certificate(expired=True))],
    )
    def test_what_is_no_certificate_proves_nothing(self, is_theirs, amazon, answer):
        amazon.answers[reports.CERTIFICATE_URL] = answer
        for _ in range(2):  # and is not asked for again at once
            assert not is_theirs("ses", reports.sns(reports.ses("Bounce")))
        assert len(amazon.asked) == 1

    @pytest.mark.parametrize("is_away", [True, False])
    def test_while_amazon_does_not_answer_it_has_to_come_again(self, is_theirs, amazon, is_away):
        amazon.is_away = is_away
        amazon.answers[reports.CERTIFICATE_URL] = Answer(503, {}, b"")
        with pytest.raises(Unavailable):
            is_theirs("ses", reports.sns(reports.ses("Bounce")))

    def test_a_subscription_is_confirmed(self, said, amazon):
        assert said("ses", reports.confirmation()) == []
        assert amazon.asked == [reports.CERTIFICATE_URL, reports.CONFIRM_URL]

    @pytest.mark.req("S10")
    def test_a_subscription_is_confirmed_at_amazon_only(self, said, amazon):
        assert said("ses", reports.confirmation(SubscribeURL="https://169.254.169.254/latest/meta-data")) == []
        assert amazon.asked == [reports.CERTIFICATE_URL]

    def test_a_confirmation_that_amazon_does_not_hear_is_asked_for_again(self, hooks, amazon):
        amazon.answers[reports.CONFIRM_URL] = Answer(500, {}, b"")
        with pytest.raises(Unavailable):
            hooks["ses"].parse_events({}, reports.confirmation().body)


class TestSendGrid:
    @pytest.mark.parametrize(
        ("event", "more", "kind"),
        [
            ("delivered", {"response": "250 OK"}, K.DELIVERED),
            ("deferred", {"response": "400 try again later", "attempt": "5"}, K.DEFERRED),
            ("bounce", {"reason": "550 5.1.1 unknown", "status": "5.1.1", "type": "bounce"}, K.BOUNCED_HARD),
            ("bounce", {"reason": "554 5.7.1 blocked", "status": "5.7.1", "type": "blocked"}, K.BOUNCED_SOFT),
            ("dropped", {"reason": "Bounced Address", "status": "5.0.0"}, K.BOUNCED_HARD),
            ("dropped", {"reason": "Spam Reporting Address"}, K.COMPLAINED),
            ("spamreport", {}, K.COMPLAINED),
            ("unsubscribe", {}, K.UNSUBSCRIBED),
            ("group_unsubscribe", {"asm_group_id": 10}, K.UNSUBSCRIBED),
        ],
    )
    def test_what_it_reports_is_put_into_our_words(self, said, event, more, kind):
        (found,) = said("sendgrid", reports.sendgrid(reports.sendgrid_event(event, message_id=OURS, **more)))
        assert (found.kind, found.event_id, found.address) == (kind, f"{event}-1", "jane@example.org")
        assert (found.message_id, found.at) == (OURS, reports.AT)

    def test_the_rest_is_let_go(self, said):
        others = [reports.sendgrid_event(each) for each in ("processed", "open", "click", "dropped")]
        assert said("sendgrid", reports.sendgrid(*others, {"event": "bounce"}, "x", 7, None)) == []

    @pytest.mark.parametrize("raw", [b"", b"{}", b"null", b"[[]]", b"\xff", b"[" * 100_000])
    def test_a_body_of_another_shape_says_nothing(self, said, raw):
        assert said("sendgrid", reports.sendgrid(raw=raw)) == []

    def test_what_was_changed_on_the_way_is_refused(self, is_theirs):
        call = reports.sendgrid(reports.sendgrid_event("bounce"))
        later = {**call.headers, "X-Twilio-Email-Event-Webhook-Timestamp": "1"}
        broken = {**call.headers, "X-Twilio-Email-Event-Webhook-Signature": "AAAA"}
        assert is_theirs("sendgrid", call)
        for other in (
            Call(call.body + b" ", call.headers),
            Call(call.body, later),
            Call(call.body, broken),
            Call(call.body),
        ):
            assert not is_theirs("sendgrid", other)

    @pytest.mark.parametrize("key", ["x", "AAAA", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"])
    def test_what_is_no_key_is_refused_at_the_boot(self, key):
        with pytest.raises(ConfigurationError, match=r"nexus\.email\.hooks\.sendgrid_keys"):
            SendGridHook([key])


class TestMailgun:
    @pytest.mark.parametrize(
        ("event", "more", "kind"),
        [
            ("delivered", {"delivery-status": {"code": 250, "message": "OK"}}, K.DELIVERED),
            ("failed", {"severity": "permanent", "reason": "bounce", "delivery-status": {"code": 550}}, K.BOUNCED_HARD),
            ("failed", {"severity": "permanent", "reason": "suppress-bounce"}, K.BOUNCED_HARD),
            ("failed", {"severity": "permanent", "reason": "suppress-complaint"}, K.COMPLAINED),
            ("failed", {"severity": "permanent", "reason": "old"}, K.BOUNCED_SOFT),
            ("failed", {"severity": "temporary", "reason": "generic"}, K.DEFERRED),
            ("complained", {}, K.COMPLAINED),
            ("unsubscribed", {}, K.UNSUBSCRIBED),
        ],
    )
    def test_what_it_reports_is_put_into_our_words(self, said, event, more, kind):
        (found,) = said("mailgun", reports.mailgun(event, message_id=OURS, **more))
        assert (found.kind, found.address, found.message_id) == (kind, "jane@example.org", OURS.strip("<>"))
        assert found.at == reports.AT

    def test_the_token_is_the_events_name_so_that_it_says_one_thing_once(self, said):
        (event,) = said("mailgun", reports.mailgun("delivered", token="t0k"))
        assert event.event_id == "t0k"

    @pytest.mark.parametrize("event", ["opened", "clicked", "accepted", "", None, 7])
    def test_the_rest_is_let_go(self, said, event):
        assert said("mailgun", reports.mailgun(event)) == []

    def test_old_signatures_and_those_of_tomorrow_are_refused(self, is_theirs):
        assert is_theirs("mailgun", reports.mailgun("delivered", at=NOW - timedelta(hours=11)))
        assert not is_theirs("mailgun", reports.mailgun("delivered", at=NOW - timedelta(hours=13)))
        assert not is_theirs("mailgun", reports.mailgun("delivered", at=NOW + timedelta(minutes=6)))

    @pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
    def test_what_was_changed_on_the_way_is_refused(self, is_theirs, name):
        document = json.loads(reports.mailgun("delivered").body)
        for value in (document["signature"][name][:-1] + "9", "", None, 7, [], "\ud800"):
            changed = {**document, "signature": {**document["signature"], name: value}}
            assert not is_theirs("mailgun", Call(json.dumps(changed).encode()))
        assert not is_theirs("mailgun", Call(b'{"signature": 1}'))


class TestPostmark:
    @pytest.mark.parametrize(
        ("record", "more", "kind"),
        [
            ("Delivery", {}, K.DELIVERED),
            ("Bounce", {}, K.BOUNCED_HARD),
            ("Bounce", {"Type": "SoftBounce"}, K.BOUNCED_SOFT),
            ("Bounce", {"Type": "Transient"}, K.DEFERRED),
            ("SpamComplaint", {}, K.COMPLAINED),
            ("SubscriptionChange", {}, K.UNSUBSCRIBED),
            ("SubscriptionChange", {"SuppressionReason": "HardBounce"}, K.BOUNCED_HARD),
        ],
    )
    def test_what_it_reports_is_put_into_our_words(self, said, record, more, kind):
        (event,) = said("postmark", reports.postmark(record, message="r7.s3.t1", **more))
        assert (event.kind, event.address, event.message_id) == (kind, "jane@example.org", "r7.s3.t1")
        assert event.at == reports.AT

    def test_the_same_bounce_has_the_same_id(self, said):
        first, second = (said("postmark", reports.postmark("Bounce"))[0].event_id for _ in range(2))
        assert first == second
        assert first != said("postmark", reports.postmark("Bounce", ID=1))[0].event_id

    @pytest.mark.parametrize(
        ("record", "more"),
        [
            ("Open", {}),
            ("Bounce", {"Type": "AutoResponder"}),
            ("SubscriptionChange", {"SuppressSending": False}),
            ("SubscriptionChange", {"SuppressSending": "true"}),
        ],
    )
    def test_the_rest_is_let_go(self, said, record, more):
        assert said("postmark", reports.postmark(record, **more)) == []

    def test_the_token_comes_in_the_address_or_in_a_header(self, is_theirs):
        body = reports.postmark("Bounce").body
        assert is_theirs("postmark", Call(body, {"X-Nexus-Token": reports.POSTMARK_TOKEN}))
        for headers in (
            {},
            {"X-Nexus-Token": reports.POSTMARK_TOKEN + "x"},
            {"X-Nexus-Token": ""},
            {"Authorization": f"Bearer {reports.POSTMARK_TOKEN}"},
            {"Authorization": "Basic ==="},
            {"Authorization": "Basic"},
            {"Authorization": "Basic bmV4dXM6"},  # an empty password
        ):
            assert not is_theirs("postmark", Call(body, headers))


@pytest.mark.parametrize("provider", ["ses", "sendgrid", "mailgun", "postmark"])
def test_garbage_is_neither_theirs_nor_makes_anything_fail(hooks, provider):
    rng = random.Random(7)
    alphabet = [
        b'{"',
        b'":',
        b"[",
        b"]",
        b"}",
        b"null",
        b"1e999",
        b'"event-data"',
        b'"Type"',
        b'"signature"',
        b"\x00",
        b"\xff",
    ]
    for _ in range(300):
        body = b"".join(rng.choices(alphabet, k=rng.randrange(30))) + rng.randbytes(rng.randrange(20))
        assert not hooks[provider].verify({}, body)
        assert list(hooks[provider].parse_events({}, body)) == []


def test_the_channel_hears_of_those_that_are_set_up(hooks, clock, lower):
    channel = EmailChannel(PoolSettings(host="127.0.0.1", port=25), clock, {"postmark": hooks["postmark"]})
    assert isinstance(channel, HearingChannel)
    call = reports.postmark("Bounce")
    assert channel.verify({}, lower(call, **{":provider": "postmark"}), call.body)
    assert channel.parse_events({}, lower(call, **{":provider": "postmark"}), call.body)[0].kind is K.BOUNCED_HARD
    for other in ("ses", "", "x"):
        assert not channel.verify({}, lower(call, **{":provider": other}), call.body)


def test_settings_say_who_is_heard(clock):
    base = {"database_url": "sqlite:///x", "database_worker_url": "", "database_owner_url": "", "secret_keys": (b"x",)}

    def named(**given):
        return email_hooks(Settings(**base, email_hooks=EmailHookSettings(**given)), clock)

    everything = {
        "ses_topics": (reports.TOPIC,),
        "sendgrid_keys": (reports.sendgrid_public(),),
        "mailgun_keys": ("k" * 16,),
        "postmark_tokens": ("t" * 16,),
    }
    assert list(named(**everything)) == ["ses", "sendgrid", "mailgun", "postmark"]
    assert list(named()) == []
    with pytest.raises(ConfigurationError, match=r"nexus\.email\.hooks\.ses_topics"):
        named(ses_topics=("arn:aws:sqs:eu-west-1:1:x",))


@pytest.mark.parametrize("is_set_up", [True, False])
def test_a_message_says_its_name_where_postmark_tells_it_back(hooks, clock, is_set_up):
    channel = EmailChannel(
        PoolSettings(host="127.0.0.1", port=25), clock, {"postmark": hooks["postmark"]} if is_set_up else {}
    )
    message = parse_message({"subject": "Hi", "text": "Hello"}, {}, "email")
    content = Content(message, {"from_email": "news@example.com"}, "<c1.t1.example.com>", bulk=False)
    submission = Submission(0, "jane@example.org", OURS, {"to_name": "", "date": "Mon, 02 Mar 2026 10:00:00 +0000"})
    lines = channel.render({}, content, submission).content.decode().split("\r\n")
    assert ("X-PM-Metadata-message: r7.s3.t1" in lines) == is_set_up
    assert f"Message-ID: {OURS}" in lines
