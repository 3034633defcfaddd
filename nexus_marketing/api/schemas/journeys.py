"""Bodies of journeys; what lies in a draft is held against the journeys' own schema when it is published."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.journeys.statuses import ResumePolicy, Unmapped
from nexus_marketing.core.schemas import Schema

_FIELDS: Schema = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "draft": {"type": "dict"},
}
READ_ONLY = frozenset(
    {"id", "tenant_id", "status", "published", "campaign_id", "runs", "created_at", "updated_at", "version"}
)
CREATE: Schema = {name: {**rules, "required": True} for name, rules in _FIELDS.items()}
PATCH: Schema = {**_FIELDS, "version": VERSION}
MOVE: Schema = {"version": VERSION}
PATCHING: Schema = {"version": VERSION, "dry_run": {"type": "boolean"}}
ENTRIES: Schema = {
    "lead_ids": {"type": "list", "minlength": 1, "maxlength": 200, "schema": {"type": "id", "check_with": "id"}},
    "segment_id": {"type": "id", "check_with": "id"},
    "backfill": {"type": "string", "allowed": ["none", "all"]},
}
REVIVE: Schema = {
    "node": {"type": "string", "minlength": 1, "maxlength": 64},
    "reason": {"type": "string", "minlength": 1, "maxlength": 300},
    "run_ids": {"type": "list", "minlength": 1, "maxlength": 200, "schema": {"type": "id", "check_with": "id"}},
    "why": {"type": "string", "maxlength": 500},
    "dry_run": {"type": "boolean"},
}
ANSWER: Schema = {"approved": {"type": "boolean", "required": True}}
STOP: Schema = {"version": VERSION, "compensate": {"type": "boolean"}}
RESUME: Schema = {"version": VERSION, "policy": {"type": "string", "allowed": [str(each) for each in ResumePolicy]}}
MIGRATE: Schema = {
    "map": {"type": "dict", "valuesrules": {"type": "string", "maxlength": 64}},
    "unmapped": {"type": "string", "allowed": [str(each) for each in Unmapped]},
    "version": {"type": "integer", "min": 1},
    "dry_run": {"type": "boolean"},
}
