"""Bodies of template requests; the template language is read by the service."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_PART = {"type": "string", "maxlength": 500_000}
_CONTENT = {
    "type": "dict",
    "schema": {"subject": {"type": "string", "maxlength": 998}, "html": _PART, "text": _PART},
}
_VARIABLE = {
    "type": "dict",
    "schema": {
        "required": {"type": "boolean"},
        "fallback": {"type": ["string", "number", "boolean"], "nullable": True},
        "type": {"type": "string", "maxlength": 32},
        "example": {"nullable": True},
    },
}
_FIELDS: Schema = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "type": {"type": "string", "maxlength": 32},
    "content": _CONTENT,
    "variables": {"type": "dict", "keysrules": {"type": "string", "maxlength": 128}, "valuesrules": _VARIABLE},
}
READ_ONLY = frozenset({"id", "tenant_id", "version", "created_at", "updated_at", "archived_at", "links", "digest"})
CREATE: Schema = {
    name: {**rules, "required": True} if name in ("name", "type", "content") else rules
    for name, rules in _FIELDS.items()
}
PATCH: Schema = {**{name: rules for name, rules in _FIELDS.items() if name != "type"}, "version": VERSION}
DUPLICATE: Schema = {"name": _FIELDS["name"]}
