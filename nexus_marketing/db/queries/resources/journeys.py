"""Journeys, and who is in them."""

from sqlalchemy import bindparam

from nexus_marketing.db.models import Journey, JourneyApproval, JourneyRun
from nexus_marketing.db.queries.listings import Listing, table_of
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, TIMES, same, schema

JOURNEYS = Listing(
    "journeys",
    table_of(Journey),
    same("id", "name", "status", "draft", "published", "campaign_id", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    schema({"id": NUMBER, "name": TEXT, "status": TEXT, "published": NUMBER, "campaign_id": NUMBER, **TIMES}),
    ids=frozenset({"id", "campaign_id"}),
)
JOURNEY_RUNS = Listing(
    "journey_runs",
    table_of(JourneyRun),
    same(
        "id",
        "lead_id",
        "sequence",
        "state",
        "node",
        "wake_at",
        "entered_at",
        "ended_at",
        "reason",
        "taken_back_at",
        version="version_number",
    ),
    ("id",),
    schema({"id": NUMBER, "lead_id": NUMBER, "state": TEXT, "node": TEXT, "entered_at": MOMENT, "reason": TEXT}),
    frozenset({"id", "lead_id"}),
    scope=table_of(JourneyRun).c.journey_id == bindparam("journey_id"),
)
JOURNEY_APPROVALS = Listing(
    "journey-approvals",
    table_of(JourneyApproval),
    same("id", "journey_id", "run_id", "node", "asked", "asked_at", "due_at", "closed_at", "answer", "answered_by"),
    ("id", "asked_at"),
    schema(
        {
            "id": NUMBER,
            "journey_id": NUMBER,
            "run_id": NUMBER,
            "node": TEXT,
            "asked": TEXT,
            "asked_at": MOMENT,
            "due_at": MOMENT,
            "closed_at": MOMENT,
            "answer": TEXT,
        }
    ),
    frozenset({"id", "journey_id", "run_id"}),
)
