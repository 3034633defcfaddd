"""A tenant's own lead fields: what may be declared of one, and whether a value keeps to it.

>>> read_rule("seats", {"type": "number", "bounds": {"min": 1}}).faults(0)[0].message
'This must be at least 1.'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from nexus_marketing.core.conditions import FieldType, lead_schema
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import (
    DATE_SHAPE,
    DATETIME_SHAPE,
    Canonical,
    canonical,
    canonical_datetime,
    parse_date,
    parse_datetime,
)

#: What a declaration may say of a field's type.
DECLARABLE: Final = frozenset(
    {FieldType.TEXT, FieldType.NUMBER, FieldType.BOOLEAN, FieldType.DATE, FieldType.DATETIME, FieldType.LIST}
)
REMEDIES: Final[Mapping[FieldType, str]] = {
    FieldType.TEXT: "write text",
    FieldType.NUMBER: "write a number such as 12 or 12.5",
    FieldType.BOOLEAN: "write true or false",
    FieldType.DATE: "write YYYY-MM-DD",
    FieldType.DATETIME: "write YYYY-MM-DDThh:mm:ss.ffffffZ",
    FieldType.LIST: "write a list",
}
#: Types whose bounds are those of the value; of texts and lists they are those of the length.
_BY_VALUE: Final = frozenset({FieldType.NUMBER, FieldType.DATE, FieldType.DATETIME})
_BY_LENGTH: Final = frozenset({FieldType.TEXT, FieldType.LIST})
_WITH_ALLOWED: Final = frozenset({FieldType.TEXT, FieldType.NUMBER, FieldType.LIST})
MAX_ALLOWED: Final = 500


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One declared field. ``minimum`` and ``maximum`` bound a number, date or moment, else the length."""

    name: str
    type: FieldType
    required: bool = False
    personal: bool = True
    allowed: tuple[Canonical, ...] = ()
    minimum: Canonical = None
    maximum: Canonical = None

    @property
    def path(self) -> str:
        """Where the field is in a lead."""
        return f"metadata.{self.name}"

    def faults(self, value: Canonical) -> list[Problem]:
        """What is wrong with a value that is there; values are never cast to fit."""
        if not _holds(value, self.type):
            message = f"{self.name} is declared as {self.type}: {REMEDIES[self.type]}."
            return [Problem(self.path, "wrong_type", message)]
        form = _form(self)
        return [] if form is None else form.faults({self.name: value}, path="metadata")


def missing(rule: FieldRule) -> Problem:
    """The problem of a required field that is not there."""
    return Problem(rule.path, "required", f"{rule.name} is required: {REMEDIES[rule.type]}.")


def read_rule(name: str, document: Mapping[str, Any]) -> FieldRule:
    """A rule as a document says it: ``type``, ``required``, ``personal``, ``allowed``, ``bounds``
    with ``min`` and ``max``.

    Raises:
        ValidationError: every fault, each with its path.
    """
    from nexus_marketing.core.schemas import check  # noqa: PLC0415 - Cerberus loads on first use

    check(document, _DOCUMENT)
    kind = FieldType(document["type"])
    ends = document.get("bounds") or {}
    problems = [*_name_faults(name), *_bound_faults(kind, ends), *_allowed_faults(kind, document)]
    if problems:
        raise ValidationError(problems=problems)
    bounds = [_bound(kind, ends.get(end)) for end in ("min", "max")]
    allowed = tuple(canonical(document.get("allowed") or [], "allowed"))  # type: ignore[arg-type]  # a list of scalars
    return FieldRule(
        name, kind, bool(document.get("required")), bool(document.get("personal", True)), allowed, bounds[0], bounds[1]
    )


def _name_faults(name: str) -> list[Problem]:
    if name in lead_schema().fields:
        return [Problem("name", "taken", f"{name}: every lead has a field of this name; choose another.")]
    if not 0 < len(name) <= 64 or "." in name or name != name.strip() or not name.isprintable():
        return [Problem("name", "not_a_name", f"{name[:64]!a} is no name of a field: use letters, digits and _.")]
    return []


def _bound_faults(kind: FieldType, given: Mapping[str, Any]) -> list[Problem]:
    ends = [end for end in ("min", "max") if given.get(end) is not None]
    if ends and kind not in _BY_VALUE | _BY_LENGTH:
        return [Problem("bounds", "not_allowed", f"A {kind} has no bounds: leave them out.")]
    what = "a whole number, the length" if kind in _BY_LENGTH else f"a {kind}"
    wrong = [end for end in ends if not _is_bound(kind, given[end])]
    if wrong:
        message = "{0} of a {1} is {2}, not {3!r}."
        return [Problem(f"bounds.{end}", "wrong_type", message.format(end, kind, what, given[end])) for end in wrong]
    if len(ends) == 2 and _bound(kind, given["min"]) > _bound(kind, given["max"]):  # type: ignore[operator]
        return [Problem("bounds.max", "out_of_bounds", "max is below min: nothing would fit.")]
    return []


def _is_bound(kind: FieldType, value: object) -> bool:
    if kind in _BY_LENGTH:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000
    if kind is FieldType.NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    try:
        _bound(kind, value)
    except ValidationError:
        return False
    return isinstance(value, str)


def _bound(kind: FieldType, value: Any) -> Canonical:
    if value is None or kind in _BY_LENGTH | {FieldType.NUMBER}:
        number: Canonical = canonical(value)
        return number
    if kind is FieldType.DATE:
        return parse_date(str(value), "bounds").isoformat()
    return canonical_datetime(parse_datetime(str(value), "bounds"))


def _allowed_faults(kind: FieldType, document: Mapping[str, Any]) -> list[Problem]:
    allowed = document.get("allowed")
    if allowed is None:
        return []
    if kind not in _WITH_ALLOWED:
        return [Problem("allowed", "not_allowed", f"A {kind} has no list of allowed values: leave it out.")]
    member = FieldType.TEXT if kind is FieldType.LIST else kind
    return [
        Problem(f"allowed.{index}", "wrong_type", f"{each!r} is no {member}: {REMEDIES[member]}.")
        for index, each in enumerate(allowed)
        if not _holds(each, member)
    ]


@lru_cache(maxsize=1_000)
def _form(rule: FieldRule) -> Any:
    from nexus_marketing.core.schemas import Form  # noqa: PLC0415 - Cerberus loads on first use

    low, high = ("minlength", "maxlength") if rule.type in _BY_LENGTH else ("min", "max")
    constraints: dict[str, Any] = {low: rule.minimum, high: rule.maximum, "allowed": list(rule.allowed) or None}
    said = {name: value for name, value in constraints.items() if value is not None}
    return Form({rule.name: said}) if said else None


def _holds(value: Canonical, kind: FieldType) -> bool:
    match kind:
        case FieldType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.DATE:
            return isinstance(value, str) and DATE_SHAPE.match(value) is not None
        case FieldType.DATETIME:
            return isinstance(value, str) and DATETIME_SHAPE.match(value) is not None
        case FieldType.LIST:
            return isinstance(value, list)
    return isinstance(value, str)


_DOCUMENT: Final[Mapping[str, Mapping[str, Any]]] = {
    "type": {"type": "string", "required": True, "allowed": sorted(DECLARABLE)},
    "required": {"type": "boolean"},
    "personal": {"type": "boolean"},
    "allowed": {"type": "list", "nullable": True, "minlength": 1, "maxlength": MAX_ALLOWED},
    "bounds": {"type": "dict", "nullable": True, "schema": {"min": {"nullable": True}, "max": {"nullable": True}}},
}
