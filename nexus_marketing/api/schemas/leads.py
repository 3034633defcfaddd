"""Bodies of lead requests; meaning (addresses, zones, countries) is checked by the service."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_TEXT = {"type": "string", "nullable": True, "maxlength": 512}
FIELDS: Schema = {
    "email": _TEXT,
    "name": _TEXT,
    "first_name": _TEXT,
    "last_name": _TEXT,
    "external_id": _TEXT,
    "phone": _TEXT,
    "country": _TEXT,
    "locale": _TEXT,
    "time_zone": _TEXT,
    "tags": {"type": "list", "maxlength": 200, "schema": {"type": "string", "maxlength": 128, "empty": False}},
    "metadata": {"type": "dict", "keysrules": {"type": "string", "maxlength": 64}},
}
READ_ONLY = frozenset({"id", "tenant_id", "score", "version", "created_at", "updated_at", "email_norm", "segment_ids"})
CREATE: Schema = FIELDS
PATCH: Schema = {**FIELDS, "version": VERSION}
SCORE: Schema = {
    "score": {"type": "number", "required": True, "min": -1e9, "max": 1e9},
    "reason": {"type": "string", "required": True, "minlength": 1, "maxlength": 200},
}
