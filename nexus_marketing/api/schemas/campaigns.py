"""Bodies of campaign requests."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.schemas import Schema

_REFERENCE = {"type": "id", "nullable": True, "check_with": "id"}
_SUBJECT = {"type": "string", "nullable": True, "maxlength": 200}
_FIELDS: Schema = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "message_class": {"type": "string", "allowed": [str(each) for each in MessageClass]},
    "channel": {"type": "string", "minlength": 1, "maxlength": 64},
    "segment_id": _REFERENCE,
    "template_id": _REFERENCE,
    "owner_id": _REFERENCE,
    "subject_type": _SUBJECT,
    "subject_id": _SUBJECT,
    "data": {"type": "dict"},
    "budget": {"type": "money", "nullable": True, "maxlength": 20},
    "currency": {"type": "string", "nullable": True, "regex": "[A-Z]{3}"},
}
READ_ONLY = frozenset(
    {
        "id", "tenant_id", "status", "status_reason", "version", "definition_id", "budget_minor", "spent", "revenue",
        "approved_by", "started_at", "completed_at", "created_at", "updated_at",
    }
)  # fmt: skip
CREATE: Schema = {**_FIELDS, "name": {**_FIELDS["name"], "required": True}}
PATCH: Schema = {**_FIELDS, "version": VERSION}
ACTION: Schema = {"version": VERSION}
