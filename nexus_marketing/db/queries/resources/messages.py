"""What is sent, by what, and who is behind it."""

from nexus_marketing.core.conditions import FieldType
from nexus_marketing.db.models import ChannelAccount, Member, Template
from nexus_marketing.db.queries.listings import Listing, table_of
from nexus_marketing.db.queries.resources.words import MOMENT, NUMBER, TEXT, TIMES, same, schema

TEMPLATES = Listing(
    "templates",
    table_of(Template),
    same("id", "name", "type", "content", "variables", "version", "created_at", "updated_at"),
    ("id", "name", "created_at", "updated_at"),
    schema({"id": NUMBER, "name": TEXT, "type": TEXT, "version": NUMBER, **TIMES}),
)
CHANNELS = Listing(
    "channels",
    table_of(ChannelAccount),
    same(
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
    schema(
        {
            "id": NUMBER,
            "type": TEXT,
            "name": TEXT,
            "enabled": FieldType.BOOLEAN,
            "health": TEXT,
            "weight": NUMBER,
            "version": NUMBER,
            **TIMES,
        }
    ),
)
MEMBERS = Listing(
    "members",
    table_of(Member),
    same("id", "name", "email", "role", "manager_id", "created_at"),
    ("id", "created_at"),
    schema({"id": NUMBER, "role": TEXT, "manager_id": NUMBER, "created_at": MOMENT}),
    ids=frozenset({"id", "manager_id"}),
)
