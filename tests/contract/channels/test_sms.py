"""The SMS channel against a provider that speaks Twilio's API over a socket, and does not always."""

import json
from base64 import b64encode

import pytest

from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.core.contracts import Channel, Outcome, OutcomeKind
from nexus_marketing.core.errors import HostRefused, ValidationError
from tests.contract.channels.servers import HttpServer, Marks, Reply, content, submission

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-EXT-001", "R21"),
    # Servers that hang up or stall leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

K = OutcomeKind
TAKEN = Reply(201, json.dumps({"sid": "SM1", "status": "queued", "error_code": None}).encode())
SENDER = {"from": "+15005550006"}


def error(status: int, code: int, **headers: str) -> Reply:
    body = {"code": code, "message": "not so", "more_info": "", "status": status}
    return Reply(status, json.dumps(body).encode(), headers)


@pytest.fixture
def server():
    with HttpServer(usual=TAKEN, choose=lambda heard: heard.form.get("To", "")) as running:
        yield running


@pytest.fixture
def make_channel(make_client, clock):
    def make(server: HttpServer, **options) -> SmsChannel:
        limits = {name: options.pop(name) for name in ("total_seconds",) if name in options}
        account = {"account": "AC1", "token": "t0ken", **options}
        return SmsChannel(SmsProvider(f"{server.url}/2010-04-01", **account), make_client(server, **limits), clock)

    return make


def hand_over(channel: Channel, *submissions, text: str = "Hello {{ name }}", settings=SENDER):
    """Everything at once: outcomes by ref, and the journal."""
    marks = Marks()
    session = channel.open(settings, content(text))
    outcomes = [each for each in session.submit(submissions, marks) if each is not None]
    session.close()
    assert sorted(each.ref for each in outcomes) == sorted(each.ref for each in submissions)
    assert marks.ended == {o.ref: o.kind for o in outcomes if o.ref in marks.wired}
    return {each.ref: each for each in outcomes}, marks


def one(channel: Channel, **values) -> Outcome:
    outcomes, _ = hand_over(channel, submission(0, name="Jo"), **values)
    return outcomes[0]


def test_it_is_a_channel(make_channel, server):
    channel = make_channel(server, price_minor=8, connections=5)
    assert isinstance(channel, Channel)
    about = channel.capabilities
    assert (about.address_kind, about.template_type, about.max_in_flight) == ("phone", "text", 5)
    assert (about.cost_minor_per_message, about.cost_minor_per_segment, about.supports_idempotency) == (0, 8, False)


def test_a_message_is_a_form_under_the_account(make_channel, server):
    assert one(make_channel(server)) == Outcome(0, K.ACCEPTED, "SM1")
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("POST", "/2010-04-01/Accounts/AC1/Messages.json")
    assert heard.headers["authorization"] == f"Basic {b64encode(b'AC1:t0ken').decode()}"
    assert heard.headers["content-type"] == "application/x-www-form-urlencoded"
    assert heard.form == {"To": "+4930123456", "From": "+15005550006", "Body": "Hello Jo"}


def test_what_a_name_holds_stays_in_the_text(make_channel, server):
    hostile = "&To=+1999&From=x%0d%0a\r\n\u202e😀"
    hand_over(make_channel(server), submission(0, name=hostile))
    assert server.heard[0].form == {"To": "+4930123456", "From": "+15005550006", "Body": f"Hello {hostile}"}


def test_a_pool_of_numbers_is_named_as_such(make_channel, server):
    pool = "MG" + "0123456789abcdef" * 2
    one(make_channel(server), settings={"from": pool})
    assert server.heard[0].form["MessagingServiceSid"] == pool
    assert "From" not in server.heard[0].form


def test_a_tenant_may_have_an_account_of_its_own(make_channel, server):
    one(make_channel(server), settings={**SENDER, "account": "AC/2", "token": "own"})
    (heard,) = server.heard
    assert heard.path == "/2010-04-01/Accounts/AC%2F2/Messages.json"
    assert heard.headers["authorization"] == f"Basic {b64encode(b'AC/2:own').decode()}"


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (error(400, 21211), K.PERMANENT_RECIPIENT, "21211"),
        (error(400, 21614), K.PERMANENT_RECIPIENT, "21614"),
        (error(400, 21408), K.PERMANENT_RECIPIENT, "21408"),
        (error(400, 99999), K.PERMANENT_RECIPIENT, "99999"),
        (error(400, 21610), K.PERMANENT_RECIPIENT, "21610"),
        (error(400, 21617), K.PERMANENT_RECIPIENT, "21617"),
        (error(400, 21606), K.PERMANENT_SENDER, "21606"),
        (error(401, 20003), K.PERMANENT_SENDER, "20003"),
        (error(403, 20005), K.PERMANENT_SENDER, "20005"),
        # The status of the login wins over whatever else is said.
        (error(403, 21211), K.PERMANENT_SENDER, "21211"),
        (error(404, 20404), K.PERMANENT_SENDER, "20404"),
        (error(400, 21611), K.THROTTLED, "21611"),
        (error(429, 20429), K.THROTTLED, "20429"),
        (error(500, 20500), K.TRANSIENT, "20500"),
        (Reply(503, b"<html>busy</html>"), K.TRANSIENT, "503"),
        (Reply(401), K.PERMANENT_SENDER, "401"),
        (Reply(404, b"not here"), K.PERMANENT_SENDER, "404"),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), K.PERMANENT_SENDER, "302"),
        (Reply(400, b"[1, 2]"), K.PERMANENT_RECIPIENT, "400"),
        (Reply(400, b'{"code": "abc"'), K.PERMANENT_RECIPIENT, "400"),
        (Reply(400, b'{"code": [21211]}'), K.PERMANENT_RECIPIENT, "400"),
        (Reply(201, b'{"sid": "SM2", "status": "failed", "error_code": 21614}'), K.PERMANENT_RECIPIENT, "21614"),
        (Reply(201, b'{"sid": "SM2", "status": "undelivered"}'), K.PERMANENT_RECIPIENT, "undelivered"),
        # Nobody who answers like this is the provider.
        (Reply(200, b"<html>welcome to the hotel</html>"), K.UNKNOWN, "200"),
        (Reply(201, b"[" * 60_000), K.UNKNOWN, "201"),
        (Reply(201, b"\xff\xfe{}"), K.UNKNOWN, "201"),
        (Reply(raw=b"nonsense\r\n"), K.UNKNOWN, "no_answer"),
        (Reply(hang_up="after"), K.UNKNOWN, "no_answer"),
    ],
)
def test_what_an_answer_means(make_channel, server, reply, kind, code):
    server.usual = reply
    outcome = one(make_channel(server))
    assert (outcome.kind, outcome.code) == (kind, code)
    assert len(server.heard) == 1


def test_an_answer_that_does_not_come_in_time_is_unknown(make_channel, server):
    server.usual = Reply(delay_seconds=20)
    outcome = one(make_channel(server, total_seconds=0.3))
    assert (outcome.kind, outcome.code) == (K.UNKNOWN, "no_answer")


def test_somebody_who_waits_hears_that_nothing_is_known(make_channel, server):
    server.usual = Reply(201, TAKEN.body, delay_seconds=1.3)
    session = make_channel(server).open(SENDER, content("Hello"))
    heard = list(session.submit([submission(0)], Marks()))
    assert len(heard) >= 2
    assert heard[:-1] == [None] * (len(heard) - 1)


def test_where_no_connection_is_made_nothing_was_sent(make_channel, free_port, make_client, clock):
    gone = f"127.0.0.1:{free_port}"
    channel = SmsChannel(SmsProvider(f"http://{gone}", "AC1", "t"), make_client(gone), clock)
    outcomes, marks = hand_over(channel, *(submission(ref, name="x") for ref in range(40)))
    assert {(each.kind, each.code) for each in outcomes.values()} == {(K.NOT_SENT, "not_reached")}
    assert all(0 < (each.retry_after_seconds or 0) <= 30 for each in outcomes.values())
    assert marks.wired == []


def test_a_connection_that_ended_while_it_rested_costs_nobody_a_message(make_channel, server):
    server.usual = Reply(201, TAKEN.body)
    channel = make_channel(server, connections=1)
    for number in range(5):
        server.scripts["+4930123456"] = [Reply(raw=TAKEN.encoded())]
        assert one(channel).kind is K.ACCEPTED, number
        server.part()
    assert server.connections == 5


def test_after_patience_was_asked_for_nobody_else_asks(make_channel, server):
    server.usual = error(429, 20429, **{"Retry-After": "7"})
    outcomes, marks = hand_over(make_channel(server, connections=2), *(submission(ref, name="x") for ref in range(30)))
    assert {each.kind for each in outcomes.values()} == {K.THROTTLED}
    assert all(5 < (each.retry_after_seconds or 0) <= 7 for each in outcomes.values())
    assert len(marks.wired) == len(server.heard) <= 2


def test_after_the_sender_was_refused_nobody_else_is_sent(make_channel, server):
    server.usual = error(401, 20003)
    outcomes, _ = hand_over(make_channel(server, connections=2), *(submission(ref, name="x") for ref in range(30)))
    kinds = [each.kind for each in outcomes.values()]
    assert 1 <= kinds.count(K.PERMANENT_SENDER) == len(server.heard) <= 2
    assert kinds.count(K.NOT_SENT) == 30 - len(server.heard)


def test_many_are_in_flight_over_few_connections(make_channel, server):
    server.usual = Reply(201, TAKEN.body, delay_seconds=0.02)
    messages = [submission(ref, f"+4930{ref:07}", name=f"n{ref}") for ref in range(100)]
    outcomes, marks = hand_over(make_channel(server, connections=6), *messages)
    assert {each.kind for each in outcomes.values()} == {K.ACCEPTED}
    assert {heard.form["To"]: heard.form["Body"] for heard in server.heard} == {
        each.address: f"Hello n{each.ref}" for each in messages
    }
    assert (server.most_at_once, server.connections, len(marks.wired)) == (6, 6, 100)


def test_each_is_on_the_wire_in_the_journal_before_it_arrives(make_channel):
    marks, late = Marks(), []
    numbers = {f"+4930{ref:07}": ref for ref in range(50)}

    def look(heard) -> None:
        if numbers[heard.form["To"]] not in marks.wired:
            late.append(heard)

    with HttpServer(usual=TAKEN, on_heard=look) as server:
        session = make_channel(server).open(SENDER, content("Hello"))
        batch = [submission(ref, number) for number, ref in numbers.items()]
        for outcome in session.submit(batch, marks):
            assert outcome is None or marks.ended[outcome.ref] is outcome.kind
    assert late == []
    assert len(server.heard) == 50


def test_what_has_not_begun_is_withdrawn(make_channel, server):
    server.usual = Reply(201, TAKEN.body, delay_seconds=0.3)
    marks = Marks()
    session = make_channel(server, connections=2).open(SENDER, content("Hello"))
    outcomes = session.submit([submission(ref) for ref in range(20)], marks)
    session.withdraw()
    kinds = [each.kind for each in outcomes if each is not None]
    assert kinds.count(K.ACCEPTED) == len(server.heard) == len(marks.wired) <= 2
    assert kinds.count(K.NOT_SENT) == 20 - len(server.heard)
    assert [each.kind for each in session.submit([submission(30)], marks) if each] == [K.ACCEPTED]


def test_several_batches_are_open_at_a_time(make_channel, server):
    session, marks = make_channel(server).open(SENDER, content("Hello")), Marks()
    first, second = (session.submit([submission(ref) for ref in refs], marks) for refs in ((0, 1, 2), (3, 4)))
    assert sorted(each.ref for each in second if each) == [3, 4]
    assert sorted(each.ref for each in first if each) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("{{ name }}", " ", "render_error"),
        ("{{ name }}", "x" * 1531, "render_error"),
        ("{{ name }}", "я" * 671, "render_error"),
    ],
)
def test_what_is_no_message_is_refused_before_it_leaves(make_channel, server, text, name, reason):
    outcomes, marks = hand_over(make_channel(server), submission(0, name=name), text=text)
    assert (outcomes[0].kind, outcomes[0].code) == (K.REFUSED, reason)
    assert (server.heard, marks.wired) == ([], [])


def test_ten_segments_leave(make_channel, server):
    outcomes, _ = hand_over(make_channel(server), submission(0, name="x" * 1530), text="{{ name }}")
    assert outcomes[0].kind is K.ACCEPTED


@pytest.mark.parametrize("address", ["", "030123456", "person@example.org", "+49 30 12", "+0123456789"])
def test_only_whole_numbers_are_written_to(make_channel, server, address):
    outcomes, _ = hand_over(make_channel(server), submission(0, address, name="x"))
    assert (outcomes[0].kind, outcomes[0].code) == (K.REFUSED, "unsupported_address")
    assert server.heard == []


class TestSettings:
    @pytest.mark.parametrize("sender", ["+493012345678", "12345", "Shop", "Shop & Co", "MG" + "0" * 32])
    def test_senders(self, make_channel, server, sender):
        make_channel(server).validate({"from": sender})

    @pytest.mark.parametrize(
        ("settings", "faults"),
        [
            ({}, {"from": "required"}),
            ({"from": "Twelve chars"}, {"from": "not_a_sender"}),
            ({"from": "+0"}, {"from": "not_a_sender"}),
            ({"from": "a\nb"}, {"from": "not_a_sender"}),
            ({"from": "Shop", "url": "http://evil"}, {"url": "unknown_setting"}),
            ({"from": "Shop", "account": "AC2"}, {"token": "required"}),
            ({"from": "Shop", "token": "x"}, {"account": "required"}),
        ],
    )
    def test_every_fault_is_named(self, make_channel, server, settings, faults):
        with pytest.raises(ValidationError) as refused:
            make_channel(server).validate(settings)
        assert {each.path: each.code for each in refused.value.problems} == faults

    def test_the_operators_sender_does_for_all(self, make_channel, server):
        one(make_channel(server, sender="Shop"), settings={})
        assert server.heard[0].form["From"] == "Shop"

    def test_a_provider_at_a_closed_address_is_none(self, make_client, clock):
        with pytest.raises(HostRefused, match=r"nexus\.http\.allow_hosts"):
            SmsChannel(SmsProvider("http://127.0.0.1/x", "AC1", "t"), make_client(), clock)

    def test_the_token_is_never_shown(self, make_channel, server):
        assert "t0ken" not in repr(SmsProvider("https://x", "AC1", "t0ken"))
        assert make_channel(server).capabilities.secret_settings == {"token"}


class TestCallbacks:
    def test_the_provider_is_asked_to_say_what_became_of_each_message(self, make_channel, server):
        callback = "https://mail.example.com/hooks/-/sms"
        one(make_channel(server, callback_url=callback))
        (heard,) = server.heard
        assert heard.form["StatusCallback"].startswith(f"{callback}?message=")
        assert "%" not in heard.form["StatusCallback"]

    def test_an_account_of_the_tenants_own_is_not(self, make_channel, server):
        settings = {**SENDER, "account": "AC2", "token": "other"}
        one(make_channel(server, callback_url="https://mail.example.com/hooks/-/sms"), settings=settings)
        assert "StatusCallback" not in server.heard[0].form
