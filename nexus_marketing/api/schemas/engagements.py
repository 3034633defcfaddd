"""Bodies of reported engagements."""

from nexus_marketing.core.schemas import Schema

MAX_ROWS = 500
ROW: Schema = {
    "type": {"type": "string", "required": True, "regex": "[a-z][a-z0-9_.]{0,63}"},
    "lead_id": {"type": "id", "required": True, "check_with": "id"},
    "event_id": {"type": "string", "minlength": 1, "maxlength": 128},
    "campaign_id": {"type": "id", "nullable": True, "check_with": "id"},
    "channel": {"type": "string", "nullable": True, "maxlength": 64},
    "tracked_at": {"type": "string", "maxlength": 40},
    "notes": {"type": "string", "nullable": True, "maxlength": 10_000},
    "metadata": {"type": "dict", "nullable": True},
}
READ_ONLY = frozenset({"id", "tenant_id", "verdict", "send_id", "seq", "link"})
