"""Bodies of webhooks: JSON whose texts have gaps that name what is known of the lead.

A text that is a gap and nothing else becomes the value itself, of whatever type; inside a longer text a value is written as
text. What is filled in never changes the structure.

>>> filled({"mail": "{{ email }}", "seats": "{{ metadata.seats }}", "hello": "Dear {{ first_name }}"}, \
...        {"email": "a@x.example", "metadata": {"seats": 3}})
{'mail': 'a@x.example', 'seats': 3, 'hello': 'Dear '}
"""

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from nexus_marketing.core.journeys.reading import Reading
from nexus_marketing.core.values import canonical_datetime, join

_GAP: Final = re.compile(r"\{\{\s*([A-Za-z][A-Za-z0-9_.]{0,199})\s*\}\}")
#: Bytes of a body before its gaps are filled.
_LONGEST: Final = 20_000


def read_body(reading: Reading, body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A body whose gaps say where a record keeps the field that they name."""
    if len(json.dumps(body)) > _LONGEST:
        reading.fault(path, "too_long", f"The body has more than {_LONGEST} bytes: send less.")
    return {name: _read(reading, each, join(path, name)) for name, each in body.items()}


def filled(body: Any, record: Mapping[str, Any]) -> Any:
    """The body for one lead; what is not known is null, and nothing inside a text."""
    if isinstance(body, Mapping):
        return {name: filled(each, record) for name, each in body.items()}
    if isinstance(body, list):
        return [filled(each, record) for each in body]
    if not isinstance(body, str):
        return body
    alone = _GAP.fullmatch(body)
    if alone is not None:
        return _plain(_value(alone[1], record))
    return _GAP.sub(lambda match: _text(_value(match[1], record)), body)


def _read(reading: Reading, value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _read(reading, each, join(path, name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_read(reading, each, join(path, number)) for number, each in enumerate(value)]
    if not isinstance(value, str):
        return value
    if "{{" in _GAP.sub("", value):
        said = f"{value[:80]!a} has a gap that cannot be read: write {{{{ field }}}}, and nothing else in the braces."
        reading.fault(path, "not_a_gap", said)
    return _GAP.sub(lambda match: _place(reading, match[1], path), value)


def _place(reading: Reading, name: str, path: str) -> str:
    field = reading.schema.find(name)
    if field is None:
        reading.fault(path, "unknown_field", reading.schema.unknown(name).capitalize() + ".")
        return ""
    return "{{ " + ".".join(field.path) + " }}"


def _value(name: str, record: Mapping[str, Any]) -> Any:
    found: Any = record
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, datetime):
        return canonical_datetime(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _text(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
