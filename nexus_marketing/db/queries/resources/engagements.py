"""What people did, and what was said about it."""

from sqlalchemy import bindparam

from nexus_marketing.db.models import Engagement, EngagementAttachment, EngagementComment
from nexus_marketing.db.queries.listings import Listing, table_of
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, same, schema

ENGAGEMENTS = Listing(
    "engagements",
    table_of(Engagement),
    same(
        "id", "type", "name", "lead_id", "campaign_id", "channel", "verdict", "link", "notes", "metadata", "tracked_at"
    ),
    ("id", "tracked_at"),
    schema(
        {
            "id": NUMBER,
            "type": TEXT,
            "name": TEXT,
            "lead_id": NUMBER,
            "campaign_id": NUMBER,
            "channel": TEXT,
            "verdict": TEXT,
            "tracked_at": MOMENT,
        }
    ),
    ids=frozenset({"id", "lead_id", "campaign_id"}),
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
ENGAGEMENT_COMMENTS = Listing(
    "engagement_comments",
    table_of(EngagementComment),
    same("id", "author", "text", "created_at"),
    ("id",),
    schema({"author": TEXT, "created_at": MOMENT}),
    scope=table_of(EngagementComment).c.engagement_id == bindparam("engagement_id"),
)
ENGAGEMENT_ATTACHMENTS = Listing(
    "engagement_attachments",
    table_of(EngagementAttachment),
    same("id", "name", "content_type", "size_bytes", "author", "created_at"),
    ("id",),
    schema({"author": TEXT, "content_type": TEXT, "created_at": MOMENT}),
    scope=table_of(EngagementAttachment).c.engagement_id == bindparam("engagement_id"),
)
