"""Documents held against Cerberus schemas: JSON's types, every fault at once, each with its path and remedy.

Cerberus loads with this module; whoever must stay light imports it when it is needed.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from cerberus import TypeDefinition, Validator
from cerberus.errors import UNKNOWN_FIELD, ErrorDefinition
from cerberus.errors import ValidationError as Fault

from nexus_marketing.core.errors import NexusError, Problem, ValidationError, hint
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.values import DATE_SHAPE, join, parse_date, parse_datetime, parse_duration, parse_local_time

Schema = Mapping[str, Mapping[str, Any]]

#: What the ``check_with`` functions say, and the code under which it is reported.
_NOT_FOUND = ErrorDefinition(0x101, "check_with")
_NOT_A_DATE = ErrorDefinition(0x102, "check_with")
_NOT_A_DATETIME = ErrorDefinition(0x103, "check_with")
_NOT_A_DURATION = ErrorDefinition(0x104, "check_with")
_NOT_A_START = ErrorDefinition(0x105, "check_with")
_NOT_ONE_OF = ErrorDefinition(0x106, "one_of")
_NOT_A_LOCAL_TIME = ErrorDefinition(0x107, "check_with")
_CODES = {
    _NOT_ONE_OF.code: "not_allowed",
    _NOT_FOUND.code: "not_found",
    _NOT_A_DATE.code: "not_a_date",
    _NOT_A_DATETIME.code: "not_a_datetime",
    _NOT_A_DURATION.code: "not_a_duration",
    _NOT_A_LOCAL_TIME.code: "not_a_local_time",
    _NOT_A_START.code: "not_a_datetime",
}


class DocumentValidator(Validator):  # type: ignore[misc]  # Cerberus has no types
    """Cerberus with JSON's types: ``true`` is no number, ids are text of digits, dates are canonical text."""

    types_mapping: ClassVar[dict[str, TypeDefinition]] = {
        **Validator.types_mapping,
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "number": TypeDefinition("number", (int, float), (bool,)),
        "money": TypeDefinition("money", (int, float, str), (bool,)),
        "id": TypeDefinition("id", (str,), ()),
        "date": TypeDefinition("date", (str,), ()),
        "datetime": TypeDefinition("datetime", (str,), ()),
    }

    def _check_with_id(self, field: str, value: Any) -> None:
        self._accept(field, value, _NOT_FOUND, lambda text: parse_id(text, str(field).removesuffix("_id")))

    def _check_with_date(self, field: str, value: Any) -> None:
        self._accept(field, value, _NOT_A_DATE, parse_date)

    def _check_with_datetime(self, field: str, value: Any) -> None:
        self._accept(field, value, _NOT_A_DATETIME, parse_datetime)

    def _check_with_duration(self, field: str, value: Any) -> None:
        self._accept(field, value, _NOT_A_DURATION, parse_duration)

    def _check_with_local_time(self, field: str, value: Any) -> None:
        self._accept(field, value, _NOT_A_LOCAL_TIME, parse_local_time)

    def _check_with_start(self, field: str, value: Any) -> None:
        """A day (its beginning is meant) or a point in time."""
        read = parse_date if isinstance(value, str) and DATE_SHAPE.match(value) else parse_datetime
        self._accept(field, value, _NOT_A_START, read)

    def _validate_one_of(self, constraint: Any, field: str, value: Any) -> None:
        """The whole value is one of these, type included: ``allowed`` would judge a list by its members.

        The rule's arguments are validated against this schema:
        {'type': 'list'}
        """
        if value is not None and not any(type(each) is type(value) and each == value for each in constraint):
            self._error(field, _NOT_ONE_OF, f"This must be one of: {_shown(constraint)}.")

    def _accept(self, field: str, value: Any, fault: ErrorDefinition, read: Callable[[str], object]) -> None:
        if not isinstance(value, str):
            return  # the rule "type" says so
        try:
            read(value)
        except NexusError as error:
            self._error(field, fault, error.message)


def check(
    document: Mapping[str, Any],
    schema: Schema,
    read_only: Collection[str] = (),
    *,
    patch: bool = False,
    open_ended: bool = False,
    path: str = "",
) -> None:
    """Hold a document against a schema.

    Args:
        document: canonical JSON values.
        schema: Cerberus rules by field.
        read_only: fields that exist but are the server's to write; named as such when sent.
        patch: missing fields are left alone.
        open_ended: fields that the schema does not name are let through.
        path: where the document lies in a larger one.

    Raises:
        ValidationError: with every problem of the document.
    """
    Form(schema, open_ended=open_ended).check(document, read_only, patch=patch, path=path)


class Form:
    """A schema made ready once, to be held against many documents from any thread.

    Making a validator costs ten times what it costs to use one, and one is not to be shared while it works.
    """

    def __init__(self, schema: Schema, *, open_ended: bool = False) -> None:
        self.schema = schema
        self._open_ended = open_ended
        self._idle: deque[DocumentValidator] = deque([self._new()])

    def _new(self) -> DocumentValidator:
        return DocumentValidator(self.schema, allow_unknown=self._open_ended)

    def check(
        self, document: Mapping[str, Any], read_only: Collection[str] = (), *, patch: bool = False, path: str = ""
    ) -> None:
        """Refuse a document with faults; arguments as in the function :func:`check`.

        Raises:
            ValidationError: with every problem of the document.
        """
        problems = self.faults(document, read_only, patch=patch, path=path)
        if problems:
            raise ValidationError(problems=problems)

    def faults(
        self, document: Mapping[str, Any], read_only: Collection[str] = (), *, patch: bool = False, path: str = ""
    ) -> list[Problem]:
        """Every problem of a document, or none; arguments as in :func:`check`."""
        try:
            validator = self._idle.pop()
        except IndexError:
            validator = self._new()
        try:
            if validator.validate(document, update=patch, normalize=False):
                return []
            found = _problems(validator._errors, self.schema, read_only)  # noqa: SLF001 - the flat list
            return [Problem(join(path, each.path) if path else each.path, each.code, each.message) for each in found]
        finally:
            self._idle.append(validator)


def _problems(found: Iterable[Fault], schema: Schema, read_only: Collection[str]) -> Iterable[Problem]:
    for fault in found:
        if fault.is_group_error:
            yield from _problems(fault.child_errors, schema, read_only)
            continue
        path = ".".join(str(step) for step in fault.document_path)
        name = str(fault.document_path[-1])
        yield _problem(fault, path, name, schema, read_only)


def _problem(fault: Fault, path: str, name: str, schema: Schema, read_only: Collection[str]) -> Problem:
    if fault.code == UNKNOWN_FIELD.code:
        if len(fault.document_path) == 1 and name in read_only:
            return Problem(path, "read_only", f"{name} is written by the server: leave it out.")
        known = schema.keys() if len(fault.document_path) == 1 else _siblings(fault, schema)
        return Problem(path, "unknown_field", f"There is no field {name!a}{hint(name, known)}.")
    if fault.code in _CODES:
        return Problem(path, _CODES[fault.code], fault.info[0])
    code, sentence = _RULES.get(fault.rule, ("not_acceptable", "This value is not acceptable."))
    return Problem(path, code, sentence.format(constraint=_shown(fault.constraint)))


def _siblings(fault: Fault, schema: Schema) -> Collection[str]:
    rule: Any = {"schema": schema}
    for step in fault.document_path[:-1]:
        inner = rule.get("schema", {})
        rule = rule.get("valuesrules") or (inner if isinstance(step, int) else inner.get(step, {}))
    return rule.get("schema", ()) if isinstance(rule, Mapping) else ()


def _shown(constraint: Any) -> str:
    words = [constraint] if isinstance(constraint, str) or not isinstance(constraint, Sequence) else constraint
    return ", ".join(str(word) for word in words)


_RULES: Mapping[str | None, tuple[str, str]] = {
    "required": ("required", "This field is required."),
    "nullable": ("null_not_allowed", "This cannot be null: leave it out or give a value."),
    "type": ("wrong_type", "This must be of type {constraint}."),
    "allowed": ("not_allowed", "This must be one of: {constraint}."),
    "minlength": ("too_short", "This must have at least {constraint}."),
    "maxlength": ("too_long", "This may have at most {constraint}."),
    "min": ("too_small", "This must be at least {constraint}."),
    "max": ("too_large", "This may be at most {constraint}."),
    "regex": ("not_well_formed", "This is not in the form {constraint}."),
    "empty": ("empty", "This cannot be empty."),
}
