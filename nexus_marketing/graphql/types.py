"""The requirements' types, as far as there is something behind them."""

from typing import Any

import graphene
from graphene.types.generic import GenericScalar

from nexus_marketing.core.campaigns import CampaignStatus as Status

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

CampaignStatus = graphene.Enum("CampaignStatus", [(status.name, status.value) for status in Status])


class JSON(GenericScalar):
    """Any JSON value."""


class CampaignAnalytics(graphene.ObjectType):
    """What became of a campaign's recipients."""

    planned = graphene.Int(required=True)
    open = graphene.Int(required=True)
    accepted = graphene.Int(required=True)
    delivered = graphene.Int(required=True)
    failed = graphene.Int(required=True)
    unknown = graphene.Int(required=True)
    skipped = graphene.Field(JSON, required=True)
    opens = graphene.Field(JSON, required=True)
    clicks = graphene.Field(JSON, required=True)
    unsubscribes = graphene.Int(required=True)


class Segment(graphene.ObjectType):
    """An audience."""

    id = graphene.ID(required=True)
    name = graphene.String(required=True)
    conditions = graphene.Field(JSON)
    lead_count = graphene.Int(required=True)


class Lead(graphene.ObjectType):
    """A person; ``email`` is empty for those who are reached another way."""

    id = graphene.ID(required=True)
    email = graphene.String()
    name = graphene.String()
    score = graphene.Int(required=True, description="Rounded; REST has the exact number.")
    segments = graphene.List(graphene.NonNull(Segment), required=True)
    metadata = graphene.Field(JSON)

    @staticmethod
    def resolve_score(row: dict[str, Any], _info: Any) -> int:
        return round(row["score"])

    @staticmethod
    async def resolve_segments(row: dict[str, Any], info: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await info.context.loaders.segments_of_lead.load(int(row["id"]))
        return found


class Definition(graphene.ObjectType):
    """What campaigns are made from; ``version`` is the published one in force."""

    id = graphene.ID(required=True)
    code = graphene.String(required=True)
    name = graphene.String(required=True)
    schema = graphene.Field(JSON, required=True)
    active = graphene.Boolean(required=True)
    version = graphene.String()
    revision = graphene.Int(required=True)


class Campaign(graphene.ObjectType):
    """A message for an audience. ``budget`` is in major units of ``currency``."""

    id = graphene.ID(required=True)
    name = graphene.String(required=True)
    status = CampaignStatus(required=True)
    stage = graphene.String(required=True, description="The definition's own name for where it is.")
    status_reason = graphene.String()
    version = graphene.Int(required=True)
    definition_id = graphene.ID()
    definition_version = graphene.String()
    data = graphene.Field(JSON, required=True)
    starts_at = graphene.DateTime()
    started_at = graphene.DateTime()
    completed_at = graphene.DateTime()
    budget = graphene.Float()
    currency = graphene.String()
    leads = graphene.List(
        graphene.NonNull(Lead), required=True, limit=graphene.Int(), description="The audience as of now."
    )
    analytics = graphene.Field(CampaignAnalytics, required=True)

    @staticmethod
    async def resolve_leads(row: dict[str, Any], info: Any, limit: int = DEFAULT_LIMIT) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await info.context.leads_of_segment(row["segment_id"], limit)
        return found

    @staticmethod
    def resolve_analytics(row: dict[str, Any], info: Any) -> dict[str, Any]:
        found: dict[str, Any] = info.context.analytics(int(row["id"]))
        return found
