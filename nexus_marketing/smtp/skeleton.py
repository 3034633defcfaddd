"""Byte skeletons: a message compiled once, filled per recipient by joining bytes.

Escaping, quoted-printable, folding and the MIME frame are paid once per template version; per recipient only
the values are encoded (DESIGN 4.15). The standard library's parser is the oracle in the tests.
"""

import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from urllib.parse import quote

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import picker
from nexus_marketing.smtp.encoding import SOFT_BREAK, encode_qp, unify_newlines
from nexus_marketing.smtp.headers import (
    address_header,
    check_header_name,
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


Values = Mapping[str, str]
_Prepare = Callable[[str], str]

_ONCE = frozenset({"from", "to", "cc", "reply-to", "sender", "subject", "date", "message-id"})
_RESERVED = frozenset({"mime-version", "content-type", "content-transfer-encoding"})
_SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms"})
_SCHEME = re.compile(r"\s*([^/?#:]*):")
_URL_SAFE = ":/?#[]@!$&'()*+,;=%"
_ROOM = 75
# what needs neither escaping nor quoted-printable nor a second line, by context and part; never a leading dot
_PLAIN_HTML = rf"(?!\.)[ !#-%(-;?-~]{{0,{_ROOM}}}"
_PLAIN_TEXT = rf"(?!\.)[ -<>-~]{{0,{_ROOM}}}"
_PLAIN_URL = rf"(?!\.)[A-Za-z0-9._~:/?#@!$()*+,;%-]{{0,{_ROOM}}}"
_PLAIN_LINK = rf"https?://[A-Za-z0-9._~:/?#@!$()*+,;%-]{{0,{_ROOM - len('https://')}}}"
_PLAIN_PART = rf"(?!\.)[A-Za-z0-9._~-]{{0,{_ROOM}}}"
# stands between the personal parts of a message while they are looked through; no value that may be sent holds it
_BETWEEN = "\0"
_CUT = _BETWEEN.encode("ascii")


class _Pattern:
    """Pieces to fill with values, kept as one format string."""

    __slots__ = ("_pick", "format", "names")

    def __init__(self, pieces: Pieces) -> None:
        self.names = [piece.name for piece in pieces if isinstance(piece, Slot)]
        self.format = "".join(["%s" if isinstance(piece, Slot) else piece.replace("%", "%%") for piece in pieces])
        self._pick = picker(self.names)

    def filled(self, values: Values) -> str:
        """The text with the values in their places."""
        return self.format % self._pick(values)


class _TextLine:
    """A text or structured header with gaps."""

    __slots__ = ("_encode", "_name", "_value", "format", "names", "plain")

    def __init__(self, header: Header) -> None:
        self._name = header.name
        self._encode = token_header if header.structured else text_header
        self._value = _Pattern(header.pieces)
        self.names = self._value.names
        self.plain = plain_token_line(header.name) if header.structured else plain_text_line(header.name)
        #: The line as it is for values that need no encoding.
        self.format = _line_format(header.name, self._value.format)

    def encoded(self, values: Values) -> bytes:
        """The line for any values."""
        return self._encode(self._name, self._value.filled(values))


class _AddressLine:
    """A mailbox header with gaps."""

    __slots__ = ("_address", "_display", "_name", "format", "names", "plain")

    def __init__(self, header: AddressHeader) -> None:
        self._name = header.name
        self._display = _Pattern(header.display)
        self._address = _Pattern(header.address)
        self.names = self._display.names + self._address.names
        self.plain = plain_address_line(header.name)
        #: The line as it is around a mailbox that needs no encoding.
        self.format = _line_format(header.name, "%s")

    def mailbox(self, values: Values) -> str:
        """Display name and address."""
        display, address = self._display.filled(values), self._address.filled(values)
        return f"{display} <{address}>" if display else address

    def encoded(self, values: Values) -> bytes:
        """The line for any values."""
        return address_header(self._name, self._display.filled(values), self._address.filled(values))


class _Gap:
    """A gap in a body; ``prepare`` escapes a value for its place."""

    __slots__ = ("_prepare", "name", "names", "plain")
    format = "%s"

    def __init__(self, name: str, plain: str, prepare: Callable[[str], str]) -> None:
        self.name = name
        self.names = [name]
        self.plain = plain
        self._prepare = prepare

    def encoded(self, values: Values) -> bytes:
        """The value escaped and encoded, whatever it is."""
        return encode_qp(self._prepare(values[self.name]), soft_end=True)


_Part = _TextLine | _AddressLine | _Gap
_Body = list[bytes | _Gap]


def _line_format(name: str, value_format: str) -> str:
    return f"{name.replace('%', '%%')}: {value_format}\r\n"


def _check_names(names: Sequence[str]) -> None:
    lowered = [check_header_name(name).lower() for name in names]
    for name in lowered:
        if name in _RESERVED:
            raise ValidationError.at(
                name, "header_reserved", f"the header {name} is written by the MIME frame: leave it out"
            )
        if name in _ONCE and lowered.count(name) > 1:
            raise ValidationError.at(name, "header_repeated", f"the header {name} may stand once: remove the others")


def _compile_header(header: Header | AddressHeader) -> bytes | _Part:
    """The line's bytes if it is the same for everybody, else what encodes it per recipient."""
    line = _TextLine(header) if isinstance(header, Header) else _AddressLine(header)
    return line if line.names else line.encoded({})


class Skeleton:
    """A compiled message. ``slots`` are the names that ``fill`` needs; ``size`` is its static size in bytes.

    Nearly all values need no encoding. So the personal parts are written and looked through in one go, by one format
    and one expression made of what is plain for each of them, and only those that are not are encoded one by one.
    """

    __slots__ = ("_format", "_look_through", "_mailboxes", "_parts", "_pick", "_pieces", "size", "slots")

    def __init__(self, pieces: Sequence[bytes | _Part]) -> None:
        self._parts = [piece for piece in pieces if not isinstance(piece, bytes)]
        self._pieces = _alternating(pieces)
        self._format = _BETWEEN.join([part.format for part in self._parts])
        self._mailboxes: list[tuple[int, Callable[[Values], str]]] = []
        names: list[str] = []
        for part in self._parts:
            if isinstance(part, _AddressLine):
                self._mailboxes.append((len(names) + len(self._mailboxes), part.mailbox))
            else:
                names += part.names
        self._pick = picker(names)
        self._look_through = re.compile(_BETWEEN.join([_plain_or_found(part) for part in self._parts])).fullmatch
        self.slots = frozenset([name for part in self._parts for name in part.names])
        self.size = sum(map(len, self._pieces))

    def fill(self, values: Values) -> bytes:
        """The finished message for one recipient: CRLF, ends with CRLF, no line begins with a dot.

        Raises:
            ValidationError: ``missing_variable`` naming it, or what the header encoder or a URL refuses.
        """
        try:
            texts = [*self._pick(values)]
            for place, mailbox in self._mailboxes:
                texts.insert(place, mailbox(values))
        except KeyError as error:
            name = str(error.args[0])
            raise ValidationError.at(
                name, "missing_variable", f"no value for {name}: give one or a fallback"
            ) from error
        together = self._format % tuple(texts)
        seen = self._look_through(together)
        if seen is None:
            # A value pretends to be many.
            parts = [part.encoded(values) for part in self._parts]
        elif seen.lastindex is None:
            parts = together.encode("ascii").split(_CUT)
        else:
            parts = [
                text.encode("ascii") if strange is None else part.encoded(values)
                for text, strange, part in zip(together.split(_BETWEEN), seen.groups(), self._parts, strict=True)
            ]
        pieces = self._pieces.copy()
        # Cutting nothing leaves one empty part.
        pieces[1::2] = parts[: len(self._parts)]
        return b"".join(pieces)


def _plain_or_found(part: _Part) -> str:
    """Passes over a plain part, captures any other; atomic, so that a strange value costs one look, not many."""
    return f"(?>(?:{part.plain})(?![^{_BETWEEN}])|([^{_BETWEEN}]*))"


def _alternating(pieces: Sequence[bytes | _Part]) -> list[bytes]:
    """Static text at even places, room for one part at each odd place."""
    alternating = [b""]
    for piece in pieces:
        if isinstance(piece, bytes):
            alternating[-1] += piece
        else:
            alternating += [b"", b""]
    return alternating


def compile_message(
    headers: Sequence[Header | AddressHeader], *, text: Pieces | None = None, html: Pieces | None = None
) -> Skeleton:
    """Compile templates to a skeleton: text and HTML as multipart/alternative, or one of them alone.

    Both bodies are quoted-printable UTF-8 and end with a line break (one is added if missing). The MIME headers
    are ours; header names that may stand once only are checked.

    Raises:
        ValidationError: a bad, repeated or reserved header, a hostile static value, or no body at all.
    """
    _check_names([header.name for header in headers])
    parts = [_compile_header(header) for header in headers]
    parts.append(b"MIME-Version: 1.0\r\n")
    bodies = [
        (subtype, _compile_body(pieces, markup=subtype == "html"))
        for subtype, pieces in (("plain", text), ("html", html))
        if pieces is not None
    ]
    if not bodies:
        raise ValidationError.at("body", "body_missing", "a message needs a text or an HTML body")
    parts += _frame(bodies) if len(bodies) > 1 else [_part_head(bodies[0][0]), *bodies[0][1]]
    return Skeleton(parts)


def _frame(bodies: Sequence[tuple[str, _Body]]) -> list[bytes | _Part]:
    boundary = _boundary(bodies)
    parts: list[bytes | _Part] = [b'Content-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary]
    for subtype, body in bodies:
        parts += [b"\r\n--%b\r\n" % boundary, _part_head(subtype), *body]
    return [*parts, b"\r\n--%b--\r\n" % boundary]


def _boundary(bodies: Sequence[tuple[str, _Body]]) -> bytes:
    """Derived from the content, so that the same template compiles to the same bytes.

    Quoted-printable writes ``=`` as ``=3D``: no body line can hold ``=_``, whatever the values are.
    """
    digest = hashlib.sha256()
    for subtype, body in bodies:
        digest.update(subtype.encode("ascii"))
        for part in body:
            digest.update(part if isinstance(part, bytes) else b"\0" + part.name.encode("utf-8"))
    return b"=_" + digest.hexdigest()[:32].encode("ascii")


def _part_head(subtype: str) -> bytes:
    kind = subtype.encode("ascii")
    return b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % kind


def _compile_body(pieces: Pieces, *, markup: bool) -> _Body:
    """Static text encoded, slots as gaps, a soft break on each side of a slot."""
    parts: _Body = []
    before = ""
    for piece in _ending_with_newline(_joined(pieces)):
        if isinstance(piece, Slot):
            parts.append(_gap(piece, before, markup=markup))
            parts.append(SOFT_BREAK)
            before = "x"
            continue
        before = piece
        slot_follows = not piece.endswith("\n")
        encoded = encode_qp(piece, soft_end=slot_follows)
        parts.append(encoded + SOFT_BREAK if slot_follows and encoded else encoded)
    return parts


def _joined(pieces: Pieces) -> list[str | Slot]:
    joined: list[str | Slot] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return [unify_newlines(piece) if isinstance(piece, str) else piece for piece in joined]


def _ending_with_newline(pieces: list[str | Slot]) -> list[str | Slot]:
    if not pieces or isinstance(pieces[-1], Slot):
        return [*pieces, "\n"]
    return pieces if pieces[-1].endswith("\n") else [*pieces[:-1], pieces[-1] + "\n"]


def _gap(slot: Slot, before: str, *, markup: bool) -> _Gap:
    if slot.context is Context.HEADER:
        raise ValidationError.at(slot.name, "slot_context", f"{slot.name} has the context header, but stands in a body")
    starts_url = slot.context is Context.URL and (not before or before[-1] in "\"'= \t\n(<>")
    return _Gap(slot.name, *_ESCAPES[(slot.context, markup, starts_url)])


def _as_is(value: str) -> str:
    return value


def _url(value: str) -> str:
    return quote(value, safe=_URL_SAFE, errors="replace")


def _url_part(value: str) -> str:
    return quote(value, safe="", errors="replace")


def _link(value: str) -> str:
    """A whole URL: as ``_url``, and only schemes that cannot run anything."""
    match = _SCHEME.match(value)
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
