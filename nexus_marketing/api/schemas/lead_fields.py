"""Bodies of requests about a tenant's own lead fields; what a rule may say is checked by the service."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_RULE: Schema = {
    "type": {"type": "string"},
    "required": {"type": "boolean"},
    "personal": {"type": "boolean"},
    "allowed": {"type": "list", "nullable": True},
    "bounds": {"type": "dict", "schema": {"min": {"nullable": True}, "max": {"nullable": True}}},
}
READ_ONLY = frozenset({"id", "tenant_id", "created_at", "updated_at", "check"})
CREATE: Schema = {
    **_RULE,
    "name": {"type": "string", "required": True, "empty": False, "maxlength": 64},
    "type": {"type": "string", "required": True},
}
PATCH: Schema = {**_RULE, "version": VERSION}
