"""Bodies of requests about imports and their profiles; what options may say is checked by the core."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_OPTIONS = {"type": "dict", "keysrules": {"type": "string"}}
JOB: Schema = {
    "options": {**_OPTIONS, "nullable": True},
    "profile_id": {"type": "id", "nullable": True, "check_with": "id"},
}
READ_ONLY = frozenset({"id", "tenant_id", "created_at", "updated_at"})
CREATE_PROFILE: Schema = {
    "name": {"type": "string", "required": True, "empty": False, "maxlength": 100},
    "options": {**_OPTIONS, "required": True},
}
PATCH_PROFILE: Schema = {
    "name": {"type": "string", "empty": False, "maxlength": 100},
    "options": _OPTIONS,
    "version": VERSION,
}
