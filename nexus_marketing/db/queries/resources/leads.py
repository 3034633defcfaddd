"""Leads, what they are made of and how they came."""

from nexus_marketing.core.conditions import lead_schema
from nexus_marketing.db.models import Lead, LeadField, LeadImport, LeadImportProfile
from nexus_marketing.db.queries.listings import Listing, table_of
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, TIMES, same, schema

_LEAD_FIELDS = same(
    "id",
    "email",
    "name",
    "first_name",
    "last_name",
    "external_id",
    "phone",
    "country",
    "locale",
    "time_zone",
    "tags",
    "metadata",
    "owner_id",
    "score",
    "version",
    "created_at",
    "updated_at",
)
LEADS = Listing(
    "leads",
    table_of(Lead),
    _LEAD_FIELDS,
    ("id", "created_at", "updated_at", "score"),
    lead_schema(),
    ids=frozenset({"id", "owner_id"}),
    visible=table_of(Lead).c.gone_at.is_(None),
)
LEAD_FIELDS = Listing(
    "lead-fields",
    table_of(LeadField),
    same(
        "id",
        "name",
        "type",
        "required",
        "personal",
        "allowed",
        "bounds",
        "version",
        "created_at",
        "updated_at",
    ),
    ("id", "name", "created_at", "updated_at"),
    schema({"id": NUMBER, "name": TEXT, "type": TEXT, "version": NUMBER, **TIMES}),
)
_COUNTS = (
    "created",
    "updated",
    "unchanged",
    "duplicate",
    "rejected",
    "consents",
    "consents_refused",
    "restored",
    "removed",
    "kept",
)
LEAD_IMPORTS = Listing(
    "lead-imports",
    table_of(LeadImport),
    same(
        "id",
        "status",
        "form",
        "size_bytes",
        *_COUNTS,
        "options",
        "inspection",
        "report",
        "error",
        "finished_at",
        name="source",
        rows_done="row_count",
        bytes_done="byte_offset",
        created_at="started_at",
        undo_until="traces_until",
    ),
    ("id", "created_at"),
    schema({"id": NUMBER, "name": TEXT, "status": TEXT, "created_at": MOMENT, "finished_at": MOMENT}),
)
LEAD_IMPORT_PROFILES = Listing(
    "lead-import-profiles",
    table_of(LeadImportProfile),
    same("id", "name", "options", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    schema({"id": NUMBER, "name": TEXT, "version": NUMBER, **TIMES}),
)
