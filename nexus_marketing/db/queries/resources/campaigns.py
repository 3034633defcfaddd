"""Campaigns, what they are made from and what became of them."""

from sqlalchemy import bindparam

from nexus_marketing.core.conditions import Field, FieldType, Schema
from nexus_marketing.db.models import Campaign, CampaignDefinition, Escalation, History, TakenAction
from nexus_marketing.db.queries.listings import Listing, table_of
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, TIMES, same, schema

CAMPAIGNS = Listing(
    "campaigns",
    table_of(Campaign),
    same(
        "id",
        "name",
        "status",
        "stage",
        "status_reason",
        "message_class",
        "channel",
        "channels",
        "wait_for",
        "recurrence",
        "next_run_at",
        "send_rates",
        "local_start",
        "priority",
        "obeys_caps",
        "counts_toward_caps",
        "segment_id",
        "template_id",
        "owner_id",
        "subject_type",
        "subject_id",
        "campaign_key",
        "external_id",
        "definition_id",
        "definition_version",
        "data",
        "counters",
        "currency",
        "version",
        "starts_at",
        "started_at",
        "completed_at",
        "created_at",
        "updated_at",
        budget="budget_minor",
    ),
    ("id", "name", "created_at", "updated_at", "status"),
    schema(
        {
            "id": NUMBER,
            "name": TEXT,
            "status": TEXT,
            "stage": TEXT,
            "message_class": TEXT,
            "channel": TEXT,
            "segment_id": NUMBER,
            "template_id": NUMBER,
            "owner_id": NUMBER,
            "subject_type": TEXT,
            "subject_id": TEXT,
            "campaign_key": TEXT,
            "external_id": TEXT,
            "definition_id": NUMBER,
            "definition_version": TEXT,
            "currency": TEXT,
            "starts_at": MOMENT,
            "started_at": MOMENT,
            "completed_at": MOMENT,
            "data": FieldType.JSON,
            **TIMES,
        }
    ),
    ids=frozenset({"id", "segment_id", "template_id", "owner_id", "definition_id"}),
    together={"budget": "currency"},
)
CAMPAIGN_HISTORY = Listing(
    "campaign_history",
    table_of(History),
    same("id", "version", "event", "before", "after", "actor", "at", metadata="payload"),
    ("id",),
    schema({"id": NUMBER, "version": NUMBER, "event": TEXT, "actor": TEXT, "at": MOMENT}),
    scope=table_of(History).c.campaign_id == bindparam("campaign_id"),
)
DEFINITIONS = Listing(
    "definitions",
    table_of(CampaignDefinition),
    same("id", "code", "name", "schema", "active", "version", "revision", "created_at", "updated_at"),
    ("id", "code", "name", "created_at", "updated_at"),
    schema(
        {
            "id": NUMBER,
            "code": TEXT,
            "name": TEXT,
            "active": FieldType.BOOLEAN,
            "version": TEXT,
            "revision": NUMBER,
            **TIMES,
        }
    ),
)
ACTIONS = Listing(
    "actions",
    table_of(TakenAction),
    same(
        "id",
        "key",
        "name",
        "source",
        "campaign_id",
        "lead_id",
        "state",
        "reason",
        "detail",
        "attempts",
        "compensation",
        "undoes",
        "run_id",
        "created_at",
        "settled_at",
    ),
    ("id",),
    schema(
        {
            "id": NUMBER,
            "campaign_id": NUMBER,
            "lead_id": NUMBER,
            "run_id": NUMBER,
            "name": TEXT,
            "source": TEXT,
            "state": TEXT,
            "created_at": MOMENT,
        }
    ),
    frozenset({"id", "campaign_id", "lead_id", "undoes", "run_id"}),
)
ESCALATIONS = Listing(
    "escalations",
    table_of(Escalation),
    same(
        "id",
        "level",
        "action",
        "action_id",
        "reason",
        "at",
        "acknowledged_at",
        "acknowledged_by",
        campaign_id="entity_id",
        from_id="from_user_id",
        to_id="to_user_id",
    ),
    ("id",),
    Schema.of(
        Field(name, kind, (column,))
        for name, column, kind in (
            ("id", "id", NUMBER),
            ("campaign_id", "entity_id", NUMBER),
            ("level", "level", NUMBER),
            ("at", "at", MOMENT),
            ("acknowledged_at", "acknowledged_at", MOMENT),
        )
    ),
    frozenset({"id", "campaign_id", "action_id", "from_id", "to_id"}),
)
