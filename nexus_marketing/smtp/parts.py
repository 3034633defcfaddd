"""The personal parts of a message: how each is written, and what of it needs to be encoded.

Nearly all values need no encoding. So a part looks through what it writes for many recipients in one go, and only what is
not plain is encoded, one by one.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from urllib.parse import quote

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.encoding import encode_qp
from nexus_marketing.smtp.headers import (
    address_header,
    plain_address_line,
    plain_text_line,
    plain_token_line,
    text_header,
    token_header,
)


class Context(StrEnum):
    """Where a value lands, which decides how it is escaped.

    ``html``: element text or a quoted attribute. ``text``: not escaped. ``url``: a whole URL or the rest of one,
    reserved characters stay. ``url_part``: one component, everything but unreserved characters is percent-encoded.
    ``raw``: markup that was escaped elsewhere. ``header``: in header templates, whatever the header needs.
    """

    HTML = "html"
    TEXT = "text"
    URL = "url"
    URL_PART = "url_part"
    RAW = "raw"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Slot:
    """A gap in a template: the value's name and where it lands."""

    name: str
    context: Context


Pieces = Sequence[str | Slot]


@dataclass(frozen=True, slots=True)
class Header:
    """One header line. ``structured``: ASCII tokens folded at spaces only (Message-ID, List-Unsubscribe, Date)."""

    name: str
    pieces: Pieces
    structured: bool = False


@dataclass(frozen=True, slots=True)
class AddressHeader:
    """One mailbox line (From, To, Reply-To); display name and address apart, so that neither can forge the other."""

    name: str
    display: Pieces
    address: Pieces


Columns = Sequence[Sequence[str]]
Matches = Callable[[str], object]
_Prepare = Callable[[str], str]

_SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms"})
#: Of a link without blanks before it: what those could be told from in many ways would be tried in all of them.
_SCHEME = re.compile(r"([^/?#:]*+):")
_URL_SAFE = ":/?#[]@!$&'()*+,;=%"
_ROOM = 75
# what needs neither escaping nor quoted-printable nor a second line, by context and part; never a leading dot
_PLAIN_HTML = rf"(?!\.)[ !#-%(-;?-~]{{0,{_ROOM}}}"
_PLAIN_TEXT = rf"(?!\.)[ -<>-~]{{0,{_ROOM}}}"
_PLAIN_URL = rf"(?!\.)[A-Za-z0-9._~:/?#@!$()*+,;%-]{{0,{_ROOM}}}"
_PLAIN_LINK = rf"https?://[A-Za-z0-9._~:/?#@!$()*+,;%-]{{0,{_ROOM - len('https://')}}}"
_PLAIN_PART = rf"(?!\.)[A-Za-z0-9._~-]{{0,{_ROOM}}}"
#: Stands behind each text while many are looked through; no plain one holds it.
_END = "\0"
_CUT = _END.encode("ascii")


class _Pattern:
    """Pieces to fill with values, kept as one format string."""

    __slots__ = ("format", "names")

    def __init__(self, pieces: Pieces) -> None:
        self.names = [piece.name for piece in pieces if isinstance(piece, Slot)]
        self.format = "".join(["%s" if isinstance(piece, Slot) else piece.replace("%", "%%") for piece in pieces])


class TextLine:
    """A text or structured header with gaps."""

    __slots__ = ("_encode", "_line", "_name", "_value", "names", "plain")

    def __init__(self, header: Header) -> None:
        value = _Pattern(header.pieces)
        self._name = header.name
        self._encode = token_header if header.structured else text_header
        self._value = value.format
        self._line = _line_format(header.name, value.format)
        self.names = value.names
        self.plain = plain_token_line(header.name) if header.structured else plain_text_line(header.name)

    def written(self, columns: Columns) -> Sequence[str]:
        """The lines of many, as they are for values that need no encoding."""
        return [self._line % own for own in zip(*columns, strict=True)]

    def encoded(self, own: tuple[str, ...]) -> bytes:
        """The line for any values."""
        return self._encode(self._name, self._value % own)


class AddressLine:
    """A mailbox header with gaps."""

    __slots__ = ("_address", "_display", "_name", "_of_display", "_start", "names", "plain")

    def __init__(self, header: AddressHeader) -> None:
        display, address = _Pattern(header.display), _Pattern(header.address)
        self._name = header.name
        self._start = f"{header.name}: "
        self._display, self._address = display.format, address.format
        self._of_display = len(display.names)
        self.names = display.names + address.names
        self.plain = plain_address_line(header.name)

    def written(self, columns: Columns) -> Sequence[str]:
        """The lines of many, as they are around mailboxes that need no encoding."""
        start = self._start
        mailboxes = map(self._mailbox, zip(*columns, strict=True))
        return [
            f"{start}{display} <{address}>\r\n" if display else f"{start}{address}\r\n"
            for display, address in mailboxes
        ]

    def encoded(self, own: tuple[str, ...]) -> bytes:
        """The line for any values."""
        return address_header(self._name, *self._mailbox(own))

    def _mailbox(self, own: tuple[str, ...]) -> tuple[str, str]:
        """Display name and address."""
        return self._display % own[: self._of_display], self._address % own[self._of_display :]


class Gap:
    """A gap in a body; ``prepare`` escapes a value for its place."""

    __slots__ = ("_prepare", "name", "names", "plain")

    def __init__(self, name: str, plain: str, prepare: _Prepare) -> None:
        self.name = name
        self.names = [name]
        self.plain = plain
        self._prepare = prepare

    def written(self, columns: Columns) -> Sequence[str]:
        """The values of many, as they are where they need neither escaping nor encoding."""
        return columns[0]

    def encoded(self, own: tuple[str, ...]) -> bytes:
        """The value escaped and encoded, whatever it is."""
        return encode_qp(self._prepare(own[0]), soft_end=True)


Part = TextLine | AddressLine | Gap


def encode_column(part: Part, columns: Columns, refused: dict[int, ValidationError]) -> Sequence[bytes]:
    """What a part becomes for many recipients.

    Args:
        columns: the values of each of its names, one for each recipient; somebody is there.
        refused: gets, by place, what is wrong for whom, unless something is already.
    """
    texts = part.written(columns)
    are_plain, is_plain = _looks(part.plain)
    together = _END.join([*texts, ""])
    if are_plain(together):
        *found, _behind = together.encode("ascii").split(_CUT)
        if len(found) == len(texts):  # else a value pretends to be many
            return found
    found = []
    for place, (text, own) in enumerate(zip(texts, zip(*columns, strict=True), strict=True)):
        encoded = b""
        try:
            encoded = text.encode("ascii") if is_plain(text) else part.encoded(own)
        except ValidationError as error:
            refused.setdefault(place, error)
        found.append(encoded)
    return found


@cache
def _looks(plain: str) -> tuple[Matches, Matches]:
    """Whether all of many texts are plain, each with an end behind it; whether one is.

    Possessive: a strange value costs one look at what is before it, not many.
    """
    return re.compile(f"(?:(?:{plain}){_END})*+").fullmatch, re.compile(plain).fullmatch


def _line_format(name: str, value_format: str) -> str:
    return f"{name.replace('%', '%%')}: {value_format}\r\n"


def body_gap(slot: Slot, before: str, *, markup: bool) -> Gap:
    """The gap of a body behind some text.

    Raises:
        ValidationError: ``slot_context``, a header's slot stands in a body.
    """
    if slot.context is Context.HEADER:
        raise ValidationError.at(slot.name, "slot_context", f"{slot.name} has the context header, but stands in a body")
    starts_url = slot.context is Context.URL and (not before or before[-1] in "\"'= \t\n(<>")
    return Gap(slot.name, *_ESCAPES[(slot.context, markup, starts_url)])


def _as_is(value: str) -> str:
    return value


def _url(value: str) -> str:
    return quote(value, safe=_URL_SAFE, errors="replace")


def _url_part(value: str) -> str:
    return quote(value, safe="", errors="replace")


def _link(value: str) -> str:
    """A whole URL: as ``_url``, and only schemes that cannot run anything."""
    match = _SCHEME.match(value.lstrip())
    if match and match[1].lower() not in _SCHEMES:
        raise ValidationError.at(
            "url", "url_scheme", f"{value[:60]!r}: only {', '.join(sorted(_SCHEMES))} links are sent"
        )
    return _url(value)


def _escaped(prepare: Callable[[str], str], value: str) -> str:
    return html.escape(prepare(value))


def _escapes() -> Mapping[tuple[Context, bool, bool], tuple[str, _Prepare]]:
    """(context, in markup, at the start of a URL) → what is plain there, and how anything else is escaped."""
    table: dict[tuple[Context, bool, bool], tuple[str, _Prepare]] = {
        (Context.HTML, True, False): (_PLAIN_HTML, html.escape),
        (Context.HTML, False, False): (_PLAIN_TEXT, _as_is),
    }
    for markup in (False, True):
        table[(Context.TEXT, markup, False)] = table[(Context.HTML, markup, False)]
        table[(Context.RAW, markup, False)] = (_PLAIN_TEXT, _as_is)
        for context, starts, plain, prepare in (
            (Context.URL, False, _PLAIN_URL, _url),
            (Context.URL, True, _PLAIN_LINK, _link),
            (Context.URL_PART, False, _PLAIN_PART, _url_part),
        ):
            table[(context, markup, starts)] = (plain, partial(_escaped, prepare) if markup else prepare)
    return table


_ESCAPES = _escapes()
