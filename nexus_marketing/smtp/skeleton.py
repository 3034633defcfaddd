"""Byte skeletons: a message compiled once, filled per recipient by joining bytes.

Escaping, quoted-printable, folding and the MIME frame are paid once per template version; per recipient only
the values are encoded (DESIGN 4.15). The standard library's parser is the oracle in the tests.
"""

import hashlib
from collections.abc import Mapping, Sequence

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import picker
from nexus_marketing.smtp.encoding import SOFT_BREAK, encode_qp, unify_newlines
from nexus_marketing.smtp.headers import check_header_name
from nexus_marketing.smtp.parts import (
    AddressHeader,
    AddressLine,
    Gap,
    Header,
    Part,
    Pieces,
    Slot,
    TextLine,
    body_gap,
    encode_column,
)

Values = Mapping[str, str]
#: What is one recipient's of a message, part by part.
Personal = tuple[bytes, ...]

_ONCE = frozenset({"from", "to", "cc", "reply-to", "sender", "subject", "date", "message-id"})
_RESERVED = frozenset({"mime-version", "content-type", "content-transfer-encoding"})
_Body = list[bytes | Gap]


def _check_names(names: Sequence[str]) -> None:
    lowered = [check_header_name(name).lower() for name in names]
    for name in lowered:
        if name in _RESERVED:
            raise ValidationError.at(
                name, "header_reserved", f"the header {name} is written by the MIME frame: leave it out"
            )
        if name in _ONCE and lowered.count(name) > 1:
            raise ValidationError.at(name, "header_repeated", f"the header {name} may stand once: remove the others")


def _compile_header(header: Header | AddressHeader) -> bytes | Part:
    """The line's bytes if it is the same for everybody, else what encodes it per recipient."""
    line = TextLine(header) if isinstance(header, Header) else AddressLine(header)
    return line if line.names else line.encoded(())


class Skeleton:
    """A compiled message. ``slots`` are the names that it needs; ``size`` is its static size in bytes.

    Values are looked at name by name, for many recipients at once: a question to all of them costs little more than
    one to a single one.
    """

    __slots__ = ("_names", "_parts", "_pieces", "size", "slots")

    def __init__(self, pieces: Sequence[bytes | Part]) -> None:
        parts = [piece for piece in pieces if not isinstance(piece, bytes)]
        self._names = list(dict.fromkeys(name for part in parts for name in part.names))
        #: Each part with the places of its values among the names.
        self._parts = [(part, [self._names.index(name) for name in part.names]) for part in parts]
        self._pieces = _alternating(pieces)
        self.slots = frozenset(self._names)
        self.size = sum(map(len, self._pieces))

    def fill(self, values: Values) -> bytes:
        """The finished message for one recipient: CRLF, ends with CRLF, no line begins with a dot.

        Raises:
            ValidationError: as of :meth:`personal`.
        """
        (found,) = self.personal([values])
        if isinstance(found, ValidationError):
            raise found
        return self.joined(found)

    def personal(
        self, rows: Sequence[Values], beside: Mapping[str, Sequence[str]] = {}
    ) -> list[Personal | ValidationError]:
        """What is personal of the messages of many, to be :meth:`joined`; for whom there can be none, why.

        Args:
            rows: the values of each.
            beside: values by name, one for each; they go before those of the rows.

        Returns:
            For whom there is no message, ``missing_variable`` naming it, or what the header encoder or a URL refuses.
        """
        if not rows:
            return []
        try:
            columns = self._columns(rows, beside)
        except KeyError as error:
            if len(rows) == 1:
                name = str(error.args[0])
                missing = f"no value for {name}: give one or a fallback"
                return [ValidationError.at(name, "missing_variable", missing)]
            return [
                found
                for place, row in enumerate(rows)
                for found in self.personal([row], {name: [column[place]] for name, column in beside.items()})
            ]
        refused: dict[int, ValidationError] = {}
        encoded = [encode_column(part, [columns[place] for place in places], refused) for part, places in self._parts]
        found: list[Personal | ValidationError] = [*zip(*encoded, strict=True)] if encoded else [()] * len(rows)
        for place, why in refused.items():
            found[place] = why
        return found

    def joined(self, personal: Personal) -> bytes:
        """The finished message for one recipient, see :meth:`fill`."""
        pieces = self._pieces.copy()
        pieces[1::2] = personal
        return b"".join(pieces)

    def _columns(self, rows: Sequence[Values], beside: Mapping[str, Sequence[str]]) -> list[Sequence[str]]:
        """The values of each name; a name that a row lacks is a KeyError."""
        found = dict(beside)
        names = [name for name in self._names if name not in beside]
        if names:
            found |= zip(names, zip(*map(picker(names), rows), strict=True), strict=True)
        return [found[name] for name in self._names]


def _alternating(pieces: Sequence[bytes | Part]) -> list[bytes]:
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


def _frame(bodies: Sequence[tuple[str, _Body]]) -> list[bytes | Part]:
    boundary = _boundary(bodies)
    parts: list[bytes | Part] = [b'Content-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary]
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
            parts.append(body_gap(piece, before, markup=markup))
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
