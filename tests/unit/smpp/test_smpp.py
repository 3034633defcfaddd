"""SMPP on paper: alphabets and back, PDUs cut out of a stream, addresses, and whatever anybody may send."""

import doctest
import struct

import pytest
import smpp34
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.sms import BASIC, EXTENSION, measure
from nexus_marketing.smpp import alphabet, jobs, receipts, statuses
from nexus_marketing.smpp.alphabet import coding_of, decoded, encoded, segments, without_header
from nexus_marketing.smpp.jobs import Pace
from nexus_marketing.smpp.pdus import Garbage, Stream, packed
from nexus_marketing.smpp.receipts import ReceiptIds, event_of

pytestmark = pytest.mark.req("US-018", "D08")

TEXTS = st.one_of(
    st.text(alphabet=sorted(BASIC | EXTENSION), max_size=400),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200),
)


@pytest.mark.parametrize("module", [alphabet, receipts, statuses, jobs])
def test_the_examples_are_right(module):
    assert doctest.testmod(module).failed == 0


@given(TEXTS)
def test_a_text_comes_back_from_its_parts(text):
    coding, parts = coding_of(text), segments(text, 7)
    assert len(parts) == measure(text).segments
    room = 160 if coding == 0 else 140
    assert all(len(part) <= room for part in parts)
    if len(parts) > 1:
        assert [without_header(part)[1] for part in parts] == list(range(1, len(parts) + 1))
        parts = [without_header(part)[0] for part in parts]
    assert "".join(decoded(part, coding) for part in parts) == text == decoded(encoded(text, coding), coding)


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(1, 40))
def test_pdus_are_cut_out_of_a_stream_however_it_comes(bodies, step):
    whole = b"".join(packed(4, number, body=body) for number, body in enumerate(bodies))
    stream, found = Stream(), []
    for at in range(0, len(whole), step):
        found += stream.feed(whole[at : at + step])
    assert [(each.sequence, each.data[16:]) for each in found] == list(enumerate(bodies))


@pytest.mark.parametrize("length", [0, 15, 80_001, 0xFFFFFFFF])
def test_a_length_that_no_pdu_has_is_garbage(length):
    with pytest.raises(Garbage):
        list(Stream().feed(struct.pack(">IIII", length, 4, 0, 1)))


@given(st.binary(max_size=300))
def test_whatever_is_delivered_is_an_event_or_nothing_or_not_to_be_read(body):
    try:
        event = event_of(packed(5, 1, body=body), ReceiptIds.SAME, "1")
    except smpp34.SmppError:
        return
    assert event is None or (event.event_id and len(event.code) <= 64)


@given(
    st.binary(max_size=254),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 6),
    st.lists(st.tuples(st.sampled_from([0x1E, 0x427, 0x423, 0x424, 0x20F]), st.binary(max_size=80)), max_size=4),
)
def test_whatever_a_delivery_holds(octets, esm_class, data_coding, ton, tlvs):
    message = smpp34.DeliverSm(
        "49301234567",
        "12345",
        octets,
        esm_class=esm_class,
        data_coding=data_coding,
        source_addr_ton=ton,
        tlvs=[smpp34.Tlv(*each) for each in tlvs],
    )
    for ids in ReceiptIds:
        event = event_of(message.encode(), ids, "1")
        assert event is None or len(event.code) <= 64


def test_patience_grows_and_ends():
    pace = Pace(10.0)
    waits = [pace.throttled(0.0), pace.throttled(0.5), pace.throttled(1.0), pace.throttled(3.0)]
    assert waits == [1.0, 0.5, 2.0, 4.0]  # who is refused while it waits changes nothing
    assert [pace.throttled(now) for now in (10.0, 20.0, 40.0, 100.0)] == [8.0, 16.0, 30.0, 30.0]
    pace.taken()
    assert pace.throttled(1000.0) == 1.0


def test_messages_leave_evenly():
    pace, now, left = Pace(4.0), 10.0, []
    for _ in range(5):
        now += pace.wait(now)
        left.append(now)
        pace.left(now)
    assert left == [10.0, 10.25, 10.5, 10.75, 11.0]
