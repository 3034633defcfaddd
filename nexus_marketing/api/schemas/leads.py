"""Bodies of lead requests; meaning (addresses, zones, countries) is checked by the service."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_TEXT = {"type": "string", "nullable": True, "maxlength": 512}
_TAGS = {"type": "list", "maxlength": 200, "schema": {"type": "string", "maxlength": 128, "empty": False}}
_FIELDS: Schema = {
    "email": _TEXT,
    "name": _TEXT,
    "first_name": _TEXT,
    "last_name": _TEXT,
    "external_id": _TEXT,
    "phone": _TEXT,
    "country": _TEXT,
    "locale": _TEXT,
    "time_zone": _TEXT,
    "tags": _TAGS,
    "metadata": {"type": "dict", "keysrules": {"type": "string", "maxlength": 64}},
    "owner_id": {"type": "id", "nullable": True, "check_with": "id"},
}
READ_ONLY = frozenset({"id", "tenant_id", "score", "version", "created_at", "updated_at", "email_norm", "segment_ids"})
CREATE: Schema = _FIELDS
UPSERT: Schema = _FIELDS
PATCH: Schema = {**_FIELDS, "version": VERSION}
BATCH: Schema = {"leads": {"type": "list", "required": True, "minlength": 1, "maxlength": 1_000}}
TAGS: Schema = {"add": _TAGS, "remove": _TAGS, "version": VERSION}
SCORE: Schema = {
    "score": {"type": "number", "required": True, "min": -1e9, "max": 1e9},
    "reason": {"type": "string", "required": True, "minlength": 1, "maxlength": 200},
}
MERGE: Schema = {
    "from": {"type": "id", "required": True, "check_with": "id"},
    "policy": {"type": "dict", "keysrules": {"type": "string", "maxlength": 64}},
    "version": VERSION,
}
