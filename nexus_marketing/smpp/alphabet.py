"""Texts as octets and back (SMPP 3.4 5.2.19): the GSM 7-bit alphabet one septet an octet, else UCS-2."""

from typing import Final

from nexus_marketing.core.sms import BASIC_TABLE, EXTENSION_TABLE, Encoding, cut, measure

DEFAULT: Final = 0x00
_ASCII: Final = 0x01
_LATIN_1: Final = 0x03
UCS_2: Final = 0x08
_ESCAPE: Final = 0x1B
_SEPTETS: Final = {
    **{character: bytes([place]) for place, character in enumerate(BASIC_TABLE) if place != _ESCAPE},
    **{character: bytes([_ESCAPE, septet]) for character, septet in EXTENSION_TABLE.items()},
}
_EXTENDED: Final = {septet: character for character, septet in EXTENSION_TABLE.items()}
#: Concatenation with a reference of eight bits (TS 23.040 9.2.3.24.1): length, kind, its length.
_JOINED: Final = bytes([5, 0, 3])
#: A part with a reference of sixteen bits (9.2.3.24.8).
_LONG_REFERENCE: Final = 8


def coding_of(text: str) -> int:
    """The ``data_coding`` that a text travels in."""
    return DEFAULT if measure(text).encoding is Encoding.GSM_7 else UCS_2


def encoded(text: str, coding: int) -> bytes:
    """A text, or a piece of one, in the octets of ``DEFAULT`` or ``UCS_2``."""
    if coding == UCS_2:
        return text.encode("utf-16-be", "replace")
    return b"".join(_SEPTETS[character] for character in text)


def segments(text: str, reference: int) -> list[bytes]:
    """A text as the ``short_message`` of each segment; several begin with a header that joins them.

    Args:
        text: with as many segments as :func:`nexus_marketing.core.sms.measure` says, at most 255.
        reference: 0 to 255, not that of another long text to the same number a moment ago.
    """
    pieces, coding = cut(text), coding_of(text)
    if len(pieces) < 2:
        return [encoded(piece, coding) for piece in pieces]
    about = bytes([reference, len(pieces)])
    return [_JOINED + about + bytes([number]) + encoded(piece, coding) for number, piece in enumerate(pieces, start=1)]


def decoded(octets: bytes, coding: int) -> str:
    """What somebody wrote; what is no text (8-bit data) is empty.

    >>> decoded(b"STOP", 0), decoded(bytes([0x1B, 0x65]), 0), decoded("Ja".encode("utf-16-be"), 8), decoded(b"x", 4)
    ('STOP', '€', 'Ja', '')
    """
    if coding in (_ASCII, _LATIN_1):
        return octets.decode("latin-1")
    kind = _class_of(coding)
    if kind == UCS_2:
        return octets.decode("utf-16-be", "replace")
    return _from_septets(octets) if kind == DEFAULT else ""


def _class_of(coding: int) -> int:
    """``DEFAULT``, ``UCS_2``, or anything else; SMPP's own values, and above them those of TS 23.038 4."""
    if coding < 0x10:
        return coding
    if coding >= 0xF0:
        return 0x04 if coding & 0x04 else DEFAULT
    return (DEFAULT, 0x04, UCS_2, 0x0C)[coding >> 2 & 0x03] if coding < 0x40 else DEFAULT


def _from_septets(octets: bytes) -> str:
    found: list[str] = []
    escaped = False
    for octet in octets:
        if escaped:
            # A device that does not know an extension shows the character of the basic table (TS 23.038 6.2.1.1).
            found.append(_EXTENDED.get(octet) or BASIC_TABLE[octet & 0x7F])
        elif octet != _ESCAPE:
            # Some centres say that it is their alphabet and send Latin-1.
            found.append(BASIC_TABLE[octet] if octet < 0x80 else bytes([octet]).decode("latin-1"))
        escaped = octet == _ESCAPE and not escaped
    return "".join(found)


def without_header(octets: bytes) -> tuple[bytes, int]:
    """A ``short_message`` that begins with a header, without it; and which part it is, 1 where it is whole."""
    if not octets:
        return b"", 1
    end = 1 + octets[0]
    part, at = 1, 1
    while at + 1 < min(end, len(octets)):
        kind, length = octets[at], octets[at + 1]
        value = octets[at + 2 : at + 2 + length]
        if kind in (0, _LONG_REFERENCE) and value:
            part = value[-1]
        at += 2 + length
    return octets[end:], part
