r"""The ``matches`` grammar: parsed here and spelled anew for each engine.

No user text reaches a regex engine. The grammar has literals, ``.``, explicit classes,
``^ $ | ( ) * + ?``, ``{m,n}`` to 255 and ASCII ``\d \w \s``: what RE2 and PostgreSQL answer alike.
The expanded size is bounded, because counted repeats multiply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

MAX_PATTERN: Final = 256
MAX_SUBJECT_BYTES: Final = 4_096
MAX_REPEAT: Final = 255
MAX_SIZE: Final = 1_000
MAX_SKIPS: Final = 128  # PostgreSQL compiles n skippable parts in about n^2.5: 400 take half a second
MAX_NESTING: Final = 12
_SETS: Final = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)),
}
_CONTROLS: Final = {"n": 0x0A, "t": 0x09, "r": 0x0D, "f": 0x0C}
_SPECIAL: Final = frozenset(r".^$|()*+?{}[]\-/'\"&~#@!%=:;,<>`_ ")


class PatternError(Exception):
    """The pattern is outside the grammar; ``position`` is the zero-based character."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} (character {position + 1} of the pattern)")
        self.position = position


@dataclass(frozen=True, slots=True)
class Class:
    """A set of characters by ranges of code points; one character is a range of one."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Anchor:
    """The start (``^``) or the end (``$``) of the text."""

    end: bool


@dataclass(frozen=True, slots=True)
class Repeat:
    """At least ``low`` and at most ``high`` times; None is without bound."""

    term: "Pattern"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    terms: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the branches."""

    branches: tuple["Pattern", ...]


Pattern = Class | Anchor | Repeat | Sequence | Choice
ANY: Final = Class(((0x0A, 0x0A),), negated=True)


@lru_cache(maxsize=1_024)
def parse(pattern: str) -> Pattern:
    """Parse a pattern, or refuse it with the position and the remedy."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"more than {MAX_PATTERN} characters", MAX_PATTERN)
    reader = _Reader(pattern)
    tree = reader.choice(0)
    if reader.at < len(pattern):
        reader.refuse("this ) closes nothing; write \\) for the character")
    if _size(tree) > MAX_SIZE:
        raise PatternError(f"its repeats expand to more than {MAX_SIZE} characters", 0)
    if _skips(tree) > MAX_SKIPS:
        raise PatternError(f"its repeats expand to more than {MAX_SKIPS} optional parts", 0)
    return tree


def re2_source(tree: Pattern) -> str:
    """The pattern for RE2."""
    return _emit(tree, lambda point: f"\\x{{{point:x}}}", r"\A", r"\z")


def postgres_source(tree: Pattern) -> str:
    """The pattern for PostgreSQL's advanced regular expressions, classes spelled out."""
    return _emit(tree, lambda point: f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}", r"\A", r"\Z")


@lru_cache(maxsize=1_024)
def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether the pattern occurs in a text of at most 4 KB; longer text never matches."""
    import re2  # noqa: PLC0415 - on first use

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        search = re2.compile(re2_source(parse(pattern)), options).search
    except re2.error:
        raise PatternError("too large for the engine", 0) from None

    def matches(subject: str) -> bool:
        return fits(subject) and search(subject) is not None

    return matches


def fits(subject: str) -> bool:
    """Whether the text has at most 4 KB in UTF-8, the bound under which ``matches`` answers."""
    if len(subject) * 4 <= MAX_SUBJECT_BYTES:
        return True
    return len(subject) <= MAX_SUBJECT_BYTES and len(subject.encode("utf-8", "surrogatepass")) <= MAX_SUBJECT_BYTES


class _Reader:
    """A recursive descent over at most 256 characters and 12 levels."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def refuse(self, message: str, at: int | None = None) -> NoReturn:
        raise PatternError(message, self.at if at is None else at)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def choice(self, depth: int) -> Pattern:
        if depth > MAX_NESTING:
            self.refuse(f"groups nested more than {MAX_NESTING} deep")
        branches = [self.sequence(depth)]
        while self.peek() == "|":
            self.take()
            branches.append(self.sequence(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self, depth: int) -> Pattern:
        terms: list[Pattern] = []
        while self.peek() not in {"", "|", ")"}:
            terms.append(self.quantified(depth))
        return terms[0] if len(terms) == 1 else Sequence(tuple(terms))

    def quantified(self, depth: int) -> Pattern:
        atom = self.atom(depth)
        bounds = self.bounds()
        if bounds is None:
            return atom
        if isinstance(atom, Anchor):
            self.refuse("^ and $ cannot be repeated", self.at - 1)
        if self.peek() in {"*", "+", "?", "{"}:
            self.refuse("one repeat after another; lazy and possessive repeats are not in the grammar")
        return Repeat(atom, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self.peek() in simple:
            return simple[self.take()]
        return self.counted() if self.peek() == "{" else None

    def counted(self) -> tuple[int, int | None]:
        start = self.at
        close = self.text.find("}", start)
        low, comma, high = self.text[start + 1 : close].partition(",") if close > 0 else ("", "", "")
        if not (_is_count(low) and (_is_count(high) or not high)):
            self.refuse("write {m}, {m,} or {m,n}, or \\{ for the character", start)
        self.at = close + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
            self.refuse(f"repeats go from 0 to {MAX_REPEAT}, the smaller first", start)
        return least, most

    def atom(self, depth: int) -> Pattern:
        start = self.at
        character = self.take()
        match character:
            case "(":
                return self.group(depth, start)
            case "[":
                return self.bracket(start)
            case ".":
                return ANY
            case "^" | "$":
                return Anchor(character == "$")
            case "\\":
                ranges, negated = self.escape(start)
                return Class(ranges, negated)
            case "*" | "+" | "?" | "{":
                self.refuse(f"nothing to repeat; write \\{character} for the character", start)
            case "}" | "]":
                self.refuse(f"write \\{character} for the character", start)
        return Class((self.point(character, start),))

    def group(self, depth: int, start: int) -> Pattern:
        if self.peek() == "?":
            self.refuse("groups have no flags, names or look-around; write ( ... )", start)
        inner = self.choice(depth + 1)
        if self.peek() != ")":
            self.refuse("this ( is never closed", start)
        self.take()
        return inner if isinstance(inner, (Choice, Sequence)) else Sequence((inner,))

    def escape(self, start: int) -> tuple[tuple[tuple[int, int], ...], bool]:
        if not self.peek():
            self.refuse("a lone \\ at the end; write \\\\ for the character", start)
        character = self.take()
        if character.lower() in _SETS:
            return _SETS[character.lower()], character.isupper()
        if character in _CONTROLS:
            return ((_CONTROLS[character],) * 2,), False
        if character in _SPECIAL:
            return ((ord(character),) * 2,), False
        self.refuse(f"\\{character} is not in the grammar (\\d \\w \\s \\n \\t and escaped punctuation are)", start)

    def bracket(self, start: int) -> Pattern:
        negated = self.peek() == "^"
        if negated:
            self.take()
        ranges: list[tuple[int, int]] = []
        while self.peek() != "]":
            if not self.peek():
                self.refuse("this [ is never closed", start)
            ranges.extend(self.bracket_item())
        self.take()
        if not ranges:
            self.refuse("an empty class; write \\] for the character", start)
        return Class(tuple(ranges), negated)

    def bracket_item(self) -> tuple[tuple[int, int], ...]:
        start = self.at
        first = self.bracket_character()
        if self.peek() != "-" or self.text[self.at + 1 : self.at + 2] in {"]", ""}:
            return first
        self.take()
        last = self.bracket_character()
        if len(first) > 1 or len(last) > 1 or first[0][0] != first[0][1] or last[0][0] != last[0][1]:
            self.refuse("a range goes from one character to one character", start)
        if first[0][0] > last[0][0]:
            self.refuse("a range goes upwards; swap its ends", start)
        return ((first[0][0], last[0][0]),)

    def bracket_character(self) -> tuple[tuple[int, int], ...]:
        start = self.at
        character = self.take()
        if character == "[":
            self.refuse("write \\[ for the character; there are no classes by name", start)
        if character == "\\":
            ranges, negated = self.escape(start)
            if negated:
                self.refuse("negated sets stand alone, not inside [ ]", start)
            return ranges
        return (self.point(character, start),)

    def point(self, character: str, at: int) -> tuple[int, int]:
        code = ord(character)
        if code == 0 or 0xD800 <= code <= 0xDFFF:
            self.refuse("not a character that text can hold", at)
        return code, code


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _size(tree: Pattern) -> int:
    match tree:
        case Class():
            return 1 + len(tree.ranges) // 4
        case Anchor():
            return 1
        case Repeat():
            return max(_size(tree.term), 1) * max(tree.high if tree.high is not None else tree.low + 1, 1)
        case Sequence():
            return sum(map(_size, tree.terms))
    return sum(map(_size, tree.branches)) + len(tree.branches)


def _skips(tree: Pattern) -> int:
    """How many parts of the expanded pattern can be passed over in one place or another."""
    match tree:
        case Class() | Anchor():
            return 0
        case Repeat():
            copies = max(tree.high if tree.high is not None else tree.low + 1, 1)
            inner = _skips(tree.term) + _is_nullable(tree.term)
            return inner * copies + (tree.low == 0)
        case Sequence():
            return sum(map(_skips, tree.terms))
    return sum(_skips(branch) + _is_nullable(branch) for branch in tree.branches)


def _is_nullable(tree: Pattern) -> bool:
    match tree:
        case Class():
            return False
        case Repeat():
            return tree.low == 0 or _is_nullable(tree.term)
        case Sequence():
            return all(map(_is_nullable, tree.terms))
        case Choice():
            return any(map(_is_nullable, tree.branches))
    return True


def _emit(tree: Pattern, point: Callable[[int], str], start: str, end: str) -> str:
    match tree:
        case Class():
            return _emit_class(tree, point)
        case Anchor():
            return end if tree.end else start
        case Repeat():
            high = "" if tree.high is None else str(tree.high)
            return f"(?:{_emit(tree.term, point, start, end)}){{{tree.low},{high}}}"
        case Sequence():
            inner = "".join(_emit(term, point, start, end) for term in tree.terms)
            return f"(?:{inner})"
    return "(?:" + "|".join(_emit(branch, point, start, end) for branch in tree.branches) + ")"


def _emit_class(tree: Class, point: Callable[[int], str]) -> str:
    def spelled(code: int) -> str:
        character = chr(code)
        return character if character.isascii() and character.isalnum() else point(code)

    if not tree.negated and len(tree.ranges) == 1 and tree.ranges[0][0] == tree.ranges[0][1]:
        return spelled(tree.ranges[0][0])
    inner = "".join(spelled(low) if low == high else f"{spelled(low)}-{spelled(high)}" for low, high in tree.ranges)
    return f"[{'^' if tree.negated else ''}{inner}]"
