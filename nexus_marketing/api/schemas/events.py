"""Bodies of events from browsers."""

from nexus_marketing.core.engagements import EngagementType
from nexus_marketing.core.schemas import Schema

MAX_BYTES = 8_192
PUBLIC_EVENT: Schema = {
    "type": {
        "type": "string",
        "required": True,
        "allowed": [str(EngagementType.PAGE_VISITED), str(EngagementType.FORM_SUBMITTED)],
    },
    "token": {"type": "string", "maxlength": 64},
    "email": {"type": "string", "minlength": 3, "maxlength": 320},
    "event_id": {"type": "string", "minlength": 1, "maxlength": 100},
    "properties": {
        "type": "dict",
        "maxlength": 20,
        "keysrules": {"type": "string", "regex": "[A-Za-z_][A-Za-z0-9_.]{0,63}"},
        "valuesrules": {"type": ["string", "number", "boolean"], "maxlength": 1_000},
    },
}
