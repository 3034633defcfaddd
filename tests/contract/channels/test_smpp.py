"""The SMS channel by SMPP, against a centre that speaks the protocol over a socket, and does not always."""

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import smpp34

from nexus_marketing.builtins.channels.smpp import SmppLimits, SmppWay
from nexus_marketing.builtins.channels.smpp_accounts import ALLOW_SETTING, PORTS
from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.builtins.channels.sms_ways import SmsByAccount
from nexus_marketing.core.contracts import (
    Channel,
    ListeningChannel,
    Outcome,
    OutcomeKind,
    ProbedChannel,
    ProviderEvent,
    ProviderEventKind,
)
from nexus_marketing.core.errors import (
    Conflict,
    HostRefused,
    PermissionDenied,
    Unavailable,
    ValidationError,
)
from nexus_marketing.core.sms import measure
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.plugin.testing import ChannelConformance
from nexus_marketing.smpp.opening import Wire
from tests.common.smsc import ALREADY_BOUND, INVALID_TO, QUEUE_FULL, THROTTLED, Reply, Smsc, pdu
from tests.contract.channels.servers import Marks, content, submission

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-EXT-001", "R21"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

K = OutcomeKind
E = ProviderEventKind
Make = Callable[..., SmsByAccount]


@pytest.fixture
def centre() -> Iterator[Smsc]:
    with Smsc() as running:
        yield running


@pytest.fixture
def make_channel() -> Iterator[Make]:
    made: list[SmsByAccount] = []

    def make(*allowed: str, http: SmsChannel | None = None, **options: Any) -> SmsByAccount:
        times = {
            name: options.pop(name) for name in list(options) if name.endswith("_seconds") or name == "ssl_context"
        }
        limits = SmppLimits(**{"window": 10, **options})
        dialer = Dialer(ALLOW_SETTING, allowed, PORTS)
        wire = Wire(dialer.connect, **{"setup_seconds": 5.0, "reply_seconds": 5.0, **times})
        made.append(SmsByAccount(SmppWay(limits, dialer, wire), 8, http))
        return made[-1]

    yield make
    for each in made:
        each.close_thread()


@pytest.fixture
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of somebody who trusts the centre's certificate, and the centre's."""
    folder = Path(__file__).parents[1] / "smtp" / "certificates"
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(folder / "localhost.pem", folder / "localhost.key")
    return ssl.create_default_context(cafile=folder / "localhost.pem"), theirs


class Hand:
    """A session, and what became of what it was handed."""

    def __init__(self, channel: SmsByAccount, settings: dict[str, Any], text: str = "Hello {{ name }}") -> None:
        self.marks = Marks()
        self.session = channel.open(settings, content(text))

    def over(self, *submissions: Any) -> dict[int, Outcome]:
        outcomes = [each for each in self.session.submit(submissions, self.marks) if each is not None]
        assert sorted(each.ref for each in outcomes) == sorted(each.ref for each in submissions)
        mine = {each.ref for each in outcomes}
        assert {ref: kind for ref, kind in self.marks.ended.items() if ref in mine} == {
            each.ref: each.kind for each in outcomes if each.ref in self.marks.wired
        }
        return {each.ref: each for each in outcomes}


def batch(count: int, first: int = 0) -> list[Any]:
    return [submission(ref, f"+4930{ref:07}", name=f"n{ref}") for ref in range(first, first + count)]


def kinds(outcomes: dict[int, Outcome]) -> Counter[str]:
    return Counter(str(each.kind) for each in outcomes.values())


class TestConformance(ChannelConformance):
    @pytest.fixture
    def channel(self, make_channel: Make, centre: Smsc) -> SmsByAccount:
        return make_channel(centre.allowed)

    @pytest.fixture
    def settings(self, centre: Smsc) -> dict[str, Any]:
        return centre.settings

    @pytest.fixture
    def unreachable(self, make_channel: Make, centre: Smsc) -> Channel:
        centre.bind_statuses = [0x08] * 9
        return make_channel(centre.allowed)


def test_it_is_a_channel(make_channel: Make) -> None:
    channel = make_channel()
    assert isinstance(channel, Channel)
    assert isinstance(channel, ProbedChannel)
    assert isinstance(channel, ListeningChannel)
    about = channel.capabilities
    assert (about.address_kind, about.max_in_flight, about.cost_minor_per_segment) == ("phone", 10, 8)
    assert (about.secret_settings, about.supports_idempotency) == ({"password"}, False)


def test_a_message_is_a_submit_sm_of_the_account(make_channel: Make, centre: Smsc) -> None:
    hand = Hand(make_channel(centre.allowed), centre.settings)
    assert hand.over(submission(0, name="Jo")) == {0: Outcome(0, K.ACCEPTED, "m1")}
    (heard,) = (each.message for each in centre.submitted)
    assert (heard.source_addr, heard.source_addr_ton, heard.source_addr_npi) == ("4930999", 1, 1)
    assert (heard.destination_addr, heard.dest_addr_ton, heard.dest_addr_npi) == ("4930123456", 1, 1)
    assert (heard.short_message, heard.data_coding, heard.registered_delivery, heard.esm_class) == (
        b"Hello Jo",
        0,
        1,
        0,
    )
    (bound,) = centre.bound
    assert (bound.kind, bound.strings) == (9, ["shop", "s3cret", ""])


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"from": "Shop"}, ("Shop", 5, 0)),
        ({"from": "12345"}, ("12345", 3, 0)),
        ({"from": "12345", "source_ton": 0, "source_npi": 1}, ("12345", 0, 1)),
    ],
)
def test_a_source_has_the_type_that_it_is(make_channel: Make, centre: Smsc, settings: Any, seen: Any) -> None:
    Hand(make_channel(centre.allowed), {**centre.settings, **settings}).over(submission(0, name="x"))
    (heard,) = (each.message for each in centre.submitted)
    assert (heard.source_addr, heard.source_addr_ton, heard.source_addr_npi) == seen


class TestTexts:
    @pytest.mark.parametrize("text", ["Preis 5€ für Øle {Ωmega}", "Grüße 👋 ç", "x" * 160, "ж" * 70])
    def test_what_fits_is_one_message(self, make_channel: Make, centre: Smsc, text: str) -> None:
        Hand(make_channel(centre.allowed), centre.settings, "{{ name }}").over(submission(0, name=text))
        (heard,) = centre.submitted
        is_wide = measure(text).encoding == "ucs_2"
        assert heard.message.data_coding == (8 if is_wide else 0)
        assert heard.message.short_message == (text.encode("utf-16-be") if is_wide else gsm(text))

    @pytest.mark.parametrize("text", ["x" * 161, "€" * 200, "ж" * 200, "👋" * 70])
    def test_what_is_longer_leaves_in_as_many_parts_as_are_paid_for(
        self, make_channel: Make, centre: Smsc, text: str
    ) -> None:
        outcomes = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}").over(submission(0, name=text))
        parts = [each.octets for each in centre.submitted]
        assert len(parts) == measure(text).segments
        assert [(part[:3], part[4], part[5]) for part in parts] == [
            (b"\x05\x00\x03", len(parts), number) for number in range(1, len(parts) + 1)
        ]
        assert len({part[3] for part in parts}) == 1
        joined = b"".join(part[6:] for part in parts)
        assert joined == (text.encode("utf-16-be") if measure(text).encoding == "ucs_2" else gsm(text))
        assert [each.message.esm_class for each in centre.submitted] == [0x40] * len(parts)
        # One receipt says it for all: that of the last part, whose id is the message's.
        assert [each.message.registered_delivery for each in centre.submitted] == [0] * (len(parts) - 1) + [1]
        assert outcomes[0].code == centre.submitted[-1].id

    def test_or_as_a_payload(self, make_channel: Make, centre: Smsc) -> None:
        settings = {**centre.settings, "long_messages": "payload"}
        Hand(make_channel(centre.allowed), settings, "{{ name }}").over(submission(0, name="x" * 400))
        (heard,) = centre.submitted
        assert (heard.message.short_message, heard.octets, heard.message.esm_class) == (b"", b"x" * 400, 0)

    def test_two_long_ones_to_a_number_are_told_apart(self, make_channel: Make, centre: Smsc) -> None:
        hand = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}")
        hand.over(submission(0, name="x" * 200), submission(1, name="y" * 200))
        assert len({(each.octets[3], each.octets[6]) for each in centre.submitted}) == 2
        assert len({each.octets[3] for each in centre.submitted}) == 2

    @pytest.mark.parametrize(("address", "text", "code"), [
        ("030123456", "x", "unsupported_address"), ("+4930123456", " ", "render_error"), ("+4930123456", "x" * 1531, "render_error"),
    ])  # fmt: skip
    def test_what_is_no_message_does_not_leave(
        self, make_channel: Make, centre: Smsc, address: str, text: str, code: str
    ) -> None:
        hand = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}")
        outcome = hand.over(submission(0, address, name=text))[0]
        assert (outcome.kind, outcome.code, centre.tried) == (K.REFUSED, code, 0)


def gsm(text: str) -> bytes:
    """By another's table: Python has none, so that this one is written down for what the tests use."""
    table = {"€": b"\x1be", "{": b"\x1b(", "}": b"\x1b)", "ü": b"\x7e", "Ø": b"\x0b", "Ω": b"\x15"}
    return b"".join(table.get(each) or each.encode("ascii") for each in text)


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "kind", "code"),
        [
            (INVALID_TO, K.PERMANENT_RECIPIENT, "ESME_RINVDSTADR"),
            (0x01, K.PERMANENT_RECIPIENT, "ESME_RINVMSGLEN"),
            (0x0A, K.PERMANENT_SENDER, "ESME_RINVSRCADR"),
            (0x43, K.PERMANENT_SENDER, "ESME_RINVESMCLASS"),
            (0x08, K.TRANSIENT, "ESME_RSYSERR"),
            (0x45, K.TRANSIENT, "ESME_RSUBMITFAIL"),
            (0x45B, K.TRANSIENT, "0x0000045B"),
            (THROTTLED, K.THROTTLED, "ESME_RTHROTTLED"),
            (QUEUE_FULL, K.THROTTLED, "ESME_RMSGQFUL"),
        ],
    )
    def test_what_a_status_means(
        self, make_channel: Make, centre: Smsc, status: int, kind: OutcomeKind, code: str
    ) -> None:
        centre.usual = Reply(status)
        outcome = Hand(make_channel(centre.allowed), centre.settings).over(submission(0, name="x"))[0]
        assert (outcome.kind, outcome.code, len(centre.submitted)) == (kind, code, 1)
        assert (0 < (outcome.retry_after_seconds or 0) <= 1) is (kind is K.THROTTLED)

    def test_each_answer_finds_its_message_in_whatever_order(self, make_channel: Make, centre: Smsc) -> None:
        centre.usual = Reply(held=True)
        centre.replies["49300000003"] = [Reply(INVALID_TO, held=True)]
        hand, found = Hand(make_channel(centre.allowed), centre.settings), Queue[dict[int, Outcome]]()
        threading.Thread(target=lambda: found.put(hand.over(*batch(8)))).start()
        centre.wait_for(8)
        centre.release()
        outcomes = found.get(timeout=10)
        ids = {each.to: each.id for each in centre.submitted}
        assert {ref: each.code for ref, each in outcomes.items() if each.kind is K.ACCEPTED} == {
            ref: ids[f"4930{ref:07}"] for ref in range(8) if ref != 3
        }
        assert outcomes[3].kind is K.PERMANENT_RECIPIENT

    @pytest.mark.parametrize(("window", "most", "seen"), [(4, 10, 4), (50, 2, 2)], ids=["account", "operator"])
    def test_no_more_are_open_than_the_window(
        self, make_channel: Make, centre: Smsc, window: int, most: int, seen: int
    ) -> None:
        centre.usual = Reply(held=True)
        hand = Hand(make_channel(centre.allowed, window=most), {**centre.settings, "window": window})
        outcomes = hand.session.submit(batch(11), hand.marks)
        for count in (seen, 2 * seen):
            centre.wait_for(count)
            centre.until_read()
            assert len(centre.submitted) == len(hand.marks.wired) == count
            centre.release()
        centre.usual = Reply()
        while len(hand.marks.ended) < 11:
            next(outcomes)
            centre.release()
        assert centre.tried == 1

    def test_they_leave_as_fast_as_the_account_says(self, make_channel: Make, centre: Smsc) -> None:
        hand, begun = Hand(make_channel(centre.allowed), {**centre.settings, "per_second": 50}), time.monotonic()
        hand.over(*batch(11))
        assert time.monotonic() - begun >= 10 / 50

    def test_what_could_only_leave_later_goes_back(self, make_channel: Make, centre: Smsc) -> None:
        outcomes = Hand(make_channel(centre.allowed), {**centre.settings, "per_second": 0.5}).over(*batch(5))
        assert kinds(outcomes) == {"accepted": 1, "throttled": 4}
        assert [outcomes[ref].retry_after_seconds for ref in range(1, 5)] == [4.0, 6.0, 8.0, 10.0]

    def test_after_patience_was_asked_for_nothing_leaves_for_a_while(self, make_channel: Make, centre: Smsc) -> None:
        centre.replies["49300000000"] = [Reply(THROTTLED)]
        hand = Hand(make_channel(centre.allowed), {**centre.settings, "window": 1})
        begun = time.monotonic()
        outcomes = hand.over(*batch(3))
        assert [outcomes[ref].kind for ref in range(3)] == [K.THROTTLED, K.ACCEPTED, K.ACCEPTED]
        assert time.monotonic() - begun >= 0.9

    def test_an_answer_that_does_not_come_in_time_is_unknown_and_later_means_nothing(
        self, make_channel: Make, centre: Smsc
    ) -> None:
        centre.replies["49300000000"] = [Reply(held=True)]
        hand = Hand(make_channel(centre.allowed, reply_seconds=1.0), centre.settings)
        outcome = hand.over(*batch(1))[0]
        assert (outcome.kind, outcome.code) == (K.UNKNOWN, "no_answer")
        assert centre.enquired.wait(5)  # whether it is alive at all
        centre.release()
        assert kinds(hand.over(*batch(3, 5))) == {"accepted": 3}
        assert (len(centre.submitted), centre.tried) == (4, 1)

    def test_a_later_part_is_offered_again_and_the_first_is_not(self, make_channel: Make, centre: Smsc) -> None:
        centre.replies["4930123456"] = [Reply(), Reply(THROTTLED), Reply()]
        hand = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}")
        assert hand.over(submission(0, name="x" * 200))[0].kind is K.ACCEPTED
        assert [each.octets[5] for each in centre.submitted] == [1, 2, 2]

    def test_of_a_long_one_that_is_refused_one_part_left(self, make_channel: Make, centre: Smsc) -> None:
        centre.usual = Reply(INVALID_TO)
        hand = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}")
        assert hand.over(submission(0, name="x" * 600))[0].kind is K.PERMANENT_RECIPIENT
        assert len(centre.submitted) == 1

    def test_one_of_which_a_part_is_refused_for_good_may_have_arrived(self, make_channel: Make, centre: Smsc) -> None:
        centre.replies["4930123456"] = [Reply(), Reply(0x01)]
        hand = Hand(make_channel(centre.allowed), centre.settings, "{{ name }}")
        outcome = hand.over(submission(0, name="x" * 200))[0]
        assert (outcome.kind, outcome.code) == (K.UNKNOWN, "partial")


class TestConnections:
    def test_what_was_on_the_wire_when_it_broke_is_unknown_and_the_rest_leaves(
        self, make_channel: Make, centre: Smsc
    ) -> None:
        for ref in range(3):
            centre.replies[f"4930{ref:07}"] = [Reply(silent=True)]
        centre.replies["49300000003"] = [Reply(hang_up=True)]
        hand = Hand(make_channel(centre.allowed), {**centre.settings, "window": 4})
        assert kinds(hand.over(*batch(1, 20))) == {"accepted": 1}
        outcomes = hand.over(*batch(12))
        assert {ref for ref, each in outcomes.items() if each.kind is K.UNKNOWN} == {0, 1, 2, 3}
        assert kinds(outcomes) == {"unknown": 4, "accepted": 8}
        assert max(Counter(each.to for each in centre.submitted).values()) == 1

    @pytest.mark.parametrize(
        "raw", [b"HTTP/1.1 400 Bad\r\n\r\n", b"\x00\x00\x00\x04abcd" * 9, pdu(0x80000000, 0, 3), b"\xff" * 40]
    )
    def test_garbage_ends_the_connection_and_repeats_nothing(
        self, make_channel: Make, centre: Smsc, raw: bytes
    ) -> None:
        centre.replies["49300000000"] = [Reply(raw=raw)]
        hand = Hand(make_channel(centre.allowed, rest_seconds=0.1), {**centre.settings, "window": 1})
        assert hand.over(*batch(1))[0].kind is K.UNKNOWN
        deadline = time.monotonic() + 5
        while (again := hand.over(*batch(1, 1 + centre.tried))) and kinds(again) == {"not_sent": 1}:
            hand.marks = Marks()
            assert time.monotonic() < deadline
        assert kinds(again) == {"accepted": 1}
        assert Counter(each.to for each in centre.submitted)["49300000000"] == 1

    def test_what_it_does_not_know_is_said_and_nothing_ends(self, make_channel: Make, centre: Smsc) -> None:
        hand = Hand(make_channel(centre.allowed), centre.settings)
        hand.over(*batch(1))
        centre.say(pdu(0x103, 77) + pdu(0x102, 78) + pdu(0x15, 79) + pdu(0x80000103, 80))
        bound = centre.bound[0]
        assert [bound.answered.get(timeout=5) for _ in range(2)] == [(0x80000000, 3, 77), (0x80000015, 0, 79)]
        assert (kinds(hand.over(*batch(2, 1))), centre.tried) == ({"accepted": 2}, 1)

    def test_a_refused_message_by_nack_was_not_sent(self, make_channel: Make, centre: Smsc) -> None:
        centre.replies["49300000000"] = [Reply(raw=pdu(0x80000000, 2, 3))]
        outcome = Hand(make_channel(centre.allowed), centre.settings).over(*batch(1))[0]
        assert (outcome.kind, outcome.code) == (K.PERMANENT_SENDER, "ESME_RINVCMDID")

    def test_a_centre_that_parts_is_let_go_and_come_back_to(self, make_channel: Make, centre: Smsc) -> None:
        channel = make_channel(centre.allowed, rest_seconds=0.1)
        hand = Hand(channel, centre.settings)
        hand.over(*batch(1))
        bound = centre.bound[0]
        bound.write(pdu(6, 5))
        assert bound.answered.get(timeout=5) == (0x80000006, 0, 5)

    @pytest.mark.parametrize(
        ("status", "kind", "code"),
        [
            (0x0E, K.PERMANENT_SENDER, "ESME_RINVPASWD"),
            (0x0D, K.PERMANENT_SENDER, "ESME_RBINDFAIL"),
            (0x08, K.NOT_SENT, "ESME_RSYSERR"),
            (ALREADY_BOUND, K.NOT_SENT, "in_use"),
        ],
    )
    def test_without_a_bind_nothing_is_sent(
        self, make_channel: Make, centre: Smsc, status: int, kind: OutcomeKind, code: str
    ) -> None:
        centre.bind_statuses = [status] * 9
        hand = Hand(make_channel(centre.allowed), centre.settings)
        outcomes = hand.over(*batch(20))
        assert {(each.kind, each.code) for each in outcomes.values()} == {(kind, code)}
        assert (hand.marks.wired, centre.submitted, centre.tried) == ([], [], 1)
        assert "s3cret" not in str(outcomes)

    def test_where_nobody_listens_nothing_was_sent(self, make_channel: Make, centre: Smsc, free_port: int) -> None:
        settings = {**centre.settings, "port": free_port}
        outcome = Hand(make_channel(f"127.0.0.1:{free_port}"), settings).over(*batch(1))[0]
        assert (outcome.kind, outcome.code) == (K.NOT_SENT, "not_reached")

    def test_a_quiet_link_is_asked_whether_it_is_alive(self, make_channel: Make, centre: Smsc) -> None:
        channel = make_channel(centre.allowed)
        settings = centre.settings
        way = channel._smpp
        account = replace(way._account(settings).sends_by, enquire_link_seconds=0.05)
        line = way._binds.line(account, lambda _: None)
        assert centre.enquired.wait(5)
        line.close()
        assert centre.parted.wait(5)

    def test_what_nobody_needs_is_parted_from_and_made_again(self, make_channel: Make, centre: Smsc) -> None:
        hand = Hand(make_channel(centre.allowed, idle_seconds=0.05), centre.settings)
        assert kinds(hand.over(*batch(2))) == {"accepted": 2}
        assert centre.parted.wait(5)
        assert kinds(hand.over(*batch(2, 10))) == {"accepted": 2}
        assert centre.tried == 2

    def test_threads_share_a_bind_and_the_last_one_parts(self, make_channel: Make, centre: Smsc) -> None:
        channel = make_channel(centre.allowed)
        first = Hand(channel, centre.settings)
        first.over(*batch(1))

        def other() -> None:
            Hand(channel, centre.settings).over(*batch(3, 10))
            channel.close_thread()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        assert (len(centre.submitted), centre.tried, centre.parted.is_set()) == (4, 1, False)
        channel.close_thread()
        assert centre.parted.wait(5)
        assert kinds(first.over(*batch(1, 20))) == {"accepted": 1}

    def test_what_has_not_begun_is_withdrawn(self, make_channel: Make, centre: Smsc) -> None:
        centre.usual = Reply(held=True)
        hand = Hand(make_channel(centre.allowed), {**centre.settings, "window": 2})
        outcomes = hand.session.submit(batch(20), hand.marks)
        centre.wait_for(2)
        hand.session.withdraw()
        centre.release()
        found = {each.ref: each for each in outcomes if each is not None}
        assert kinds(found) == {"accepted": 2, "not_sent": 18}
        assert len(centre.submitted) == 2

    def test_tls_checks_who_is_there(self, make_channel: Make, tls_contexts: Any) -> None:
        ours, theirs = tls_contexts
        with Smsc(tls=theirs) as centre:
            settings = {**centre.settings, "tls": True, "host": "localhost"}
            allowed = f"localhost:{centre.port}"
            good = Hand(make_channel(allowed, ssl_context=ours), settings).over(*batch(1))[0]
            assert good.kind is K.ACCEPTED
            bad = Hand(make_channel(allowed), settings).over(*batch(1))[0]
            assert (bad.kind, bad.code) == (K.PERMANENT_SENDER, "tls")


class TestHearing:
    @pytest.fixture
    def heard(self) -> "Queue[ProviderEvent]":
        return Queue()

    @pytest.fixture
    def channel(self, make_channel: Make, centre: Smsc) -> SmsByAccount:
        return make_channel(centre.allowed)

    @pytest.fixture
    def line(self, channel: SmsByAccount, centre: Smsc, heard: "Queue[ProviderEvent]") -> Iterator[Any]:
        line = channel.listen(centre.settings, lambda events: [heard.put(each) for each in events])
        assert line is not None
        centre.wait_bound()
        yield line
        line.close()

    @pytest.fixture
    def sent(self, line: Any, channel: SmsByAccount, centre: Smsc) -> Any:
        Hand(channel, centre.settings).over(*batch(1))
        return centre.submitted[0]

    @pytest.mark.parametrize(
        ("stat", "kind"),
        [
            ("DELIVRD", E.DELIVERED),
            ("UNDELIV", E.BOUNCED_SOFT),
            ("EXPIRED", E.BOUNCED_SOFT),
            ("REJECTD", E.BOUNCED_SOFT),
        ],
    )
    def test_a_receipt_is_an_event(
        self, sent: Any, centre: Smsc, heard: "Queue[ProviderEvent]", stat: str, kind: E
    ) -> None:
        assert centre.receipt(sent, stat) == 0
        event = heard.get(timeout=5)
        assert (event.kind, event.code, event.address) == (kind, sent.id, "+49300000000")
        assert centre.receipt(sent, stat) == 0
        assert heard.get(timeout=5).event_id == event.event_id  # the same however often it is told

    def test_the_optional_parameters_say_more_than_the_text(
        self, sent: Any, centre: Smsc, heard: "Queue[ProviderEvent]"
    ) -> None:
        tlvs = [
            smpp34.Tlv(smpp34.TLV_RECEIPTED_MESSAGE_ID, b"other\0"),
            smpp34.Tlv(smpp34.TLV_MESSAGE_STATE, b"\x05"),
            smpp34.Tlv(smpp34.TLV_NETWORK_ERROR_CODE, b"\x03\x00\x01"),
        ]
        assert centre.receipt(sent, "DELIVRD", tlvs=tlvs) == 0
        event = heard.get(timeout=5)
        assert (event.kind, event.code) == (E.BOUNCED_HARD, "other")  # nobody has this number

    def test_what_is_on_its_way_is_no_news(self, sent: Any, centre: Smsc, heard: "Queue[ProviderEvent]") -> None:
        for stat in ("ENROUTE", "ACCEPTD", "UNKNOWN", "WHATEVER"):
            assert centre.receipt(sent, stat) == 0
        assert heard.empty()

    def test_a_person_writes(self, line: Any, centre: Smsc, heard: "Queue[ProviderEvent]") -> None:
        assert centre.deliver("491701234567", b"STOP") == 0
        assert centre.deliver("491701234567", "Остановить".encode("utf-16-be"), data_coding=8) == 0
        first, second = heard.get(timeout=5), heard.get(timeout=5)
        assert (first.kind, first.address, first.detail) == (E.INBOUND_MESSAGE, "+491701234567", "STOP")
        assert second.detail == "Остановить"
        assert first.event_id != second.event_id

    def test_of_a_long_one_the_first_part_counts(self, line: Any, centre: Smsc, heard: "Queue[ProviderEvent]") -> None:
        for number, text in ((1, b"Where can I"), (2, b"stop for a coffee?")):
            assert centre.deliver("491701234567", bytes([5, 0, 3, 9, 2, number]) + text, esm_class=0x40) == 0
        assert heard.get(timeout=5).detail == "Where can I"
        assert heard.empty()

    def test_what_cannot_be_read_is_refused_for_good(self, line: Any, centre: Smsc) -> None:
        centre.say(pdu(5, 33, 0, b"\xff\xfe"))
        assert centre.bound[0].answered.get(timeout=5) == (0x80000005, 0x65, 33)

    def test_what_could_not_be_kept_is_asked_for_again(self, make_channel: Make, centre: Smsc) -> None:
        kept: list[str] = []

        def keep(events: Any) -> None:
            if not kept:
                kept.append("failed")
                raise RuntimeError("no database")
            kept.extend(each.detail for each in events)

        line = make_channel(centre.allowed).listen(centre.settings, keep)
        assert line is not None
        centre.wait_bound()
        assert [centre.deliver("491701234567", b"STOP") for _ in range(2)] == [0x64, 0]
        assert kept == ["failed", "STOP"]
        line.close()

    def test_the_answer_waits_until_it_is_kept_and_messages_do_not(self, make_channel: Make, centre: Smsc) -> None:
        may_end = threading.Event()
        channel = make_channel(centre.allowed)
        line = channel.listen(centre.settings, lambda _: may_end.wait(10))
        assert line is not None
        centre.wait_bound()
        assert centre.deliver("491701234567", b"STOP", seconds=0.2) is None
        assert kinds(Hand(channel, centre.settings).over(*batch(5))) == {"accepted": 5}
        may_end.set()
        assert centre.bound[0].answered.get(timeout=5)[:2] == (0x80000005, 0)
        line.close()

    def test_where_nobody_hears_the_centre_keeps_it(self, make_channel: Make, centre: Smsc) -> None:
        Hand(make_channel(centre.allowed), centre.settings).over(*batch(1))
        assert centre.deliver("491701234567", b"STOP") == 0x64

    def test_a_lost_line_is_made_again(self, line: Any, centre: Smsc, heard: "Queue[ProviderEvent]") -> None:
        assert centre.deliver("491701234567", b"START") == 0
        centre.hang_up()
        deadline = time.monotonic() + 5
        while centre.tried < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        centre.wait_bound()
        assert centre.deliver("491701234567", b"STOP") == 0
        assert [heard.get(timeout=5).detail for _ in range(2)] == ["START", "STOP"]

    def test_a_pair_sends_by_one_and_hears_by_the_other(
        self, make_channel: Make, centre: Smsc, heard: "Queue[ProviderEvent]"
    ) -> None:
        settings, channel = {**centre.settings, "bind_mode": "pair"}, make_channel(centre.allowed)
        line = channel.listen(settings, lambda events: [heard.put(each) for each in events])
        assert line is not None
        Hand(channel, settings).over(*batch(1))
        centre.wait_bound(2)
        assert sorted(each.kind for each in centre.bound) == [1, 2]
        assert centre.receipt(centre.submitted[0], "DELIVRD") == 0
        assert heard.get(timeout=5).kind is E.DELIVERED
        line.close()

    def test_who_only_sends_hears_nothing(self, make_channel: Make, centre: Smsc) -> None:
        assert make_channel(centre.allowed).listen({**centre.settings, "bind_mode": "transmitter"}, print) is None

    def test_ids_may_be_written_in_another_way(self, make_channel: Make, heard: "Queue[ProviderEvent]") -> None:
        with Smsc() as centre:
            centre.replies["49300000000"] = [Reply(raw=pdu(0x80000004, 2, 0, b"00FF\0"))]
            settings, channel = {**centre.settings, "receipt_ids": "decimal"}, make_channel(centre.allowed)
            assert Hand(channel, settings).over(*batch(1))[0].code == "ff"
            line = channel.listen(settings, lambda events: [heard.put(each) for each in events])
            assert line is not None
            assert centre.receipt(centre.submitted[0], "DELIVRD", id_="255") == 0
            assert heard.get(timeout=5).code == "ff"
            line.close()

    def test_the_state_says_what_is_wrong(self, make_channel: Make, centre: Smsc) -> None:
        channel = make_channel(centre.allowed)
        line = channel.listen({**centre.settings, "password": "wrong"}, print)
        assert line is not None
        deadline = time.monotonic() + 5
        while not line.state().said:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        state = line.state()
        assert (state.is_open, state.is_refused, state.code) == (False, True, "ESME_RINVPASWD")
        assert "wrong" not in state.said
        line.close()


class TestAccounts:
    @pytest.mark.parametrize(
        ("change", "place", "code"),
        [
            ({"host": None}, "host", "required"),
            ({"password": None}, "password", "required"),
            ({"from": "Twelve chars"}, "from", "not_a_sender"),
            ({"system_id": "x" * 16}, "system_id", "not_well_formed"),
            ({"password": "pä"}, "password", "not_well_formed"),
            ({"port": 0.5}, "port", "out_of_bounds"),
            ({"window": 0}, "window", "out_of_bounds"),
            ({"per_second": True}, "per_second", "out_of_bounds"),
            ({"bind_mode": "both"}, "bind_mode", "not_allowed"),
            ({"registered_delivery": "all"}, "registered_delivery", "not_allowed"),
            ({"tls": "no"}, "tls", "not_allowed"),
            ({"token": "x"}, "token", "unknown_setting"),
            ({"host": "10.0.0.1", "port": 2775}, "host", "host_refused"),
            ({"host": "smsc.example", "port": 22}, "host", "host_refused"),
            ({"host": "smsc.example", "port": 2775, "tls": False}, "tls", "password_in_the_clear"),
            ({"provider": "pigeon"}, "provider", "not_allowed"),
            ({"provider": None}, "provider", "required"),
        ],
    )
    def test_every_fault_is_named(
        self, make_channel: Make, centre: Smsc, change: dict[str, Any], place: str, code: str
    ) -> None:
        settings = {name: value for name, value in {**centre.settings, **change}.items() if value is not None}
        with pytest.raises(ValidationError) as refused:
            make_channel(centre.allowed).validate(settings)
        assert (place, code) in {(each.path, each.code) for each in refused.value.problems}
        assert "s3cret" not in str(refused.value)
        assert "pä" not in str(refused.value)

    def test_a_public_centre_is_fine_with_tls(self, make_channel: Make) -> None:
        about = {"provider": "smpp", "from": "Shop", "host": "smsc.example.com", "system_id": "a", "password": "b"}
        make_channel().validate(about)
        make_channel().validate({**about, "port": 2776})

    def test_a_look_binds_and_parts(self, make_channel: Make, centre: Smsc, free_port: int) -> None:
        channel = make_channel(centre.allowed, f"127.0.0.1:{free_port}")
        channel.probe(centre.settings)
        assert centre.parted.wait(5)
        with pytest.raises(PermissionDenied, match="ESME_RINVPASWD"):
            channel.probe({**centre.settings, "password": "wrong"})
        with pytest.raises(Unavailable):
            channel.probe({**centre.settings, "port": free_port})
        centre.bind_statuses = [ALREADY_BOUND]
        channel.probe(centre.settings)  # known, and bound elsewhere

    def test_a_name_that_means_our_network_is_not_connected_to(self, centre: Smsc) -> None:
        inside = lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", 2775))]  # noqa: E731
        dialer = Dialer(ALLOW_SETTING, (), PORTS, resolver=inside)
        channel = SmsByAccount(SmppWay(SmppLimits(), dialer), 0, None)
        settings = {**centre.settings, "host": "smsc.example.com", "port": 2775, "tls": True}
        with pytest.raises(HostRefused, match=r"nexus\.smpp\.allow_hosts"):
            channel.probe(settings)
        outcome = Hand(channel, settings).over(*batch(1))[0]
        assert (outcome.kind, outcome.code) == (K.PERMANENT_SENDER, "host_refused")
        channel.close_thread()

    def test_others_go_by_the_operators_provider(self, make_channel: Make, make_client: Any, clock: Any) -> None:
        provider = SmsProvider("https://sms.example", "AC1", "t", connections=12)
        http = SmsChannel(provider, make_client(), clock)
        channel = make_channel(http=http)
        channel.validate({"from": "Shop"})
        channel.validate({"from": "Shop", "provider": "twilio"})
        assert channel.capabilities.secret_settings == {"token", "password"}
        assert channel.capabilities.max_in_flight == 12
        with pytest.raises(Conflict):
            channel.probe({"from": "Shop"})


def test_a_centre_that_somebody_else_wrote_understands_us(make_channel: Make, free_port: int) -> None:
    """The server of ``smpp34``, as a check on what both sides of these tests are made of by us."""
    texts: list[bytes] = []

    async def serve(ready: threading.Event) -> None:
        server = smpp34.Server("127.0.0.1", free_port)
        await server.start()
        ready.set()
        while True:
            event = await server.next()
            if isinstance(event, smpp34.SubmitSmEvent):
                texts.append(bytes(event.short_message))
                event.accept(f"id-{len(texts)}")
            elif isinstance(event, smpp34.Unbound):
                break
        await server.stop()

    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(ready)), daemon=True)
    thread.start()
    assert ready.wait(10)
    channel = make_channel(f"127.0.0.1:{free_port}")
    login = {"system_id": "shop", "password": "s3cret", "from": "Shop"}
    settings = {"provider": "smpp", "host": "127.0.0.1", "port": free_port, "tls": False, **login}
    outcomes = Hand(channel, settings).over(*batch(20))
    assert {each.code for each in outcomes.values()} == {f"id-{number}" for number in range(1, 21)}
    channel.close_thread()
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(texts) == sorted(f"Hello n{ref}".encode() for ref in range(20))
