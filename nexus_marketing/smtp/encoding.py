"""Quoted-printable as the skeleton needs it: lines of at most 76, no line that begins with a dot.

A leading dot becomes ``=2E``, so that no message ever needs dot-stuffing and a byte segment means the same
wherever it stands. Every piece begins at column 0: a soft break stands before and after each filled-in value.
"""

import re

SOFT_BREAK = b"=\r\n"
_ROOM = 75
_LINE_LIMIT = 76
_SPECIAL = re.compile(rb"[^\t\n -<>-~]")
_TRAILING_BLANK = re.compile(rb"[ \t](?=\n)")
_NEWLINE = re.compile(r"\r\n?")
_HEX = tuple(f"={byte:02X}".encode("ascii") for byte in range(256))


def unify_newlines(text: str) -> str:
    """The text with LF for every CRLF, CR and LF."""
    return _NEWLINE.sub("\n", text) if "\r" in text else text


def encode_qp(text: str, *, soft_end: bool = False) -> bytes:
    """The text as quoted-printable UTF-8 with CRLF, starting at column 0.

    Args:
        soft_end: something follows after a soft break, so that the last line leaves room for its ``=``
            and its trailing blanks may stay.
    """
    raw = _SPECIAL.sub(_escape, unify_newlines(text).encode("utf-8", "replace"))
    raw = _TRAILING_BLANK.sub(_escape, raw)
    if not soft_end and raw[-1:] in (b" ", b"\t"):
        raw = raw[:-1] + _HEX[raw[-1]]
    if raw[:1] == b"." or b"\n." in raw:
        raw = re.sub(rb"(?m)^\.", b"=2E", raw)
    lines = [line if len(line) <= _ROOM else _wrap(line, _LINE_LIMIT) for line in raw.split(b"\n")]
    if soft_end and len(lines[-1]) - lines[-1].rfind(b"\n") - 1 > _ROOM:
        lines[-1] = _wrap(raw[raw.rfind(b"\n") + 1 :], _ROOM)
    return b"\r\n".join(lines)


def _escape(match: "re.Match[bytes]") -> bytes:
    return _HEX[match[0][0]]


def _wrap(line: bytes, last_room: int) -> bytes:
    """One encoded line cut by soft breaks, never inside ``=XX``; the last piece fits ``last_room``."""
    pieces: list[bytes] = []
    start, prefix = 0, b""
    while len(line) - start + len(prefix) > last_room:
        end = start + _ROOM - len(prefix)
        if line[end - 1 : end] == b"=":
            end -= 1
        elif line[end - 2 : end - 1] == b"=":
            end -= 2
        pieces.append(prefix + line[start:end])
        start = end
        prefix = b""
        if line[start : start + 1] == b".":
            start, prefix = start + 1, b"=2E"
    pieces.append(prefix + line[start:])
    return SOFT_BREAK.join(pieces)
