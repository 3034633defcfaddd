"""What a text message costs on the air: its encoding and the segments it travels in (3GPP TS 23.038, TS 23.040).

A text of the GSM 7-bit alphabet has room for 160 septets in one segment, anything else for 70 UTF-16 code units. A longer
one is concatenated: each segment then gives six octets to a header, which leaves 153 septets or 67 code units.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final


class Encoding(StrEnum):
    """How a text travels."""

    GSM_7 = "gsm_7"
    UCS_2 = "ucs_2"


#: TS 23.038 6.2.1: a character's place is its septet; that of ESC leads to the extension table.
BASIC_TABLE: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: TS 23.038 6.2.1.1: an escape and a septet of its own, two in all.
EXTENSION_TABLE: Final[Mapping[str, int]] = dict(
    zip("\f^{}\\[~]|€", (0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40, 0x65), strict=True)
)
BASIC: Final = frozenset(BASIC_TABLE) - {"\x1b"}
EXTENSION: Final = frozenset(EXTENSION_TABLE)

_ROOM: Final = {Encoding.GSM_7: (160, 153), Encoding.UCS_2: (70, 67)}
_E164 = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch


@dataclass(frozen=True, slots=True)
class Measure:
    """``units`` are septets or UTF-16 code units; ``segments`` is what is paid for."""

    encoding: Encoding
    units: int
    segments: int


def measure(text: str) -> Measure:
    """How a text is encoded and into how many segments it goes; an empty one into none.

    >>> measure("a" * 160).segments, measure("a" * 161).segments, measure("€" * 80).units
    (1, 2, 160)
    >>> measure("Gruß 👋")
    Measure(encoding=<Encoding.UCS_2: 'ucs_2'>, units=7, segments=1)
    """
    if BASIC.issuperset(text):
        return _measured(Encoding.GSM_7, len(text), ())
    if all(each in BASIC or each in EXTENSION for each in text):
        return _measured(Encoding.GSM_7, *_summed(_sizes(text, Encoding.GSM_7)))
    return _measured(Encoding.UCS_2, *_summed(_sizes(text, Encoding.UCS_2)))


def cut(text: str) -> list[str]:
    """The text in pieces that travel in a segment each, as many as :func:`measure` counts.

    >>> [len(piece) for piece in cut("a" * 161)], [len(piece) for piece in cut("👋" * 36)]
    ([153, 8], [33, 3])
    """
    measured = measure(text)
    if measured.segments < 2:
        return [text] if text else []
    room = left = _ROOM[measured.encoding][1]
    borders = [0]
    for at, size in enumerate(_sizes(text, measured.encoding)):
        if size > left:
            borders.append(at)
            left = room
        left -= size
    return [text[begin:end] for begin, end in pairwise([*borders, len(text)])]


def is_e164(number: str) -> bool:
    """Whether this is a whole telephone number as ITU-T E.164 writes it.

    >>> is_e164("+493012345678"), is_e164("030 12345678")
    (True, False)
    """
    return _E164(number) is not None


class Keyword(StrEnum):
    """What somebody asks for with a single word (CTIA Messaging Principles 5.1.3; 47 CFR 64.1200(a)(10))."""

    STOP = "stop"
    START = "start"
    HELP = "help"


#: The words of the CTIA and of Twilio, and what people write in other languages.
_STOP: Final = frozenset(
    {
        "stop",
        "stopall",
        "unsubscribe",
        "unsub",
        "cancel",
        "end",
        "quit",
        "optout",
        "revoke",
        "stopp",
        "arret",
        "alto",
        "baja",
        "parar",
        "abmelden",
    }
)
_START: Final = frozenset({"start", "yes", "unstop"})
_HELP: Final = frozenset({"help", "info"})
#: What else is written with a word and changes nothing.
_FILLERS: Final = frozenset(
    {"please", "pls", "plz", "now", "all", "bitte", "thanks", "thx", "it", "this", "messages", "texts"}
)
#: With these a message may go on as it likes: the law takes any reasonable wording for a wish.
_AT_ONCE: Final = frozenset({"stop", "stopall", "unsubscribe", "unsub", "optout"})
_OPT_OUT = re.compile(r"\bopt[ -]*out\b")


def keyword_of(text: str) -> Keyword | None:
    """What a message from somebody's telephone asks for; nothing where it is just a message.

    Case, punctuation, invisible characters, accents and look-alikes of full width make no difference.

    >>> keyword_of("Stop, please!"), keyword_of("ＳＴＯＰ"), keyword_of("HELP"), keyword_of("when does it end?")
    (<Keyword.STOP: 'stop'>, <Keyword.STOP: 'stop'>, <Keyword.HELP: 'help'>, None)
    """
    words = _OPT_OUT.sub("optout", _plain(text[:1600])).replace("-", " ").split()
    if not words:
        return None
    first, others = words[0], set(words[1:])
    if first in _AT_ONCE:
        return Keyword.STOP
    meant = [word for word in words if word not in _FILLERS]
    if len(meant) == 1 and meant[0] in _STOP:
        return Keyword.STOP
    if others - _FILLERS:
        return None
    return Keyword.START if first in _START else Keyword.HELP if first in _HELP else None


def _plain(text: str) -> str:
    """Lower-case letters and digits without accents, hyphens, and single spaces for all else that is visible."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    kept = (each for each in decomposed if unicodedata.category(each) not in ("Mn", "Cf"))
    return "".join(each if each.isalnum() or each == "-" else " " for each in kept)


def _sizes(text: str, encoding: Encoding) -> Iterable[int]:
    """Septets or code units of each character."""
    if encoding is Encoding.GSM_7:
        return (2 if each in EXTENSION else 1 for each in text)
    return (2 if ord(each) > 0xFFFF else 1 for each in text)


def _summed(sizes: Iterable[int]) -> tuple[int, tuple[int, ...]]:
    found = tuple(sizes)
    return sum(found), found


def _measured(encoding: Encoding, units: int, sizes: tuple[int, ...]) -> Measure:
    """``sizes`` of the characters, empty where each has one unit."""
    single, part = _ROOM[encoding]
    if units <= single:
        return Measure(encoding, units, int(units > 0))
    return Measure(encoding, units, _packed(sizes, part) if sizes else -(-units // part))


def _packed(sizes: tuple[int, ...], room: int) -> int:
    """A character of two units is not cut by the border of a segment (TS 23.040 9.2.3.24.1): it moves to the next."""
    segments, left = 1, room
    for size in sizes:
        if size > left:
            segments, left = segments + 1, room
        left -= size
    return segments
