"""What a campaign's fields may be, for every door they come through."""

from collections.abc import Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.fan_out import MAX_CHANNELS
from nexus_marketing.core.schemas import Form, Schema

_REFERENCE: Final = {"type": "id", "nullable": True, "check_with": "id"}
_SUBJECT: Final = {"type": "string", "nullable": True, "maxlength": 200}
_CHANNEL: Final = {"type": "string", "minlength": 1, "maxlength": 64}
FIELDS: Final[Schema] = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "message_class": {"type": "string", "allowed": [str(each) for each in MessageClass]},
    "channel": _CHANNEL,
    "channels": {
        "type": "dict",
        "nullable": True,
        "minlength": 1,
        "maxlength": MAX_CHANNELS,
        "keysrules": _CHANNEL,
        "valuesrules": {"type": "dict", "schema": {"template_id": {**_REFERENCE, "required": True}}},
    },
    "wait_for": {"type": ["string", "integer"]},
    "recurrence": {
        "type": "dict",
        "nullable": True,
        "schema": {
            "cron": {"type": "string", "required": True, "maxlength": 200},
            "time_zone": {"type": "string", "maxlength": 64},
            "until": {"type": "string", "maxlength": 40},
            "count": {"type": "integer", "min": 1, "max": 10_000},
        },
    },
    "local_start": {"type": "string", "nullable": True, "check_with": "local_time"},
    "priority": {"type": "integer", "min": 0, "max": 100},
    "obeys_caps": {"type": "boolean"},
    "counts_toward_caps": {"type": "boolean"},
    "segment_id": _REFERENCE,
    "template_id": _REFERENCE,
    "owner_id": _REFERENCE,
    "subject_type": _SUBJECT,
    "subject_id": _SUBJECT,
    "data": {"type": "dict"},
    "budget": {"type": "money", "nullable": True, "maxlength": 20},
    "currency": {"type": "string", "nullable": True, "regex": "[A-Z]{3}"},
}
#: What it is made from is said once, when it is written down.
_MADE_FROM: Final[Schema] = {
    "definition_id": {"type": "id", "check_with": "id"},
    "definition_version": {"type": "string", "minlength": 1, "maxlength": 50},
}
FROM_DEFINITION: Final = Form({**FIELDS, **_MADE_FROM})
NAMED: Final = Form({**FIELDS, **_MADE_FROM, "name": {**FIELDS["name"], "required": True}})


def form_of(document: Mapping[str, Any]) -> Form:
    """The form of a new campaign: one that names no definition needs a name itself."""
    return FROM_DEFINITION if "definition_id" in document else NAMED
