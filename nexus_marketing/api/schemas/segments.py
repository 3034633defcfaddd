"""Bodies of segment requests; conditions are read by the condition language itself."""

from nexus_marketing.api.versions import VERSION
from nexus_marketing.core.schemas import Schema

_FIELDS: Schema = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "kind": {"type": "string", "allowed": ["dynamic", "static", "snapshot", "composite"]},
    "conditions": {"type": ["string", "dict"], "nullable": True},
    "lead_ids": {"type": "list", "maxlength": 5_000, "schema": {"type": "id", "check_with": "id"}},
}
READ_ONLY = frozenset(
    {
        "id", "tenant_id", "lead_count", "as_of", "generation", "cost_class", "error", "version", "created_at",
        "updated_at", "requested_at", "duration_ms", "depends_on", "pending",
    }
)  # fmt: skip
CREATE: Schema = {**_FIELDS, "name": {**_FIELDS["name"], "required": True}}
ESTIMATE: Schema = {"conditions": {"type": ["string", "dict"], "required": True}}
PATCH: Schema = {**_FIELDS, "version": VERSION}
