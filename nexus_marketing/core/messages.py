"""A message as its template was read: text with gaps, what fills them, and where our own URLs go in it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Types of templates and the parts that each has.
EMAIL = "email"
TEXT = "text"
#: What the product fills in itself.
PRODUCT_NAMES = frozenset({"unsubscribe_url", "postal_address", "sender_name"})


class Place(StrEnum):
    """Where a value lands, which decides how it is escaped."""

    TEXT = "text"
    HTML = "html"
    URL_PART = "url_part"
    URL = "url"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Variable:
    """A gap: ``path`` as written, what to do when the value is missing, and how to transform it."""

    path: str
    place: Place
    filters: tuple[str, ...] = ()
    fallback: str | None = None

    @property
    def slot(self) -> str:
        """A name that is equal for gaps that get equal values."""
        marks = "".join(f"|{name}" for name in self.filters)
        return f"{self.path}{marks}" if self.fallback is None else f"{self.path}{marks}?{self.fallback}"


@dataclass(frozen=True, slots=True)
class Link:
    """A tracked link: ``number`` is its place in the version's list of destinations."""

    number: int


@dataclass(frozen=True, slots=True)
class OpenPixel:
    """Where the open pixel's URL goes."""


Piece = str | Variable | Link | OpenPixel


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed template: pieces per part (``subject``, ``text``, ``html``) and the links it tracks."""

    parts: Mapping[str, tuple[Piece, ...]]
    links: tuple[str, ...]

    @property
    def variables(self) -> frozenset[Variable]:
        """Every gap of every part."""
        return frozenset(piece for part in self.parts.values() for piece in part if isinstance(piece, Variable))

    @property
    def names(self) -> frozenset[str]:
        """The names it needs."""
        return frozenset(variable.path for variable in self.variables)


FILTERS: Mapping[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "capitalize": str.capitalize,
    "title": str.title,
    "trim": str.strip,
}


def resolve(variable: Variable, value: Any, declared: Mapping[str, Any]) -> str | None:
    """The text a variable becomes; ``None`` when it is missing and required (BEHAVIOUR.md 5.8).

    Null and blank after trimming both count as missing; then the inline fallback, then the declared
    one, then the empty text.
    """
    text = value if isinstance(value, str) else _as_text(value)
    if not text.strip():
        if variable.fallback is not None:
            return variable.fallback
        about = declared.get(variable.path) or {}
        if about.get("fallback") is not None:
            return str(about["fallback"])
        return None if about.get("required") else ""
    for name in variable.filters:
        text = FILTERS[name](text)
    return text


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def value_key(piece: Variable | Link | OpenPixel) -> str:
    """The key under which a submission's ``values`` hold what belongs into a gap."""
    if isinstance(piece, Link):
        return f"link:{piece.number}"
    # Prefixed: a tenant's variable called "to" or "open" must not meet the product's own values.
    return "open" if isinstance(piece, OpenPixel) else f"var:{piece.slot}"


def plain_text(pieces: Iterable[Piece], values: Mapping[str, str], escape: Callable[[str], str] | None = None) -> str:
    """A part with its gaps filled by a submission's ``values``.

    Args:
        pieces: of the part.
        values: as they are, for text that is nobody's markup.
        escape: for text that is: what a person's values go through, so that they mean nothing in it. Our URLs do not.
    """
    return "".join(piece if isinstance(piece, str) else _filled(piece, values, escape) for piece in pieces)


def _filled(piece: Variable | Link | OpenPixel, values: Mapping[str, str], escape: Callable[[str], str] | None) -> str:
    value = values[value_key(piece)]
    is_text = isinstance(piece, Variable) and piece.path != "unsubscribe_url"
    return escape(value) if escape is not None and is_text else value


def untracked(message: Message) -> Message:
    """The message with its links as they were written: for text that everybody reads, so that a click says nothing of anybody."""
    parts = {
        name: tuple(message.links[piece.number] if isinstance(piece, Link) else piece for piece in part)
        for name, part in message.parts.items()
    }
    return Message(parts, ())


def with_url_prefixes(message: Message, *, click: str, pixel: str, unsubscribe: str) -> Message:
    """The message with the fixed part of our own URLs written out, so that only the token is filled in."""

    def expanded(piece: Piece) -> tuple[Piece, ...]:
        if isinstance(piece, Link):
            return click, piece
        if isinstance(piece, OpenPixel):
            return pixel, piece
        if isinstance(piece, Variable) and piece.path == "unsubscribe_url":
            return unsubscribe, Variable(piece.path, piece.place)
        return (piece,)

    parts = {name: tuple(new for piece in part for new in expanded(piece)) for name, part in message.parts.items()}
    return Message(parts, message.links)
