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
from nexus_marketing.smtp.encoding import SOFT_BREAK, encode_qp, unify_newlines, wrap_plain
from nexus_marketing.smtp.headers import address_header, check_header_name, text_header, token_header


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
_Encode = Callable[[str], bytes]

_ONCE = frozenset({"from", "to", "cc", "reply-to", "sender", "subject", "date", "message-id"})
_RESERVED = frozenset({"mime-version", "content-type", "content-transfer-encoding"})
_SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms"})
_SCHEME = re.compile(r"\s*([^/?#:]*):")
_URL_SAFE = ":/?#[]@!$&'()*+,;=%"
_ROOM = 75
# what needs neither escaping nor quoted-printable, by context and part; never a leading dot
_PLAIN_HTML = re.compile(r"(?!\.)[ !#-%(-;?-~]*").fullmatch
_PLAIN_TEXT = re.compile(r"(?!\.)[ -<>-~]*").fullmatch
_PLAIN_URL = re.compile(r"(?!\.)[A-Za-z0-9._~:/?#@!$()*+,;%-]*").fullmatch
_PLAIN_LINK = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$()*+,;%-]*").fullmatch
_PLAIN_PART = re.compile(r"(?!\.)[A-Za-z0-9._~-]*").fullmatch


class _TextLine:
    """A text or structured header with gaps, encoded per recipient."""

    __slots__ = ("_encode", "_name", "_pieces", "names")

    def __init__(self, header: Header) -> None:
        self._name = header.name
        self._encode = token_header if header.structured else text_header
        self._pieces = _spread(header.pieces)
        self.names = _slot_names(header.pieces)

    def __call__(self, values: Values) -> bytes:
        return self._encode(self._name, _filled(self._pieces, values))


class _AddressLine:
    """A mailbox header with gaps, encoded per recipient."""

    __slots__ = ("_address", "_display", "_name", "names")

    def __init__(self, header: AddressHeader) -> None:
        self._name = header.name
        self._display = _spread(header.display)
        self._address = _spread(header.address)
        self.names = _slot_names(header.display) + _slot_names(header.address)

    def __call__(self, values: Values) -> bytes:
        return address_header(self._name, _filled(self._display, values), _filled(self._address, values))


_Part = bytes | _TextLine | _AddressLine | tuple[str, _Encode]


def _spread(pieces: Pieces) -> tuple[tuple[str | None, str], ...]:
    """(slot name or None, static text) pairs."""
    return tuple((piece.name, "") if isinstance(piece, Slot) else (None, piece) for piece in pieces)


def _slot_names(pieces: Pieces) -> list[str]:
    return [piece.name for piece in pieces if isinstance(piece, Slot)]


def _filled(pieces: tuple[tuple[str | None, str], ...], values: Values) -> str:
    return "".join([static if name is None else values[name] for name, static in pieces])


def _check_names(names: Sequence[str]) -> None:
    lowered = [check_header_name(name).lower() for name in names]
    for name in lowered:
        if name in _RESERVED:
            raise ValidationError.at(
                name, "header_reserved", f"the header {name} is written by the MIME frame: leave it out"
            )
        if name in _ONCE and lowered.count(name) > 1:
            raise ValidationError.at(name, "header_repeated", f"the header {name} may stand once: remove the others")


def _compile_header(header: Header | AddressHeader) -> _Part:
    """The line's bytes if it is the same for everybody, else something that encodes it per recipient."""
    line = _TextLine(header) if isinstance(header, Header) else _AddressLine(header)
    return line if line.names else line({})


def _merge(parts: Sequence[_Part]) -> list[_Part]:
    merged: list[_Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        elif part != b"":
            merged.append(part)
    return merged


class Skeleton:
    """A compiled message. ``slots`` are the names that ``fill`` needs; ``size`` is its static size in bytes."""

    __slots__ = ("_gaps", "_lines", "_parts", "_shared", "size", "slots")

    def __init__(self, parts: Sequence[_Part]) -> None:
        gaps: dict[tuple[str, _Encode], list[int]] = {}
        self._parts = [part if isinstance(part, bytes) else b"" for part in parts]
        self._lines = [(n, part) for n, part in enumerate(parts) if isinstance(part, _TextLine | _AddressLine)]
        for position, part in enumerate(parts):
            if isinstance(part, tuple):
                gaps.setdefault(part, []).append(position)
        self._gaps = [(at[0], name, encode) for (name, encode), at in gaps.items() if len(at) == 1]
        self._shared = [(tuple(at), name, encode) for (name, encode), at in gaps.items() if len(at) > 1]
        self.slots = frozenset(name for name, _ in gaps) | {n for _, line in self._lines for n in line.names}
        self.size = sum(map(len, self._parts))

    def fill(self, values: Values) -> bytes:
        """The finished message for one recipient: CRLF, ends with CRLF, no line begins with a dot.

        Raises:
            ValidationError: ``missing_variable`` naming it, or what the header encoder or a URL refuses.
        """
        parts = self._parts.copy()
        try:
            for position, name, encode in self._gaps:
                parts[position] = encode(values[name])
            for positions, name, encode in self._shared:
                encoded = encode(values[name])
                for position in positions:
                    parts[position] = encoded
            for position, line in self._lines:
                parts[position] = line(values)
        except KeyError as error:
            name = str(error.args[0])
            raise ValidationError.at(
                name, "missing_variable", f"no value for {name}: give one or a fallback"
            ) from error
        return b"".join(parts)


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
    parts: list[_Part] = [_compile_header(header) for header in headers]
    parts.append(b"MIME-Version: 1.0\r\n")
    bodies = [
        (subtype, _compile_body(pieces, markup=subtype == "html"))
        for subtype, pieces in (("plain", text), ("html", html))
        if pieces is not None
    ]
    if not bodies:
        raise ValidationError.at("body", "body_missing", "a message needs a text or an HTML body")
    parts += _frame(bodies) if len(bodies) > 1 else [_part_head(bodies[0][0]), *bodies[0][1]]
    return Skeleton(_merge(parts))


def _frame(bodies: Sequence[tuple[str, list[bytes | tuple[str, _Encode]]]]) -> list[_Part]:
    boundary = _boundary(bodies)
    parts: list[_Part] = [b'Content-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary]
    for subtype, body in bodies:
        parts += [b"\r\n--%b\r\n" % boundary, _part_head(subtype), *body]
    return [*parts, b"\r\n--%b--\r\n" % boundary]


def _boundary(bodies: Sequence[tuple[str, list[bytes | tuple[str, _Encode]]]]) -> bytes:
    """Derived from the content, so that the same template compiles to the same bytes.

    Quoted-printable writes ``=`` as ``=3D``: no body line can hold ``=_``, whatever the values are.
    """
    digest = hashlib.sha256()
    for subtype, body in bodies:
        digest.update(subtype.encode("ascii"))
        for part in body:
            digest.update(part if isinstance(part, bytes) else b"\0" + part[0].encode("utf-8"))
    return b"=_" + digest.hexdigest()[:32].encode("ascii")


def _part_head(subtype: str) -> bytes:
    kind = subtype.encode("ascii")
    return b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % kind


def _compile_body(pieces: Pieces, *, markup: bool) -> list[bytes | tuple[str, _Encode]]:
    """Static text encoded, slots as (name, encoder), a soft break on each side of a slot."""
    parts: list[bytes | tuple[str, _Encode]] = []
    before = ""
    for piece in _ending_with_newline(_joined(pieces)):
        if isinstance(piece, Slot):
            parts.append((piece.name, _encoder(piece, before, markup=markup)))
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


def _encoder(slot: Slot, before: str, *, markup: bool) -> _Encode:
    if slot.context is Context.HEADER:
        raise ValidationError.at(slot.name, "slot_context", f"{slot.name} has the context header, but stands in a body")
    if slot.context is Context.URL:
        starts = not before or before[-1] in "\"'= \t\n(<>"
        return _ENCODERS[(Context.URL, markup, starts)]
    return _ENCODERS[(slot.context, markup, False)]


def _plain_or(plain: Callable[[str], object], prepare: Callable[[str], str], value: str) -> bytes:
    """Encode one value: as it is where nothing needs escaping (the usual case), else the long way."""
    if plain(value):
        raw = value.encode("ascii")
        return raw if len(raw) <= _ROOM else wrap_plain(raw)
    return encode_qp(prepare(value), soft_end=True)


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


def _encoders() -> Mapping[tuple[Context, bool, bool], _Encode]:
    """(context, in markup, at the start of a URL) → encoder; one object each, so that equal gaps share one encoding."""
    table: dict[tuple[Context, bool, bool], _Encode] = {
        (Context.HTML, True, False): partial(_plain_or, _PLAIN_HTML, html.escape),
        (Context.HTML, False, False): partial(_plain_or, _PLAIN_TEXT, _as_is),
    }
    for markup in (False, True):
        table[(Context.TEXT, markup, False)] = table[(Context.HTML, markup, False)]
        table[(Context.RAW, markup, False)] = partial(_plain_or, _PLAIN_TEXT, _as_is)
        for context, starts, plain, prepare in (
            (Context.URL, False, _PLAIN_URL, _url),
            (Context.URL, True, _PLAIN_LINK, _link),
            (Context.URL_PART, False, _PLAIN_PART, _url_part),
        ):
            final = partial(_escaped, prepare) if markup else prepare
            table[(context, markup, starts)] = partial(_plain_or, plain, final)
    return table


_ENCODERS = _encoders()
