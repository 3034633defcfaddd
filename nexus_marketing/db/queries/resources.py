"""The listings of REST and GraphQL: what of each table may be seen, sorted by and filtered on."""

from collections.abc import Mapping

from sqlalchemy import bindparam, exists

from nexus_marketing.core.conditions import Field, FieldType, Schema, lead_schema
from nexus_marketing.db.models import (
    Campaign,
    CampaignDefinition,
    ChannelAccount,
    Engagement,
    EngagementAttachment,
    EngagementComment,
    Escalation,
    History,
    Journey,
    JourneyApproval,
    JourneyRun,
    Lead,
    LeadField,
    LeadImport,
    LeadImportProfile,
    Member,
    Score,
    Segment,
    SegmentChange,
    SegmentMember,
    TakenAction,
    Template,
)
from nexus_marketing.db.queries.listings import TENANT, Listing, table_of


def _same(*names: str, **others: str) -> dict[str, str]:
    return {name: name for name in names} | others


_N, _T, _D, _J = FieldType.NUMBER, FieldType.TEXT, FieldType.DATETIME, FieldType.JSON
_TIMES: Mapping[str, FieldType] = {"created_at": _D, "updated_at": _D}
_LEAD_FIELDS = _same(
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
    _same(
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
    Schema.of(Field(name, kind) for name, kind in {"id": _N, "name": _T, "type": _T, "version": _N, **_TIMES}.items()),
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
    _same(
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
    Schema.of(
        Field(name, kind)
        for name, kind in {"id": _N, "name": _T, "status": _T, "created_at": _D, "finished_at": _D}.items()
    ),
)
LEAD_IMPORT_PROFILES = Listing(
    "lead-import-profiles",
    table_of(LeadImportProfile),
    _same("id", "name", "options", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    Schema.of(Field(name, kind) for name, kind in {"id": _N, "name": _T, "version": _N, **_TIMES}.items()),
)
SEGMENTS = Listing(
    "segments",
    table_of(Segment),
    _same(
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
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "name": _T,
            "kind": _T,
            "lead_count": _N,
            "cost_class": _T,
            "as_of": _D,
            **_TIMES,
        }.items()
    ),
)
SCORES = Listing(
    "scores",
    table_of(Score),
    _same("id", "name", "description", "draft", "published", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    Schema.of(
        Field(name, kind) for name, kind in {"id": _N, "name": _T, "published": _N, "version": _N, **_TIMES}.items()
    ),
    visible=table_of(Score).c.removed_at.is_(None),
)
TEMPLATES = Listing(
    "templates",
    table_of(Template),
    _same("id", "name", "type", "content", "variables", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    Schema.of(Field(name, kind) for name, kind in {"id": _N, "name": _T, "type": _T, "version": _N, **_TIMES}.items()),
)
CHANNELS = Listing(
    "channels",
    table_of(ChannelAccount),
    _same(
        "id",
        "type",
        "name",
        "enabled",
        "config",
        "secrets_set",
        "weight",
        "rates",
        "health",
        "health_reason",
        "health_at",
        "version",
        "created_at",
        "updated_at",
    ),
    ("id", "type", "name", "created_at", "updated_at"),
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "type": _T,
            "name": _T,
            "enabled": FieldType.BOOLEAN,
            "health": _T,
            "weight": _N,
            "version": _N,
            **_TIMES,
        }.items()
    ),
)
DEFINITIONS = Listing(
    "definitions",
    table_of(CampaignDefinition),
    _same("id", "code", "name", "schema", "active", "version", "revision", "created_at", "updated_at"),
    ("id", "code", "name", "created_at", "updated_at"),
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "code": _T,
            "name": _T,
            "active": FieldType.BOOLEAN,
            "version": _T,
            "revision": _N,
            **_TIMES,
        }.items()
    ),
)
CAMPAIGNS = Listing(
    "campaigns",
    table_of(Campaign),
    _same(
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
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "name": _T,
            "status": _T,
            "stage": _T,
            "message_class": _T,
            "channel": _T,
            "segment_id": _N,
            "template_id": _N,
            "owner_id": _N,
            "subject_type": _T,
            "subject_id": _T,
            "campaign_key": _T,
            "external_id": _T,
            "definition_id": _N,
            "definition_version": _T,
            "currency": _T,
            "starts_at": _D,
            "started_at": _D,
            "completed_at": _D,
            "data": _J,
            **_TIMES,
        }.items()
    ),
    ids=frozenset({"id", "segment_id", "template_id", "owner_id", "definition_id"}),
    together={"budget": "currency"},
)
JOURNEYS = Listing(
    "journeys",
    table_of(Journey),
    _same("id", "name", "status", "draft", "published", "campaign_id", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    Schema.of(
        Field(name, kind)
        for name, kind in {"id": _N, "name": _T, "status": _T, "published": _N, "campaign_id": _N, **_TIMES}.items()
    ),
    ids=frozenset({"id", "campaign_id"}),
)
JOURNEY_RUNS = Listing(
    "journey_runs",
    table_of(JourneyRun),
    _same(
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
    Schema.of(
        Field(name, kind)
        for name, kind in {"id": _N, "lead_id": _N, "state": _T, "node": _T, "entered_at": _D, "reason": _T}.items()
    ),
    frozenset({"id", "lead_id"}),
    scope=table_of(JourneyRun).c.journey_id == bindparam("journey_id"),
)
JOURNEY_APPROVALS = Listing(
    "journey-approvals",
    table_of(JourneyApproval),
    _same("id", "journey_id", "run_id", "node", "asked", "asked_at", "due_at", "closed_at", "answer", "answered_by"),
    ("id", "asked_at"),
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "journey_id": _N,
            "run_id": _N,
            "node": _T,
            "asked": _T,
            "asked_at": _D,
            "due_at": _D,
            "closed_at": _D,
            "answer": _T,
        }.items()
    ),
    frozenset({"id", "journey_id", "run_id"}),
)
MEMBERS = Listing(
    "members",
    table_of(Member),
    _same("id", "name", "email", "role", "manager_id", "created_at"),
    ("id", "created_at"),
    Schema.of(Field(name, kind) for name, kind in {"id": _N, "role": _T, "manager_id": _N, "created_at": _D}.items()),
    ids=frozenset({"id", "manager_id"}),
)
ENGAGEMENTS = Listing(
    "engagements",
    table_of(Engagement),
    _same(
        "id", "type", "name", "lead_id", "campaign_id", "channel", "verdict", "link", "notes", "metadata", "tracked_at"
    ),
    ("id", "tracked_at"),
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "type": _T,
            "name": _T,
            "lead_id": _N,
            "campaign_id": _N,
            "channel": _T,
            "verdict": _T,
            "tracked_at": _D,
        }.items()
    ),
    ids=frozenset({"id", "lead_id", "campaign_id"}),
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
    _same("id", "lead_id", "change", "cause", "generation", "at"),
    ("id",),
    Schema.of(
        Field(name, kind)
        for name, kind in {"id": _N, "lead_id": _N, "change": _T, "cause": _T, "generation": _N, "at": _D}.items()
    ),
    frozenset({"id", "lead_id"}),
    scope=table_of(SegmentChange).c.segment_id == bindparam("segment_id"),
)
LEAD_ENGAGEMENTS = Listing(
    "lead_engagements",
    ENGAGEMENTS.table,
    ENGAGEMENTS.fields,
    ENGAGEMENTS.sorts,
    ENGAGEMENTS.schema,
    ENGAGEMENTS.ids,
    scope=ENGAGEMENTS.table.c.lead_id == bindparam("lead_id"),
    default_sort="tracked_at",
)
CAMPAIGN_ENGAGEMENTS = Listing(
    "campaign_engagements",
    ENGAGEMENTS.table,
    ENGAGEMENTS.fields,
    ENGAGEMENTS.sorts,
    ENGAGEMENTS.schema,
    ENGAGEMENTS.ids,
    scope=ENGAGEMENTS.table.c.campaign_id == bindparam("campaign_id"),
    default_sort="tracked_at",
)
CAMPAIGN_HISTORY = Listing(
    "campaign_history",
    table_of(History),
    _same("id", "version", "event", "before", "after", "actor", "at", metadata="payload"),
    ("id",),
    Schema.of(
        Field(name, kind) for name, kind in {"id": _N, "version": _N, "event": _T, "actor": _T, "at": _D}.items()
    ),
    scope=table_of(History).c.campaign_id == bindparam("campaign_id"),
)
ENGAGEMENT_COMMENTS = Listing(
    "engagement_comments",
    table_of(EngagementComment),
    _same("id", "author", "text", "created_at"),
    ("id",),
    Schema.of(Field(name, kind) for name, kind in {"author": _T, "created_at": _D}.items()),
    scope=table_of(EngagementComment).c.engagement_id == bindparam("engagement_id"),
)
ENGAGEMENT_ATTACHMENTS = Listing(
    "engagement_attachments",
    table_of(EngagementAttachment),
    _same("id", "name", "content_type", "size_bytes", "author", "created_at"),
    ("id",),
    Schema.of(Field(name, kind) for name, kind in {"author": _T, "content_type": _T, "created_at": _D}.items()),
    scope=table_of(EngagementAttachment).c.engagement_id == bindparam("engagement_id"),
)
ACTIONS = Listing(
    "actions",
    table_of(TakenAction),
    _same(
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
    Schema.of(
        Field(name, kind)
        for name, kind in {
            "id": _N,
            "campaign_id": _N,
            "lead_id": _N,
            "run_id": _N,
            "name": _T,
            "source": _T,
            "state": _T,
            "created_at": _D,
        }.items()
    ),
    frozenset({"id", "campaign_id", "lead_id", "undoes", "run_id"}),
)
ESCALATIONS = Listing(
    "escalations",
    table_of(Escalation),
    _same(
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
            ("id", "id", _N),
            ("campaign_id", "entity_id", _N),
            ("level", "level", _N),
            ("at", "at", _D),
            ("acknowledged_at", "acknowledged_at", _D),
        )
    ),
    frozenset({"id", "campaign_id", "action_id", "from_id", "to_id"}),
)
