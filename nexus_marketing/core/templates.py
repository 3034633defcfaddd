"""The template language: a whitelisted subset of Jinja's syntax (BEHAVIOUR.md 5.8).

A template is static text and ``{{ name | filter(…) }}``; there are no statements, calls, attributes
of objects or environment to reach, so nothing outside the values handed in can be evaluated. Text is
parsed once, when a version is published; every fault is reported with its line and column.
"""

import html
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from nexus_marketing.core.errors import Problem, TemplateError
from nexus_marketing.core.messages import (
    EMAIL,
    FILTERS,
    PRODUCT_NAMES,
    TEXT,
    Link,
    Message,
    OpenPixel,
    Piece,
    Place,
    Variable,
)

#: The parts that each type of template has.
TEMPLATE_PARTS: Mapping[str, frozenset[str]] = {
    EMAIL: frozenset({"subject", "html", "text"}),
    TEXT: frozenset({"text"}),
}

MAX_PART_CHARACTERS = 200_000
MAX_SLOTS = 500
#: What every recipient has; ``metadata.<key>`` and declared variables come on top.
LEAD_NAMES = frozenset(
    {
        "country",
        "email",
        "external_id",
        "first_name",
        "last_name",
        "locale",
        "name",
        "phone",
        "score",
        "time_zone",
    }
)
_OUTPUT = re.compile(r"\{\{(.*?)\}\}|\{%|\{#|\{\{", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_\-]+)?\Z")
_FILTER = re.compile(r"\|\s*([A-Za-z_]+)\s*(?:\(\s*(?:\"([^\"\\]*)\"|'([^'\\]*)')\s*\))?\s*")
_ANCHOR = re.compile(r"(<a\b[^<>]*?\bhref\s*=\s*)([\"'])(.*?)\2", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE_OPEN = re.compile(r"\b([a-zA-Z-]+)\s*=\s*([\"'])([^\"'<>]*)\Z")
_TAG_OPEN = re.compile(r"<[^<>]*\Z")
_BARE_URL = re.compile(r"https?://[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]")
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_RAW_ELEMENT = re.compile(r"<(/?(?:script|style|title|textarea))\b", re.IGNORECASE)
_FIXED_HOST = re.compile(r"\s*(?:https?://[^/?#]+[/?#]|mailto:)", re.IGNORECASE)
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)


def parse_message(content: Mapping[str, str], declared: Mapping[str, Any] | None = None, kind: str = EMAIL) -> Message:
    """Parse the parts of a template.

    Args:
        content: ``subject`` and at least one of ``html`` and ``text``; of a template of type ``text`` that alone.
        declared: variables by name, each with optional ``fallback`` and ``required``.
        kind: the type of the template, one of ``TEMPLATE_PARTS``.

    Raises:
        TemplateError: every fault of every part, as ``content.html`` with line and column.
    """
    reader = _Reader(frozenset(declared or ()))
    parts = {name: reader.part(name, text) for name, text in content.items() if text}
    for name in sorted(parts.keys() - TEMPLATE_PARTS[kind]):
        reader.fault(f"content.{name}", "not_allowed", f"A template of type {kind} has no {name}: leave it out.")
    if kind == EMAIL and "subject" not in parts:
        reader.fault("content.subject", "required", "A subject is required.")
    if kind == TEXT and "text" not in parts:
        reader.fault("content.text", "required", "A text is required.")
    elif not parts.keys() & {"html", "text"}:
        reader.fault("content", "required", "Give html, text or both.")
    if reader.problems:
        raise TemplateError(problems=reader.problems)
    return Message(parts, tuple(reader.links))


class _Surroundings:
    """What stands before a variable, kept up piece by piece: the last characters and the raw element it is in."""

    _TAIL_CHARACTERS = 2_000

    def __init__(self) -> None:
        self.tail = ""
        self.raw_element = ""

    def read(self, static: str) -> None:
        """Go on over the text up to the next variable."""
        elements = _RAW_ELEMENT.findall(static)
        if elements:
            self.raw_element = "" if elements[-1].startswith("/") else elements[-1]
        self.tail = (self.tail + static)[-self._TAIL_CHARACTERS :]

    def filled(self) -> None:
        """The variable itself counts as one letter."""
        self.tail += "x"


class _Reader:
    """Parses the parts of one template, numbering links over all of them."""

    def __init__(self, declared: frozenset[str]) -> None:
        self.problems: list[Problem] = []
        self.links: list[str] = []
        self._known = LEAD_NAMES | PRODUCT_NAMES | declared
        self._surroundings = _Surroundings()

    def fault(self, path: str, code: str, message: str) -> None:
        """Note a fault and go on."""
        self.problems.append(Problem(path, code, message))

    def part(self, name: str, text: str) -> tuple[Piece, ...]:
        """The pieces of one part."""
        path = f"content.{name}"
        if len(text) > MAX_PART_CHARACTERS:
            self.fault(path, "too_long", f"{len(text)} characters: at most {MAX_PART_CHARACTERS} are allowed.")
            return ()
        if name == "subject" and _CONTROL.search(text):
            self.fault(path, "control_character", "A subject is one line: remove line breaks and control characters.")
        pieces = list(self._pieces(path, name, text))
        if name == "html":
            return tuple(_with_pixel(self._track(pieces, _ANCHOR)))
        return tuple(self._track(pieces, _BARE_URL) if name == "text" else pieces)

    def _pieces(self, path: str, name: str, text: str) -> Iterable[Piece]:
        position, found = 0, 0
        self._surroundings = _Surroundings()
        for match in _OUTPUT.finditer(text):
            static = text[position : match.start()]
            if static:
                yield static
            position, found = match.end(), found + 1
            self._surroundings.read(static)
            if found > MAX_SLOTS:
                self.fault(path, "too_many_variables", f"More than {MAX_SLOTS} variables: use fewer.")
                return
            variable = self._variable(path, name, text, match)
            self._surroundings.filled()
            if variable is not None:
                yield variable
            elif match.group(1) is None:
                return  # looking for the end of each further opening would read the text again and again
        if position < len(text):
            yield text[position:]

    def _variable(self, path: str, name: str, text: str, match: re.Match[str]) -> Variable | None:
        where = _position(text, match.start())
        inside = match.group(1)
        if inside is None:
            shown = match.group(0)
            self.fault(
                path,
                "not_in_language",
                f"{where}: {shown!r} is not part of the template language: use {{{{ name }}}} with filters.",
            )
            return None
        head, _, rest = inside.partition("|")
        variable = head.strip()
        if not self._check_name(path, where, variable):
            return None
        parsed = self._filters(path, where, f"|{rest}" if rest else "")
        if parsed is None:
            return None
        filters, fallback = parsed
        place = self._place(path, where, name, variable)
        return None if place is None else Variable(variable, place, filters, fallback)

    def _check_name(self, path: str, where: str, name: str) -> bool:
        if not _NAME.match(name):
            self.fault(path, "not_a_name", f"{where}: {name[:40]!r} is not a variable name.")
            return False
        if name in self._known or name.startswith("metadata."):
            return True
        near = get_close_matches(name, sorted(self._known), n=1)
        hint = f" Did you mean {near[0]}?" if near else " Declare it in variables, or use metadata.<key>."
        self.fault(path, "unknown_variable", f"{where}: unknown variable {name}.{hint}")
        return False

    def _filters(self, path: str, where: str, text: str) -> tuple[tuple[str, ...], str | None] | None:
        filters: list[str] = []
        fallback: str | None = None
        position = 0
        while position < len(text):
            match = _FILTER.match(text, position)
            if match is None:
                self.fault(path, "bad_filter", f"{where}: {text[position:].strip()[:40]!r} is not a filter.")
                return None
            name, argument = match.group(1), match.group(2) if match.group(2) is not None else match.group(3)
            if name == "default" and argument is not None:
                fallback = argument
            elif name in FILTERS and argument is None:
                filters.append(name)
            else:
                known = ", ".join(sorted([*FILTERS, 'default("…")']))
                self.fault(path, "unknown_filter", f"{where}: {match.group(0).strip()[:40]!r}: filters are {known}.")
                return None
            position = match.end()
        return tuple(filters), fallback

    def _place(self, path: str, where: str, name: str, variable: str) -> Place | None:
        if name != "html":
            return Place.HEADER if name == "subject" else Place.TEXT
        before, element = self._surroundings.tail, self._surroundings.raw_element
        if element:
            self.fault(path, "unsafe_place", f"{where}: a value may not stand inside <{element}>.")
            return None
        if not _TAG_OPEN.search(before):
            return Place.HTML
        attribute = _ATTRIBUTE_OPEN.search(before)
        if attribute is None:
            self.fault(path, "unquoted_attribute", f"{where}: put {variable} inside a quoted attribute value.")
            return None
        attribute_name, value = attribute.group(1).lower(), attribute.group(3)
        if attribute_name.startswith("on") or attribute_name == "style":
            self.fault(path, "unsafe_place", f"{where}: a value may not stand in {attribute_name}.")
            return None
        if attribute_name not in ("href", "src", "background", "action"):
            return Place.HTML
        if _FIXED_HOST.match(html.unescape(value)):
            return Place.URL_PART
        if variable == "unsubscribe_url":
            return Place.URL
        self.fault(path, "unsafe_link", f"{where}: a link must begin with a fixed https:// address before {variable}.")
        return None

    def _track(self, pieces: list[Piece], pattern: re.Pattern[str]) -> Iterable[Piece]:
        for index, piece in enumerate(pieces):
            if isinstance(piece, str):
                yield from self._track_text(piece, pattern, goes_on=index + 1 < len(pieces))
            else:
                yield piece

    def _track_text(self, text: str, pattern: re.Pattern[str], *, goes_on: bool) -> Iterable[Piece]:
        """Replace fixed links; one that runs into a variable stays as written and untracked."""
        position = 0
        for match in pattern.finditer(text):
            start, end = match.span(3) if pattern is _ANCHOR else match.span()
            url = html.unescape(text[start:end]).strip() if pattern is _ANCHOR else text[start:end]
            if not url.lower().startswith(("https://", "http://")) or (goes_on and end == len(text)):
                continue
            yield text[position:start]
            yield Link(self._number(url))
            position = end
        yield text[position:]

    def _number(self, url: str) -> int:
        if url not in self.links:
            self.links.append(url)
        return self.links.index(url)


def _with_pixel(pieces: Iterable[Piece]) -> Iterable[Piece]:
    collected = list(pieces)
    opening, closing = '<img src="', '" width="1" height="1" alt="" style="display:block">'
    for index in range(len(collected) - 1, -1, -1):
        piece = collected[index]
        end = _BODY_END.search(piece) if isinstance(piece, str) else None
        if isinstance(piece, str) and end is not None:
            collected[index : index + 1] = [
                piece[: end.start()] + opening,
                OpenPixel(),
                closing + piece[end.start() :],
            ]
            return collected
    return [*collected, opening, OpenPixel(), closing]


def _position(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - (text.rfind(chr(10), 0, offset) + 1) + 1}"
