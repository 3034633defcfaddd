"""What a client sends: JSON, checked against a Cerberus schema, every fault at once with its path."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from cerberus import TypeDefinition, Validator
from cerberus.errors import CUSTOM, UNKNOWN_FIELD
from cerberus.errors import ValidationError as Fault
from pyramid.request import Request

from nexus_marketing.core.errors import NotFound, Problem, ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.values import parse_json

Schema = Mapping[str, Mapping[str, Any]]

_JSON_TYPES = ("application/json", "application/merge-patch+json")


class BodyValidator(Validator):
    """Cerberus with JSON's types: ``true`` is no number, and ids are text of digits."""

    types_mapping: ClassVar[dict[str, TypeDefinition]] = {
        **Validator.types_mapping,
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "number": TypeDefinition("number", (int, float), (bool,)),
        "money": TypeDefinition("money", (int, float, str), (bool,)),
        "id": TypeDefinition("id", (str,), ()),
    }

    def _check_with_id(self, field: str, value: Any) -> None:
        if not isinstance(value, str):
            return
        try:
            parse_id(value, str(field).removesuffix("_id"))
        except NotFound as error:
            self._error(field, error.message)


def read_json(request: Request) -> Any:
    """The body as a canonical JSON value.

    Raises:
        ValidationError: it is not declared as JSON (415), is not JSON (400), or holds a value that cannot
            be stored (422).
    """
    if request.content_type not in _JSON_TYPES:
        raise ValidationError.at(
            "", "unsupported_media_type", f"Send application/json, not {request.content_type or 'an untyped body'}."
        )
    return parse_json(request.body)


def read_object(
    request: Request, schema: Schema, read_only: Collection[str] = (), *, patch: bool = False
) -> dict[str, Any]:
    """The body as an object that fits the schema.

    Args:
        request: with the body.
        schema: Cerberus rules by field.
        read_only: fields that exist but are the server's to write; named as such when sent.
        patch: missing fields are left alone; at least one must be there.
    """
    document = read_json(request)
    if not isinstance(document, dict):
        raise ValidationError.at("", "not_an_object", "Send a JSON object.")
    check(document, schema, read_only, patch=patch)
    if patch and not document.keys() - {"version"}:
        raise ValidationError.at("", "nothing_to_change", f"Name a field to change: {', '.join(sorted(schema))}.")
    return document


def check(document: Mapping[str, Any], schema: Schema, read_only: Collection[str] = (), *, patch: bool = False) -> None:
    """Hold a document against a schema.

    Raises:
        ValidationError: with every problem of the document.
    """
    validator = BodyValidator(schema, allow_unknown=False)
    if validator.validate(document, update=patch, normalize=False):
        return
    raise ValidationError(problems=list(_problems(validator._errors, schema, read_only)))  # noqa: SLF001 - the flat list


def _problems(faults: Iterable[Fault], schema: Schema, read_only: Collection[str]) -> Iterable[Problem]:
    for fault in faults:
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
        return Problem(path, "unknown_field", f"There is no field {name!a}{_hint(name, known)}.")
    if fault.code == CUSTOM.code:  # what _check_with_id says
        return Problem(path, "not_found", fault.info[0])
    code, sentence = _RULES.get(fault.rule, ("not_acceptable", "This value is not acceptable."))
    return Problem(path, code, sentence.format(constraint=_shown(fault.constraint)))


def _siblings(fault: Fault, schema: Schema) -> Collection[str]:
    rules: Any = schema
    for step in fault.document_path[:-1]:
        rules = rules.get(step, {}).get("schema", {}) if isinstance(rules, Mapping) else {}
    return rules if isinstance(rules, Mapping) else ()


def _hint(name: str, known: Collection[str]) -> str:
    matches = get_close_matches(name[:64], [str(each) for each in known], n=1, cutoff=0.6)
    if matches:
        return f"; did you mean {matches[0]}"
    return f": use {', '.join(sorted(map(str, known)))}" if known else ""


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
