"""Bodies of definition requests; the document itself is read by ``core.definitions``."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_SCHEMA = {"type": "dict", "required": True}
READ_ONLY = frozenset(
    {"id", "tenant_id", "code", "name", "active", "version", "created_at", "updated_at", "notices", "versions"}
)
CREATE: Schema = {"schema": _SCHEMA}
PATCH: Schema = {"schema": _SCHEMA, "revision": VERSION}
ACTION: Schema = {"revision": VERSION}
DUPLICATE: Schema = {"code": {"type": "string", "minlength": 1, "maxlength": 100, "required": True}}
