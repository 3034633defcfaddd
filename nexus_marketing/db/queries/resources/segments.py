"""Segments and scores."""

from sqlalchemy import bindparam, exists

from nexus_marketing.db.models import Score, Segment, SegmentChange, SegmentMember
from nexus_marketing.db.queries.listings import TENANT, Listing, table_of
from nexus_marketing.db.queries.resources.leads import LEADS
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, TIMES, same, schema

SEGMENTS = Listing(
    "segments",
    table_of(Segment),
    same(
        "id",
        "name",
        "kind",
        "conditions",
        "lead_count",
        "as_of",
        "generation",
        "cost_class",
        "error",
        "version",
        "created_at",
        "updated_at",
    ),
    ("id", "name", "created_at", "updated_at", "lead_count"),
    schema(
        {
            "id": NUMBER,
            "name": TEXT,
            "kind": TEXT,
            "lead_count": NUMBER,
            "cost_class": TEXT,
            "as_of": MOMENT,
            **TIMES,
        }
    ),
)
_MEMBERSHIP = SegmentMember.__table__.c
SEGMENT_LEADS = Listing(
    "segment_leads",
    LEADS.table,
    LEADS.fields,
    LEADS.sorts,
    LEADS.schema,
    LEADS.ids,
    scope=exists().where(
        _MEMBERSHIP.tenant_id == TENANT,
        _MEMBERSHIP.segment_id == bindparam("segment_id"),
        _MEMBERSHIP.lead_id == LEADS.table.c.id,
    ),
)
SEGMENT_CHANGES = Listing(
    "segment_changes",
    table_of(SegmentChange),
    same("id", "lead_id", "change", "cause", "generation", "at"),
    ("id",),
    schema({"id": NUMBER, "lead_id": NUMBER, "change": TEXT, "cause": TEXT, "generation": NUMBER, "at": MOMENT}),
    frozenset({"id", "lead_id"}),
    scope=table_of(SegmentChange).c.segment_id == bindparam("segment_id"),
)
SCORES = Listing(
    "scores",
    table_of(Score),
    same("id", "name", "description", "draft", "published", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    schema({"id": NUMBER, "name": TEXT, "published": NUMBER, "version": NUMBER, **TIMES}),
    visible=table_of(Score).c.removed_at.is_(None),
)
