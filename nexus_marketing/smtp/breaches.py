"""What of a message on the wire is against the rules."""

import re
from collections.abc import Iterator

from nexus_marketing.smtp.headers import LINE_LIMIT

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_UNSTUFFED = re.compile(rb"(?:^|\n)\.[^.\r]")


def breaches(message: bytes, *, eight_bit: bool) -> Iterator[tuple[str, bytes]]:
    """What of a message, as it came over the wire, breaks RFC 5321 or 5322: a stable name, and the place."""
    for line in message.split(b"\r\n"):
        if len(line) > LINE_LIMIT:
            yield "line_too_long", line
    breaks = message.count(b"\r\n")
    if message.count(b"\n") != breaks or message.count(b"\r") != breaks:
        yield "bare_line_break", _around(_BARE.search(message), message)
    if b"\0" in message:
        yield "nul", _around(re.search(rb"\0", message), message)
    if not eight_bit and not message.isascii():
        yield "eight_bit_undeclared", _around(re.search(rb"[\x80-\xff]", message), message)
    if (message.startswith(b".") or b"\n." in message) and (match := _UNSTUFFED.search(message)):
        yield "unstuffed_dot", _around(match, message)


def _around(match: "re.Match[bytes] | None", message: bytes) -> bytes:
    return message[max(0, match.start() - 20) : match.end() + 20] if match else b""
