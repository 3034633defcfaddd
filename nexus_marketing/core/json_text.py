"""JSON with gaps: a text template as the body of a webhook, whose values can never change its structure.

Inside a string a value is escaped; anywhere else it becomes a value of its own: a number, ``true``, ``false`` or ``null``
where it reads as one, a quoted string otherwise, and ``null`` where it is empty.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.messages import Piece, value_key

_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?|true|false|null").fullmatch
#: What stands for any value when a template is tried: each of them has to fit.
_SAMPLES: Final = ("7", "x")


@dataclass(frozen=True, slots=True)
class _Gap:
    key: str
    is_quoted: bool

    def filled(self, value: str) -> str:
        if not self.is_quoted and not value.strip():
            return "null"
        if not self.is_quoted and _SCALAR(value):
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return quoted[1:-1] if self.is_quoted else quoted


@dataclass(frozen=True, slots=True)
class JsonText:
    """A text whose gaps are known to be inside or outside a string."""

    pieces: tuple[str | _Gap, ...]

    def fill(self, values: Mapping[str, str]) -> str:
        """The document of one recipient."""
        return "".join(each if isinstance(each, str) else each.filled(values[each.key]) for each in self.pieces)


def json_text(pieces: Sequence[Piece]) -> JsonText:
    r"""Read a template's pieces as JSON.

    >>> from nexus_marketing.core.messages import TEXT
    >>> from nexus_marketing.core.templates import parse_message
    >>> text = '{"name": "{{ name }}", "score": {{ score }}}'
    >>> found = json_text(parse_message({"text": text}, kind=TEXT).parts["text"])
    >>> found.fill({"var:name": 'Jo "X"', "var:score": "3.5"})
    '{"name": "Jo \\"X\\"", "score": 3.5}'

    Raises:
        ValidationError: whatever is filled in, it is no JSON; the message says where.
    """
    found = JsonText(tuple(_read(pieces)))
    keys = {each.key for each in found.pieces if isinstance(each, _Gap)}
    for sample in _SAMPLES:
        try:
            json.loads(found.fill(dict.fromkeys(keys, sample)), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            said = f"The text is not JSON once its gaps are filled: {error}. Put a gap inside quotes, or where a value stands."
            raise ValidationError.at("content.text", "not_json", said) from error
    return found


def _read(pieces: Sequence[Piece]) -> list[str | _Gap]:
    found: list[str | _Gap] = []
    is_quoted = is_escaped = False
    for piece in pieces:
        if not isinstance(piece, str):
            found.append(_Gap(value_key(piece), is_quoted))
            continue
        for character in piece:
            if is_escaped:
                is_escaped = False
            elif character == '"':
                is_quoted = not is_quoted
            else:
                is_escaped = is_quoted and character == "\\"
        found.append(piece)
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
