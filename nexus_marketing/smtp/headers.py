"""The one header encoder: whatever reaches a header line passes here (SECURITY S11).

A value with a line break, NUL or another control character is refused, never cleaned: silently changed
values hide attacks and break comparisons.
"""

import base64
import re
from datetime import datetime
from email.utils import format_datetime

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.addresses import PLAIN_ADDRESS, ascii_address

LINE_AIM = 78
LINE_LIMIT = 998
_WORD_LIMIT = 75
_NAME = re.compile(r"[!-9;-~]{1,70}")
# C0, DEL, C1 (with NEL, U+0085), the Unicode line and paragraph separators, and lone surrogates
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ATOM = r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+"
_ATOMS = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_LONGEST_WORD = LINE_LIMIT - 100
_LONGEST_ATOM = 60
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")


def check_header_name(name: str) -> str:
    """The header name itself, or ValidationError: letters, digits and punctuation without a colon."""
    if not _NAME.fullmatch(name):
        raise ValidationError.at(name, "header_name", f"{name[:40]!r} is no header name: printable ASCII without ':'")
    return name


def check_header_value(name: str, value: str) -> str:
    """The value itself if no character in it could end or corrupt a header line, else ValidationError."""
    if match := _FORBIDDEN.search(value):
        found = f"U+{ord(match[0]):04X}"
        message = f"the value of header {name} holds the character {found} at {match.start()}: take it out"
        raise ValidationError.at(name, "header_injection", message)
    return value


def text_header(name: str, value: str) -> bytes:
    """One unstructured header line (Subject, …), folded, non-ASCII as RFC 2047 encoded words, with CRLF."""
    check_header_name(name)
    check_header_value(name, value)
    if _needs_words(value):
        return _fold(name, _encoded_words(value, len(name) + 2))
    return _fold(name, re.findall(r" *[^ ]+", value))


def token_header(name: str, value: str) -> bytes:
    """One structured ASCII header (Message-ID, List-Unsubscribe, Date, …): folded at spaces only, never inside a URI."""
    check_header_name(name)
    check_header_value(name, value)
    if not value.isascii():
        raise ValidationError.at(name, "header_not_ascii", f"header {name} takes ASCII only: encode the value first")
    if max(map(len, value.split(" "))) > _LONGEST_WORD or not value.strip():
        raise ValidationError.at(name, "header_too_long", f"header {name} is empty or has a word over {_LONGEST_WORD}")
    return _fold(name, re.findall(r" *[^ ]+", value.strip(" ")))


def address_header(name: str, display: str, address: str) -> bytes:
    """One mailbox header (From, To, Reply-To): ``Name <addr>``, the name quoted or encoded as it needs.

    Raises:
        ValidationError: a control character in the name, or an address no server takes (see ``ascii_address``).
    """
    check_header_name(name)
    check_header_value(name, display)
    check_header_value(name, address)
    path = ascii_address(address, path=name)
    # runs of blanks mean nothing in a phrase (RFC 5322 3.2.2), and readers disagree about them
    display = " ".join(filter(None, display.strip().split(" ")))
    if not display:
        return _fold(name, [path])
    return _fold(name, [*_phrase(display, len(name) + 2), f" <{path}>"])


def plain_text_line(name: str) -> str:
    """An expression for the lines that ``text_header`` would write exactly so: the caller need not ask it."""
    return rf"{_short(name)}[!-<>-~](?:[ -<>-~]*[!-<>-~])?\r\n"


def plain_token_line(name: str) -> str:
    """The same for ``token_header``."""
    return rf"(?:{re.escape(name)}: [!-~]{{1,{_LONGEST_WORD}}}|{_short(name)}[!-~]+(?: [!-~]+)*)\r\n"


def plain_address_line(name: str) -> str:
    """The same for ``address_header``."""
    return rf"{_short(name)}(?:{_ATOMS.pattern} <{PLAIN_ADDRESS}>|{PLAIN_ADDRESS})\r\n"


def _short(name: str) -> str:
    """The beginning of a line that needs no folding."""
    return rf"(?=[^\r]{{0,{LINE_AIM}}}\r){re.escape(name)}: "


def message_id(stable_id: str, domain: str) -> str:
    """``<stable_id@domain>``: the same id gives the same Message-ID, so that a receiver can drop a repeat."""
    value = f"<{stable_id}@{domain}>"
    if not re.fullmatch(r"<[A-Za-z0-9._=+-]{1,200}@[A-Za-z0-9.-]{1,253}>", value):
        raise ValidationError.at("Message-ID", "message_id", f"{value[:80]!r}: letters, digits and . _ = + - only")
    return value


def date_value(moment: datetime) -> str:
    """An aware instant as RFC 5322 writes it, in UTC offset form."""
    return format_datetime(moment)


def _needs_words(value: str) -> bool:
    if not value.isascii() or "=?" in value or value != value.strip(" "):
        return True
    return max(map(len, value.split(" "))) > _LONGEST_WORD


def _phrase(display: str, column: int) -> list[str]:
    if _ATOMS.fullmatch(display) and max(map(len, display.split(" "))) <= _LONGEST_ATOM:
        return re.findall(r" *[^ ]+", display)
    if display.isascii() and "=?" not in display and len(display) <= _LONGEST_ATOM:
        escaped = display.replace("\\", "\\\\").replace('"', '\\"')
        return [f'"{escaped}"']
    return _encoded_words(display, column)


def _fold(name: str, words: list[str]) -> bytes:
    """Join words, each with its leading blanks, breaking before a word where the line would pass 78."""
    lines = [f"{name}: "]
    for word in words:
        if len(lines[-1]) + len(word) > LINE_AIM and word[:1] == " ":
            lines.append(word)
        else:
            lines[-1] += word
    return ("\r\n".join(lines) + "\r\n").encode("ascii")


def _encoded_words(value: str, column: int) -> list[str]:
    """RFC 2047 words of at most 75 characters, cut between characters; Q or B, whichever is shorter."""
    raw = value.encode("utf-8")
    plain = sum(byte in _Q_SAFE or byte == 32 for byte in raw)
    use_q = plain + 3 * (len(raw) - plain) <= len(raw) * 4 // 3
    words: list[str] = []
    room = min(_WORD_LIMIT, LINE_AIM - column) - len("=?utf-8?q??=")
    chunk, size = "", 0
    for character in value:
        width = _q_width(character) if use_q else len(character.encode("utf-8"))
        if size + width > (room if use_q else room // 4 * 3) and chunk:
            words.append(_word(chunk, use_q=use_q))
            chunk, size, room = "", 0, _WORD_LIMIT - len("=?utf-8?q??=")
        chunk += character
        size += width
    words.append(_word(chunk, use_q=use_q))
    return [words[0], *(" " + word for word in words[1:])]


def _q_width(character: str) -> int:
    return sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in character.encode("utf-8"))


def _word(text: str, *, use_q: bool) -> str:
    raw = text.encode("utf-8")
    if not use_q:
        return f"=?utf-8?b?{base64.b64encode(raw).decode('ascii')}?="
    return "=?utf-8?q?" + "".join(chr(b) if b in _Q_SAFE else "_" if b == 32 else f"={b:02X}" for b in raw) + "?="
