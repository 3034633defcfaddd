"""Bodies of scores; what lies in a draft is held against the rules' own schema."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_DRAFT = {"type": "dict", "nullable": True}
_DESCRIPTION = {"type": "string", "maxlength": 1_000}
READ_ONLY = frozenset({"id", "tenant_id", "published", "created_at", "updated_at", "version"})
CREATE: Schema = {
    "name": {"type": "string", "required": True, "regex": "[a-z][a-z0-9_]{0,63}"},
    "description": _DESCRIPTION,
    "draft": _DRAFT,
}
PATCH: Schema = {"description": _DESCRIPTION, "draft": _DRAFT, "version": VERSION}
PUBLISH: Schema = {"fire_on_recompute": {"type": "boolean"}, "version": VERSION}
PREVIEW: Schema = {
    "draft": {"type": "dict"},
    "lead_ids": {"type": "list", "minlength": 1, "maxlength": 100, "schema": {"type": "id", "check_with": "id"}},
    "sample": {"type": "integer", "min": 1, "max": 100},
}
