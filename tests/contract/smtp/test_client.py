"""The pool against real sockets: exactly one reply per message, whatever a server does."""

import random
import ssl
import time
from collections import Counter
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.smtp.catcher import Catcher, CatcherSettings
from nexus_marketing.smtp.client import Envelope, Pool, PoolSettings, Reply, ReplyKind, TlsPolicy
from nexus_marketing.smtp.sink import Rule
from tests.contract.smtp.servers import ACTIONS, BODY, ScriptedServer, running_sink

pytestmark = [
    pytest.mark.req("R10", "FR-P2-009"),
    # Servers that hang up, stall or are stopped mid-sentence leave sockets to the garbage collector; the pool's
    # own are closed by name in each test.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

K = ReplyKind
CERTIFICATES = Path(__file__).with_name("certificates")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key")
    return context


def trusting_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATES / "localhost.pem"))


def pool_for(port: int, **changes) -> Pool:
    defaults = {
        "host": "127.0.0.1", "port": port, "connections": 2, "local_hostname": "client.test",
        "reply_timeout_seconds": 10.0, "give_up_seconds": 5.0,
    }  # fmt: skip
    return Pool(PoolSettings(**{**defaults, **changes}), rng=random.Random(1))


def envelopes(recipients, data=BODY) -> list[Envelope]:
    return [Envelope(number, "sender@example.com", to, data) for number, to in enumerate(recipients)]


def send(pool: Pool, batch, seconds=30.0) -> dict[int, Reply]:
    try:
        pool.submit(batch)
        replies = pool.drain(seconds)
        assert pool.outstanding == 0
    finally:
        pool.close()
    assert len({reply.ref for reply in replies}) == len(replies) == len(batch)
    return {reply.ref: reply for reply in replies}


class Journal:
    """Counts what a hand-over journal would see."""

    def __init__(self) -> None:
        self.on_wire: set[int] = set()
        self.worst = 0
        self.outcomes: dict[int, int] = {}

    def wire(self, ref: int) -> None:
        assert ref not in self.on_wire
        assert ref not in self.outcomes
        self.on_wire.add(ref)
        self.worst = max(self.worst, len(self.on_wire))

    def reply(self, ref: int, number: int) -> None:
        assert ref not in self.outcomes
        self.on_wire.discard(ref)
        self.outcomes[ref] = number


@given(
    script=st.lists(st.sampled_from([*ACTIONS, *["ok"] * 20]), max_size=40),
    messages=st.integers(1, 10),
    connections=st.integers(1, 3),
    pipelining=st.booleans(),
)
def test_every_message_ends_in_exactly_one_true_reply(script, messages, connections, pipelining):
    journal = Journal()
    script = [action for n, action in enumerate(script) if action != "stall" or "stall" not in script[:n]]
    with ScriptedServer(script, pipelining=pipelining) as server:
        pool = pool_for(server.port, connections=connections, reply_timeout_seconds=0.3)
        recipients = [f"r{number}@example.org" for number in range(messages)]
        pool.submit(envelopes(recipients), on_wire=journal.wire, on_reply=journal.reply)
        replies = pool.drain(20)
        pool.close()
    assert sorted(reply.ref for reply in replies) == list(range(messages))
    assert journal.outcomes == {reply.ref: reply.kind.number for reply in replies}
    assert journal.worst <= connections
    lying = "unsolicited" in script
    for reply in replies:
        recipient = recipients[reply.ref]
        if reply.kind is K.ACCEPTED and not lying:
            assert server.accepted[recipient] == 1
        if reply.kind is K.NOT_SENT:
            assert server.complete[recipient] == 0
        if reply.kind not in {K.ACCEPTED, K.UNKNOWN} and not lying:
            assert server.accepted[recipient] == 0
        assert server.complete[recipient] <= 1


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_refused_recipient_hurts_nobody_else(pipelining):
    script = ["ok", "permanent"]
    with ScriptedServer(script, pipelining=pipelining) as server:
        replies = send(pool_for(server.port, connections=1), envelopes([f"r{n}@example.org" for n in range(5)]))
    assert [replies[n].kind for n in range(5)] == [K.PERMANENT_RECIPIENT, *[K.ACCEPTED] * 4]
    assert (replies[0].code, replies[0].enhanced, replies[0].text) == (550, "5.1.1", "5.1.1 no such user")
    assert server.sessions == 1


def test_354_after_a_refused_recipient_gets_a_lone_dot_and_is_not_sent():
    with ScriptedServer(["ok", "permanent", "go"]) as server:
        replies = send(pool_for(server.port, connections=1), envelopes(["a@example.org", "b@example.org"]))
    assert replies[0].kind is K.PERMANENT_RECIPIENT
    assert replies[1].kind is K.ACCEPTED
    assert server.empty_messages == 1
    assert server.complete == Counter({"b@example.org": 1})


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (["ok", "ok", "ok", "temporary"], K.TRANSIENT),
        (["ok", "ok", "ok", "slow_down"], K.THROTTLED),
        (["ok", "ok", "ok", "permanent"], K.PERMANENT_RECIPIENT),
        (["permanent"], K.PERMANENT_RECIPIENT),
        (["ok", "ok", "permanent"], K.PERMANENT_RECIPIENT),
        (["closing"], K.THROTTLED),
        (["ok", "closing"], K.THROTTLED),
        (["ok", "ok", "closing"], K.THROTTLED),
        (["ok", "ok", "ok", "closing"], K.THROTTLED),
        (["ok", "drop"], K.NOT_SENT),
        (["ok", "ok", "drop"], K.NOT_SENT),
        (["ok", "stall"], K.NOT_SENT),
        (["ok", "ok", "ok", "stall"], K.UNKNOWN),
        (["ok", "ok", "ok", "drop"], K.UNKNOWN),
        (["ok", "ok", "ok", "go"], K.UNKNOWN),
        (["ok", "ok", "ok", "garbage"], K.UNKNOWN),
        (["ok", "ok", "ok", "endless"], K.UNKNOWN),
        (["ok", "ok", "ok", "mixed"], K.UNKNOWN),
        (["ok", "garbage"], K.NOT_SENT),
        (["ok", "ok", "ok", "multi"], K.ACCEPTED),
        (["ok", "multi", "ok", "split"], K.ACCEPTED),
        (["bare", "bare", "ok", "bare"], K.ACCEPTED),
        (["drop", "drop"], K.ACCEPTED),
        (["drop", "drop", "drop"], K.NOT_SENT),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value.value,
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_what_a_server_does_decides_the_reply(script, kind, pipelining):
    with ScriptedServer(script, pipelining=pipelining) as server:
        pool = pool_for(server.port, connections=1, reply_timeout_seconds=0.3)
        replies = send(pool, envelopes(["a@example.org"]))
    assert replies[0].kind is kind


def test_faults_by_recipient_leave_the_others_alone(tmp_path):
    rules = [
        Rule(b"perm", "reply", 550, "5.1.1 no such user"),
        Rule(b"temp", "reply", 451, "4.3.0 later", phase="end"),
        Rule(b"gone", "close"),
        Rule(b"mid", "drop_data"),
        Rule(b"dot", "drop_after_dot"),
        Rule(b"stall", "stall", seconds=60),
    ]
    # Those that cost their connection stand apart: a message three times behind one of them is given back for later.
    faults = [
        "ok",
        "ok",
        "temp",
        "ok",
        "gone",
        "ok",
        "ok",
        "perm",
        "ok",
        "ok",
        "mid",
        "ok",
        "ok",
        "temp",
        "ok",
        "ok",
        "dot",
        "ok",
        "perm",
        "ok",
    ]
    people = [f"{faults[n % 20]}{n}@example.org" for n in range(600)] + ["stall@example.org"] * 2
    log = tmp_path / "log"
    with running_sink(rules=rules, log=log) as sink:
        pool = pool_for(sink.port, connections=4, reply_timeout_seconds=3.0)
        replies = send(pool, envelopes(people))
        # What stood behind several of them is given back and goes later, as a send's retry does: never lost, never twice.
        back = [
            each for each in envelopes(people) if replies[each.ref].kind is K.NOT_SENT and "mid" not in each.recipient
        ]
        assert len(back) <= 10
        if back:
            replies |= send(pool_for(sink.port, connections=4, reply_timeout_seconds=3.0), back)
    received = Counter(line.split("\t")[0] for line in log.read_text().splitlines())
    by_fault: dict[str, Counter[ReplyKind]] = {}
    for ref, reply in replies.items():
        by_fault.setdefault(people[ref].split("@")[0].rstrip("0123456789"), Counter())[reply.kind] += 1
    assert by_fault["ok"] == {K.ACCEPTED: 390}
    assert by_fault["perm"] == {K.PERMANENT_RECIPIENT: 60}
    assert by_fault["temp"] == {K.TRANSIENT: 60}
    assert by_fault["gone"] == {K.THROTTLED: 30}
    assert set(by_fault["mid"]) <= {K.UNKNOWN, K.NOT_SENT}
    assert by_fault["dot"] == {K.UNKNOWN: 30}
    assert by_fault["stall"] == {K.UNKNOWN: 2}
    assert all(count == 1 for address, count in received.items() if not address.startswith("stall"))
    assert sum(received[person] for person in people if person.startswith("ok")) == 390
    assert not any(received[person] for person in people if person.startswith(("perm", "temp", "gone", "mid")))


def test_a_stalled_connection_does_not_hold_up_the_rest():
    with running_sink(rules=[Rule(b"stall", "stall", seconds=60)]) as sink:
        pool = pool_for(sink.port, connections=2, reply_timeout_seconds=30.0)
        pool.submit(envelopes(["stall@example.org", *[f"r{n}@example.org" for n in range(500)]]))
        got: list[Reply] = []
        until = time.monotonic() + 20
        while len(got) < 499 and time.monotonic() < until:
            got += pool.poll(0.5)
        assert {reply.kind for reply in got} == {K.ACCEPTED}
        pool.close()
        rest = pool.poll(0)
        assert Counter(reply.kind for reply in rest)[K.UNKNOWN] == 1
        assert len(got) + len(rest) == 501
        assert pool.outstanding == 0


def test_aiosmtpd_receives_what_was_sent(free_port):
    messages = []

    class Keep:
        async def handle_DATA(self, server, session, envelope):
            messages.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
            return "250 2.0.0 kept"

    data = BODY + b".dot at the start\r\n..two\r\n.\r\nend without line break"
    controller = Controller(Keep(), hostname="127.0.0.1", port=free_port, server_hostname="test")
    controller.start()
    try:
        replies = send(pool_for(free_port), envelopes([f"r{n}@example.org" for n in range(20)], data))
    finally:
        controller.stop()
    assert {reply.kind for reply in replies.values()} == {K.ACCEPTED}
    assert {content for _, _, content in messages} == {data + b"\r\n"}
    assert sorted(to for _, tos, _ in messages for to in tos) == sorted(f"r{n}@example.org" for n in range(20))


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
def test_starttls_and_login(tmp_path, policy):
    settings_ = CatcherSettings(ssl_context=server_context(), credentials={"me": "sécret"}, strict=True)
    with Catcher(tmp_path, settings_) as catcher:
        context = trusting_context() if policy is TlsPolicy.REQUIRED else None
        pool = pool_for(
            catcher.port,
            host="localhost",
            tls=policy,
            ssl_context=context,
            username="me",
            password="sécret",
            connections=3,
        )
        replies = send(pool, envelopes([f"r{n}@example.org" for n in range(100)], BODY * 20))
        assert {reply.kind for reply in replies.values()} == {K.ACCEPTED}
        assert catcher.accepted == 100
        assert catcher.violations == []
    assert all(file.read_bytes() == BODY * 20 for file in tmp_path.glob("*.eml"))


def test_required_tls_never_falls_back(tmp_path):
    with Catcher(tmp_path) as catcher:
        replies = send(pool_for(catcher.port, tls=TlsPolicy.REQUIRED), envelopes(["a@example.org"]))
        assert replies[0].kind is K.PERMANENT_SENDER
        assert "STARTTLS" in replies[0].text
        assert catcher.accepted == 0


def test_required_tls_refuses_a_certificate_it_does_not_trust(tmp_path):
    with Catcher(tmp_path, CatcherSettings(ssl_context=server_context())) as catcher:
        replies = send(pool_for(catcher.port, host="localhost", tls=TlsPolicy.REQUIRED), envelopes(["a@example.org"]))
        assert replies[0].kind is K.PERMANENT_SENDER
        assert "certificate" in replies[0].text


def test_implicit_tls_is_spoken_from_the_first_byte(free_port):
    class Keep:
        async def handle_DATA(self, server, session, envelope):
            return "250 2.0.0 kept"

    controller = Controller(
        Keep(), hostname="127.0.0.1", port=free_port, server_hostname="test", ssl_context=server_context()
    )
    controller.start()
    try:
        pool = pool_for(free_port, host="localhost", tls=TlsPolicy.IMPLICIT, ssl_context=trusting_context())
        replies = send(pool, envelopes(["a@example.org", "b@example.org"]))
    finally:
        controller.stop()
    assert {reply.kind for reply in replies.values()} == {K.ACCEPTED}


def test_a_wrong_password_stops_the_sender(tmp_path):
    with Catcher(tmp_path, CatcherSettings(credentials={"me": "right"})) as catcher:
        pool = pool_for(catcher.port, tls=TlsPolicy.NONE, username="me", password="wrong")
        replies = send(pool, envelopes(["a@example.org", "b@example.org"]))
    assert {reply.kind for reply in replies.values()} == {K.PERMANENT_SENDER}
    assert {reply.code for reply in replies.values()} == {535}


def test_credentials_do_not_travel_in_the_clear(tmp_path):
    with Catcher(tmp_path, CatcherSettings(credentials={"me": "right"})) as catcher:
        replies = send(pool_for(catcher.port, username="me", password="right"), envelopes(["a@example.org"]))
    assert replies[0].kind is K.PERMANENT_SENDER
    assert "clear" in replies[0].text


def test_nobody_listening_is_not_sent(free_port):
    replies = send(pool_for(free_port, give_up_seconds=0.2), envelopes(["a@example.org", "b@example.org"]))
    assert {reply.kind for reply in replies.values()} == {K.NOT_SENT}


def test_addresses_that_cannot_be_sent_are_answered_without_the_server():
    people = ["a@example.org\r\nRCPT TO:<evil@example.org>", "käthe@example.org", "no address", "b@bücher.example"]
    with running_sink() as sink, ScriptedServer() as plain:
        with_utf8 = send(pool_for(sink.port), envelopes(people))
        without = send(pool_for(plain.port), envelopes(people))
        assert not any(b"evil" in command for command in plain.commands)
        assert any(b"b@xn--bcher-kva.example" in command for command in plain.commands)
    assert [with_utf8[n].kind for n in range(4)] == [
        K.PERMANENT_RECIPIENT,
        K.ACCEPTED,
        K.PERMANENT_RECIPIENT,
        K.ACCEPTED,
    ]
    assert [without[n].kind for n in range(4)] == [*[K.PERMANENT_RECIPIENT] * 3, K.ACCEPTED]
    assert without[1].enhanced == "5.6.7"
    assert "unsupported_address" in without[1].text


def test_a_message_too_big_or_8bit_is_not_offered(tmp_path):
    with Catcher(tmp_path, CatcherSettings(size_limit=5000)) as catcher:
        replies = send(pool_for(catcher.port), envelopes(["a@example.org"], BODY * 10))
    assert (replies[0].kind, replies[0].enhanced) == (K.PERMANENT_SENDER, "5.3.4")


def test_connections_are_renewed_after_their_share_of_messages():
    with running_sink() as sink:
        pool = pool_for(sink.port, connections=1, max_messages_per_connection=10)
        replies = send(pool, envelopes([f"r{n}@example.org" for n in range(95)]))
        assert {reply.kind for reply in replies.values()} == {K.ACCEPTED}
        assert sink.sessions == 10
        assert sink.accepted == 95


def test_a_connection_the_server_closed_while_idle_is_replaced():
    with running_sink() as sink:
        pool = pool_for(sink.port, connections=1)
        pool.submit(envelopes(["a@example.org"]))
        assert [reply.kind for reply in pool.drain(10)] == [K.ACCEPTED]
        for key in list(sink._selector.get_map().values()):
            if key.data is not None:
                key.data.sock.shutdown(2)
        pool.submit(envelopes(["b@example.org"]))
        assert [reply.kind for reply in pool.drain(10)] == [K.ACCEPTED]
        assert sink.sessions == 2
        pool.close()


def test_a_large_message_is_written_in_pieces():
    data = BODY + (b"y" * 74 + b"\r\n") * 100_000
    with running_sink() as sink:
        replies = send(pool_for(sink.port), envelopes([f"r{n}@example.org" for n in range(4)], data))
        assert {reply.kind for reply in replies.values()} == {K.ACCEPTED}
        assert sink.octets == 4 * len(data)


def test_withdrawn_messages_are_not_sent_and_those_begun_are_finished():
    with running_sink() as sink:
        pool = pool_for(sink.port, connections=1)
        pool.submit(envelopes([f"r{n}@example.org" for n in range(1000)]))
        while sink.accepted == 0:
            pool.poll(0)
            if pool.queued < 900:
                break
        before = 1000 - pool.outstanding
        pool.withdraw()
        kinds = Counter(reply.kind for reply in pool.drain(10))
        assert kinds[K.NOT_SENT] > 800
        assert kinds[K.ACCEPTED] + before == sink.accepted
        pool.close()


def test_a_closed_pool_answers_what_it_is_given():
    with running_sink() as sink:
        pool = pool_for(sink.port)
        pool.close()
        pool.close()
        pool.submit(envelopes(["a@example.org"]))
        assert [reply.kind for reply in pool.poll(1)] == [K.NOT_SENT]
        assert pool.outstanding == 0


def test_settings_do_not_show_the_password():
    assert "hunter2" not in repr(PoolSettings(host="h", port=25, username="u", password="hunter2"))
