"""Bodies of channel account requests; what ``config`` may hold is the channel's to say."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_FIELDS: Schema = {
    "type": {"type": "string", "minlength": 1, "maxlength": 40},
    "name": {"type": "string", "minlength": 1, "maxlength": 63},
    "config": {"type": "dict", "keysrules": {"type": "string", "maxlength": 64}},
    "enabled": {"type": "boolean"},
    "weight": {"type": "integer", "min": 0, "max": 1_000},
    "rates": {"type": "list", "maxlength": 20, "schema": {"type": "dict"}},
}
READ_ONLY = frozenset(
    {
        "id", "tenant_id", "secrets_set", "health", "health_reason", "health_at", "version", "created_at", "updated_at",
    }
)  # fmt: skip
CREATE: Schema = {
    name: {**rules, "required": True} if name in ("type", "name") else rules for name, rules in _FIELDS.items()
}
PATCH: Schema = {**{name: rules for name, rules in _FIELDS.items() if name != "type"}, "version": VERSION}
TEST: Schema = {"to": {"type": "string", "maxlength": 320}}
