"""The schemas of a definition's document and of the data it asks for."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.schemas import Form, Schema

_NAME: Final = {"type": "string", "minlength": 1, "maxlength": 200}
_CODE: Final = {"type": "string", "regex": "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"}
_ACTION: Final = {"type": "string", "regex": "[A-Za-z][A-Za-z0-9_]{0,63}"}
_DURATION: Final = {"type": "string", "maxlength": 40, "required": True, "check_with": "duration"}
_OPTIONAL_DURATION: Final = {**_DURATION, "required": False}
_CONDITION: Final = {"type": ["string", "dict"]}
_SPELLINGS: Final = ["string", "dict", "list"]

_CHANNEL: Final[Schema] = {
    "enabled": {"type": "boolean"},
    "priority": {"type": "integer", "min": 0, "max": 1_000},
    "provider": _NAME,
    "template": _NAME,
    "url": {"type": "string", "maxlength": 2_000, "regex": "https?://.+"},
    "compensate": {"type": "boolean"},
}
_TRANSITION: Final[Schema] = {
    "from": {"type": ["string", "list"], "required": True, "schema": {"type": "string"}},
    "to": {"type": "string", "required": True},
    "condition": _CONDITION,
}
_STEP: Final[Schema] = {"delay": _DURATION, "action": {**_ACTION, "required": True}, "template": _NAME}
_CAMPAIGN_STEP: Final[Schema] = {
    "action": {**_ACTION, "required": True},
    "delay": _OPTIONAL_DURATION,
    "data": {"type": "dict"},
    "compensate": _ACTION,
}
_ESCALATION: Final[Schema] = {
    "after": _DURATION,
    "condition": _CONDITION,
    "action": {**_ACTION, "required": True},
    "level": {"type": "integer", "min": 1, "max": 9},
    "for": _OPTIONAL_DURATION,
    "minimum": {"type": "integer", "min": 0},
    "cool_down": _OPTIONAL_DURATION,
    "data": {"type": "dict"},
    "compensate": _ACTION,
}
_TRIGGER: Final[Schema] = {
    "event": {"type": "string", "minlength": 1, "maxlength": 100, "required": True},
    "condition": _CONDITION,
    "action": {**_ACTION, "required": True},
    "cool_down": _OPTIONAL_DURATION,
    "data": {"type": "dict"},
    "compensate": _ACTION,
}
_ROI: Final[Schema] = {
    "budget": {"type": "money"},
    "target_revenue": {"type": "money"},
    "threshold": {"type": ["string", "number"]},
    "breach_action": _ACTION,
}
_COMPLIANCE: Final[Schema] = {
    "gdpr": {"type": "boolean"},
    "can_spam": {"type": "boolean"},
    "casl": {"type": "boolean"},
    "consent_required": {"type": "boolean"},
    "data_retention_days": {"type": "integer", "min": 1, "max": 36_500},
}
_FIELD: Final[Schema] = {
    "type": {
        "type": "string",
        "required": True,
        "allowed": ["string", "number", "integer", "boolean", "date", "datetime", "enum", "list", "object"],
    },
    "required": {"type": "boolean"},
    "nullable": {"type": "boolean"},
    "values": {"type": "list", "minlength": 1},
    "min": {"type": "number"},
    "max": {"type": "number"},
    "minlength": {"type": "integer", "min": 0},
    "maxlength": {"type": "integer", "min": 0},
    "default": {"nullable": True},
    "description": {"type": "string"},
}


def _dict(schema: Schema) -> dict[str, Any]:
    return {"type": "dict", "schema": schema}


def _dicts(schema: Schema) -> dict[str, Any]:
    return {"type": "list", "schema": _dict(schema)}


DEFINITION: Final = Form(
    {
        "id": _CODE,
        "name": _NAME,
        "version": {"type": "string", "regex": r"[0-9]+(\.[0-9]+){0,2}([.-][0-9A-Za-z.-]{1,30})?"},
        "description": {"type": "string"},
        "dataSchema": {"type": "dict", "keysrules": _ACTION, "valuesrules": _dict(_FIELD)},
        "stages": {"type": ["list", "dict"]},
        "channels": {"type": ["list", "dict"]},
        "transitions": {"type": "dict", "keysrules": _ACTION, "valuesrules": _dict(_TRANSITION)},
        "automation": _dict(
            {
                "sequence": _dicts(_STEP),
                "steps": {**_dicts(_CAMPAIGN_STEP), "maxlength": 100},
                "escalation": _dicts(_ESCALATION),
                "triggers": _dicts(_TRIGGER),
            }
        ),
        "roi": _dict(_ROI),
        "targeting": _dict({"segment": {"type": ["string", "dict"], "required": True}}),
        "compliance": _dict(_COMPLIANCE),
        "guards": {"type": "dict", "valuesrules": {"type": _SPELLINGS}},
        "required": {"type": "list", "schema": {"type": "string"}},
        "data": {"type": "dict"},
        "budget": {"type": "money", "nullable": True},
        "currency": {"type": "string", "regex": "[A-Z]{3}"},
        "segment": {"type": ["string", "dict"]},
        "template": _NAME,
        "message_class": {"type": "string", "allowed": [str(each) for each in MessageClass]},
        "time_zone": {"type": "string", "maxlength": 64},
    }
)
CHANNEL: Final = Form(_CHANNEL)
STAGE: Final = Form({"name": {**_NAME, "required": True}, "status": {"type": "string"}})

#: What every launch may say, whatever its definition asks for.
CONTROLS: Final[Schema] = {
    "start_date": {"type": "string", "nullable": True, "check_with": "start"},
    "target_segment": {"type": ["string", "dict"], "nullable": True},
    "budget": {"type": "money", "nullable": True},
    "currency": {"type": "string", "nullable": True, "regex": "[A-Z]{3}"},
}

_CERBERUS: Final[Mapping[str, Mapping[str, Any]]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "date": {"type": "date", "check_with": "date"},
    "datetime": {"type": "datetime", "check_with": "datetime"},
    "enum": {},
    "list": {"type": "list"},
    "object": {"type": "dict"},
}
_KINDS: Final[Mapping[str, FieldType]] = {
    "string": FieldType.TEXT,
    "number": FieldType.NUMBER,
    "integer": FieldType.NUMBER,
    "boolean": FieldType.BOOLEAN,
    "date": FieldType.DATE,
    "datetime": FieldType.DATETIME,
    "enum": FieldType.JSON,
    "list": FieldType.LIST,
    "object": FieldType.JSON,
}
_CONTROL_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "start_date": ("date", "datetime", "string"),
    "target_segment": ("string", "object"),
    "budget": ("number", "integer"),
    "currency": ("string", "enum"),
}
_BOUNDS: Final[Mapping[str, tuple[str, ...]]] = {
    "min": ("number", "integer"),
    "max": ("number", "integer"),
    "minlength": ("string", "list"),
    "maxlength": ("string", "list"),
    "values": ("enum", "string", "number", "integer"),
}


def data_form(fields: Mapping[str, Mapping[str, Any]] | None, required: tuple[str, ...]) -> Form:
    """The form of launch data: what ``dataSchema`` declares, or anything where it declares nothing."""
    declared = {name: _rules(rules) for name, rules in (fields or {}).items()}
    schema: dict[str, Mapping[str, Any]] = {**CONTROLS, **declared}
    for name in CONTROLS.keys() & declared.keys():  # what every launch may say is read in one way
        schema[name] = {**declared[name], **CONTROLS[name]}
    for name in required:
        schema[name] = {**schema.get(name, {}), "required": True, "empty": False}
    return Form(schema, open_ended=fields is None)


def field_types(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, FieldType]:
    """What conditions may assume of the declared data."""
    return {name: _kind(rules) for name, rules in fields.items()}


def misused_controls(fields: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each field that every launch knows and that is declared as something else: its name, and what it may be."""
    for name, kinds in _CONTROL_TYPES.items():
        if name in fields and fields[name]["type"] not in kinds:
            yield name, ", ".join(kinds)


def misplaced_bounds(fields: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Each bound that its field's type does not have: field, bound, and the types that have it."""
    for name, rules in fields.items():
        for bound, kinds in _BOUNDS.items():
            if bound in rules and rules["type"] not in kinds:
                yield name, bound, ", ".join(kinds)
        if rules["type"] == "enum" and "values" not in rules:
            yield name, "values", ""


def _kind(rules: Mapping[str, Any]) -> FieldType:
    if rules["type"] == "enum" and all(isinstance(each, str) for each in rules["values"]):
        return FieldType.TEXT
    return _KINDS[rules["type"]]


def _rules(declared: Mapping[str, Any]) -> dict[str, Any]:
    rules = dict(_CERBERUS[declared["type"]])
    rules.update(
        {name: declared[name] for name in ("nullable", "min", "max", "minlength", "maxlength") if name in declared}
    )
    if "values" in declared:
        rules["one_of"] = declared["values"]
    if declared.get("required"):
        rules["required"] = True
    return rules
