"""Bodies of campaign requests."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.deliveries import DeliveryState, FailReason
from nexus_marketing.core.schemas import Schema
from nexus_marketing.services.campaigns import forms as campaign_forms

READ_ONLY = frozenset(
    {
        "id", "tenant_id", "status", "stage", "status_reason", "version", "campaign_key", "external_id", "counters",
        "budget_minor", "spent", "revenue", "approved_by", "starts_at", "next_run_at", "started_at", "completed_at", "created_at",
        "updated_at",
    }
)  # fmt: skip
CREATE: Schema = campaign_forms.FROM_DEFINITION.schema
PATCH: Schema = {**campaign_forms.FIELDS, "version": VERSION}
ACTION: Schema = {"reason": {"type": "string", "minlength": 1, "maxlength": 500}, "version": VERSION}
FAIL: Schema = {**ACTION, "reason": {"type": "string", "minlength": 1, "maxlength": 500, "required": True}}
LAUNCH: Schema = {
    **ACTION,
    "preflight_id": {"type": "id", "check_with": "id"},
    "tolerance": {"type": "number", "min": 0, "max": 100},
}
NEXT_RUN: Schema = {
    "at": {"type": "string", "maxlength": 40, "required": True, "nullable": True},
    "version": VERSION,
}
MOVE: Schema = {**ACTION, "action": {"type": "string", "minlength": 1, "maxlength": 64, "required": True}}
PROMOTE: Schema = {"campaigns": {"type": "list", "required": True, "minlength": 1, "maxlength": 100}}
#: What a dead letter may be.
DEAD = (str(DeliveryState.FAILED), str(DeliveryState.UNKNOWN))
ACCEPT: Schema = {"lead_id": {"type": "id", "check_with": "id"}}
REPLAY: Schema = {
    **ACCEPT,
    "state": {"type": "string", "allowed": list(DEAD)},
    "reason": {"type": "string", "allowed": [str(each) for each in FailReason]},
}
