"""The webhook channel against receivers that verify with the scheme's own library, and such as misbehave."""

import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import standardwebhooks

from nexus_marketing.builtins.channels.webhook import WebhookChannel
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import Channel, Outcome, OutcomeKind
from nexus_marketing.core.errors import ValidationError
from tests.contract.channels.servers import HttpServer, Marks, Reply, content, submission

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-EXT-001", "R22", "S10"),
    # Servers that hang up or stall leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

K = OutcomeKind
OLD, NEW, OWN = (f"whsec_{b64encode(each * 24).decode()}" for each in (b"o", b"n", b"w"))
TEXT = '{"name": "{{ name }}", "score": {{ score }}}'


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer(usual=Reply(204)) as running:
        yield running


@pytest.fixture
def make_channel(make_client):
    def make(*servers: HttpServer, secrets=(NEW,), origin="https://mail.example", total_seconds=15.0, **options):
        client = make_client(*servers, total_seconds=total_seconds)
        return WebhookChannel(client, SystemClock(), secrets=secrets, origin=origin, **options)

    return make


def post(channel: Channel, url: str, *refs: int, marks: Marks | None = None, **settings: str) -> dict[int, Outcome]:
    session = channel.open({"url": url, **settings}, content(TEXT))
    batch = [submission(ref, "", name=f'Jo "{ref}"', score="7.5") for ref in refs or (0,)]
    outcomes = {each.ref: each for each in session.submit(batch, marks or Marks()) if each}
    session.close()
    assert sorted(outcomes) == sorted(each.ref for each in batch)
    return outcomes


def test_it_is_a_channel(make_channel):
    channel = make_channel()
    assert isinstance(channel, Channel)
    about = channel.capabilities
    assert (about.address_kind, about.template_type, about.supports_idempotency) == ("none", "text", True)
    assert about.secret_settings == {"secrets"}


def test_a_message_is_signed_json(make_channel, server):
    assert post(make_channel(server), f"{server.url}/hook?a=b") == {0: Outcome(0, K.ACCEPTED, "204")}
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("POST", "/hook?a=b")
    assert heard.headers["content-type"] == "application/json"
    assert json.loads(heard.body) == {"name": 'Jo "0"', "score": 7.5}
    assert standardwebhooks.Webhook(NEW).verify(heard.body, heard.headers) == json.loads(heard.body)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OLD).verify(heard.body, heard.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(NEW).verify(heard.body + b" ", heard.headers)


def test_while_secrets_change_either_verifies(make_channel, server):
    post(make_channel(server, secrets=(NEW, OLD)), server.url)
    for secret in (NEW, OLD):
        standardwebhooks.Webhook(secret).verify(server.heard[0].body, server.heard[0].headers)


def test_a_tenants_own_secret_stands_in_place_of_the_operators(make_channel, server):
    post(make_channel(server), server.url, secrets=OWN)
    (heard,) = server.heard
    standardwebhooks.Webhook(OWN).verify(heard.body, heard.headers)
    assert len(heard.headers["webhook-signature"].split()) == 1


def test_the_id_is_the_same_on_every_attempt_and_nobody_elses(make_channel, server):
    for _ in range(2):
        post(make_channel(server), server.url, 3)
    post(make_channel(server), server.url, 4)
    post(make_channel(server, origin="https://staging.example"), server.url, 3)
    first, again, other, elsewhere = (each.headers["webhook-id"] for each in server.heard)
    assert first == again
    assert len({first, other, elsewhere}) == 3
    assert first.startswith("r3_s7_t1_")
    assert "." not in first


@pytest.mark.parametrize(
    ("reply", "kind", "after"),
    [
        (Reply(200, b"anything"), K.ACCEPTED, None),
        (Reply(202), K.ACCEPTED, None),
        (Reply(301, headers={"Location": "http://127.0.0.1:1/"}), K.TRANSIENT, None),
        (Reply(307, headers={"Location": "http://169.254.169.254/"}), K.TRANSIENT, None),
        (Reply(304), K.TRANSIENT, None),
        (Reply(410), K.PERMANENT_SENDER, None),
        (Reply(429, headers={"Retry-After": "9"}), K.THROTTLED, 9.0),
        (Reply(502), K.THROTTLED, None),
        (Reply(503, headers={"Retry-After": "120"}), K.THROTTLED, 120.0),
        (Reply(503, headers={"Retry-After": "whenever"}), K.THROTTLED, None),
        (Reply(504), K.THROTTLED, None),
        (Reply(500), K.TRANSIENT, None),
        (Reply(501), K.TRANSIENT, None),
        (Reply(400), K.TRANSIENT, None),
        (Reply(404), K.TRANSIENT, None),
        (Reply(raw=b"SSH-2.0-OpenSSH\r\n"), K.UNKNOWN, None),
        (Reply(hang_up="after"), K.UNKNOWN, None),
        # The status is known, whatever became of its body.
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), K.ACCEPTED, None),
        (Reply(200, b"x" * 3_000_000), K.ACCEPTED, None),
    ],
)
def test_what_an_answer_means(make_channel, server, reply, kind, after):
    server.usual = reply
    outcome = post(make_channel(server), server.url)[0]
    assert (outcome.kind, outcome.retry_after_seconds) == (kind, after)
    assert len(server.heard) == 1


@pytest.mark.parametrize("reply", [Reply(delay_seconds=20), Reply(drip_seconds=0.05)])
def test_a_receiver_that_takes_too_long_leaves_it_unknown(make_channel, server, reply):
    server.usual = reply
    marks = Marks()
    outcome = post(make_channel(server, total_seconds=0.4), server.url, 0, marks=marks)[0]
    assert (outcome.kind, marks.ended) == (K.UNKNOWN, {0: K.UNKNOWN})


def test_a_receiver_that_is_away_gets_nothing(make_channel, make_client, free_port):
    channel = WebhookChannel(make_client(f"127.0.0.1:{free_port}"), SystemClock(), secrets=[NEW])
    marks = Marks()
    outcomes = post(channel, f"http://127.0.0.1:{free_port}/", *range(20), marks=marks)
    assert {each.kind for each in outcomes.values()} == {K.NOT_SENT}
    assert marks.wired == []


def test_one_that_wants_no_more_is_left_alone(make_channel, server):
    server.usual = Reply(410)
    outcomes = post(make_channel(server, connections=2), server.url, *range(20))
    kinds = [each.kind for each in outcomes.values()]
    assert 1 <= kinds.count(K.PERMANENT_SENDER) == len(server.heard) <= 2
    assert kinds.count(K.NOT_SENT) == 20 - len(server.heard)


def test_one_that_asks_for_patience_gets_it(make_channel, server):
    server.usual = Reply(503, headers={"Retry-After": "60"})
    outcomes = post(make_channel(server, connections=2), server.url, *range(20))
    assert {each.kind for each in outcomes.values()} == {K.THROTTLED}
    assert all(50 < (each.retry_after_seconds or 0) <= 60 for each in outcomes.values())
    assert len(server.heard) <= 2


def test_a_certificate_that_nobody_vouches_for_is_not_sent_to(make_channel, make_client):
    certificates = Path(__file__).parents[1] / "smtp" / "certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "localhost.pem", certificates / "localhost.key")
    with HttpServer() as server:
        server.tls = context
        channel = WebhookChannel(make_client(f"localhost:{server.port}"), SystemClock(), secrets=[NEW])
        outcome = post(channel, f"https://localhost:{server.port}/")[0]
    assert outcome.kind is K.NOT_SENT
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.detail
    assert server.heard == []


def test_a_slow_receiver_delays_no_other(make_channel, server):
    with HttpServer(usual=Reply(200, delay_seconds=1.0)) as slow:
        channel = make_channel(server, slow, connections=4)
        other = threading.Thread(target=post, args=(channel, slow.url, 0, 1, 2, 3))
        other.start()
        outcomes = post(channel, server.url, *range(20))
        assert len(slow.heard) <= 4
        assert other.is_alive()
        other.join(10)
    assert {each.kind for each in outcomes.values()} == {K.ACCEPTED}


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "faults"),
        [
            ({}, {"url": "required"}),
            ({"url": "https://hooks.example/", "secret": "x"}, {"secret": "unknown_setting"}),
            ({"url": "http://hooks.example/"}, {"url": "host_refused"}),
            ({"url": "https://10.0.0.1/"}, {"url": "host_refused"}),
            ({"url": "https://169.254.169.254/"}, {"url": "host_refused"}),
            ({"url": "https://[::ffff:127.0.0.1]/"}, {"url": "host_refused"}),
            ({"url": "https://2130706433/"}, {"url": "host_refused"}),
            ({"url": "nonsense"}, {"url": "host_refused"}),
            ({"url": "https://hooks.example/", "secrets": "short"}, {"secrets": "not_a_secret"}),
            ({"url": "https://hooks.example/", "secrets": "whsec_c2hvcnQ="}, {"secrets": "not_a_secret"}),
            ({"url": "https://hooks.example/", "secrets": f"{NEW} {OLD} {OWN}"}, {"secrets": "too_many"}),
        ],
    )
    def test_every_fault_is_named(self, make_channel, settings, faults):
        with pytest.raises(ValidationError) as refused:
            make_channel().validate(settings)
        assert {each.path: each.code for each in refused.value.problems} == faults

    def test_without_any_secret_nothing_is_posted(self, make_channel):
        with pytest.raises(ValidationError, match="secrets"):
            make_channel(secrets=()).validate({"url": "https://hooks.example/"})

    def test_a_text_that_is_no_json_is_refused_before_anything_leaves(self, make_channel, server):
        with pytest.raises(ValidationError, match="not JSON"):
            make_channel(server).open({"url": server.url}, content("Hello {{ name }}"))
        assert server.connections == 0

    def test_what_cannot_be_sent_as_it_is_is_tried_again_and_holds_nobody_up(self, make_client, monkeypatch):
        def refuse(request, **_):
            raise ValidationError.at("headers.x", "not_well_formed", "It is none.")

        client = make_client()
        monkeypatch.setattr(client, "send", refuse)
        channel = WebhookChannel(client, SystemClock(), secrets=[NEW])
        assert {each.kind for each in post(channel, "https://hooks.example/", 0, 1, 2).values()} == {K.TRANSIENT}

    def test_a_name_that_leads_inside_stops_the_sender(self, make_client):
        places = ("10.0.0.7", "10.0.0.8")
        inside = make_client(resolver=lambda host, port, *_: [(2, 1, 6, "", (each, port)) for each in places])
        channel = WebhookChannel(inside, SystemClock(), secrets=[NEW])
        outcome = post(channel, "https://hooks.example/")[0]
        assert outcome.kind is K.PERMANENT_SENDER
        assert outcome.detail.startswith("hooks.example is not connected to")
        assert "nexus.http.allow_hosts" in outcome.detail
        assert "10.0.0" not in outcome.detail  # what our name servers know of our network
