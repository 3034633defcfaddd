"""Segments by the tables of the standard, held against a counter that is made another way."""

import doctest
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core import sms
from nexus_marketing.core.sms import Encoding, is_e164, measure

pytestmark = pytest.mark.req("D08", "US-018")

# TS 23.038 6.2.1 as it is printed: eight columns of sixteen rows, the escape marked by a blank column entry.
TABLE = (
    "@£$¥èéùìòÇ\nØø\rÅå",
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ",
    " !\"#¤%&'()*+,-./",
    "0123456789:;<=>?",
    "¡ABCDEFGHIJKLMNO",
    "PQRSTUVWXYZÄÖÑÜ§",
    "¿abcdefghijklmno",
    "pqrstuvwxyzäöñüà",
)
ESCAPED = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}
SEPTETS = {
    character: bytes([16 * high + low]) for high, column in enumerate(TABLE) for low, character in enumerate(column)
}
del SEPTETS["\x1b"]
SEPTETS |= {character: bytes([0x1B, septet]) for septet, character in ESCAPED.items()}


def sent(text: str) -> tuple[Encoding, list[bytes]]:
    """The segments themselves, as a telephone would put them together: bytes of septets, or of UTF-16."""
    try:
        pieces = [SEPTETS[character] for character in text]
        encoding, single, room = Encoding.GSM_7, 160, 153
    except KeyError:
        pieces = [character.encode("utf-16-be") for character in text]
        encoding, single, room = Encoding.UCS_2, 140, 134
    whole = b"".join(pieces)
    if len(whole) <= single:
        return encoding, [whole] if whole else []
    segments = [b""]
    while pieces:
        if len(segments[-1]) + len(pieces[0]) > room:
            segments.append(b"")
        segments[-1] += pieces.pop(0)
    return encoding, segments


def check(text: str, *, pieces: bool = True) -> None:
    encoding, segments = sent(text)
    found = measure(text)
    units = len(b"".join(segments)) // (1 if encoding is Encoding.GSM_7 else 2)
    assert (found.encoding, found.units, found.segments) == (encoding, units, len(segments)), text
    if not pieces:
        return
    found_pieces = sms.cut(text)
    assert "".join(found_pieces) == text
    wide = encoding is Encoding.UCS_2
    octets = [
        piece.encode("utf-16-be") if wide else b"".join(SEPTETS[each] for each in piece) for piece in found_pieces
    ]
    assert octets == segments


def test_the_alphabet_is_the_one_of_the_standard():
    assert len(SEPTETS) == 127 + 10
    assert SEPTETS.keys() == sms.BASIC | sms.EXTENSION
    assert set(ESCAPED.values()) == sms.EXTENSION
    assert "".join(TABLE) == sms.BASIC_TABLE
    assert {character: septet for septet, character in ESCAPED.items()} == sms.EXTENSION_TABLE


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 0),
        ("a", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 1530, 10),
        ("a" * 1531, 11),
        ("€" * 80, 1),
        ("€" * 81, 2),
        # 153 is odd: the escape of the 77th would be cut off from its letter.
        ("€" * 152, 2),
        ("€" * 153, 3),
        ("a" + "€" * 152, 2),
        ("a" + "€" * 153, 3),
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 134, 2),
        ("я" * 135, 3),
        ("👋" * 35, 1),
        ("👋" * 36, 2),
        # 67 is odd as well.
        ("👋" * 66, 2),
        ("👋" * 67, 3),
        ("ç", 1),
        ("Ç" * 160, 1),
        ("ç" + "a" * 69, 1),
        ("ç" + "a" * 70, 2),
        ("`" + "a" * 70, 2),
    ],
)
def test_borders(text, segments):
    assert measure(text).segments == segments
    check(text)


@given(st.text(st.sampled_from("aé€{~\n@я👋"), max_size=400))
def test_letters_near_the_border(text):
    check(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text(text):
    check(text)


@given(st.text(st.sampled_from(sorted(SEPTETS)), min_size=140, max_size=330))
def test_any_text_of_the_alphabet(text):
    assert measure(text).encoding is Encoding.GSM_7
    check(text)


@pytest.mark.slow
@pytest.mark.no_cover
def test_a_hundred_thousand_texts():
    rng = random.Random(23038)
    alphabets = ["".join(sms.BASIC), "".join(SEPTETS), "€a", "aя", "я👋", "👋"]
    for _ in range(100_000):
        check(
            "".join(
                rng.choices(rng.choice(alphabets), k=rng.choice((1, 69, 70, 71, 134, 135, 153, 160, 161, 306, 307)))
            ),
            pieces=False,
        )


@pytest.mark.parametrize(
    "number", ["", "+", "+0301234567", "493012345678", "+49 30 1234", "+1234567890123456", "+49301234567x"]
)
def test_what_is_no_whole_number(number):
    assert not is_e164(number)


def test_the_examples_hold():
    assert doctest.testmod(sms).failed == 0
