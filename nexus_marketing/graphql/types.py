"""The requirements' types, as far as there is something behind them."""

from typing import Any

import graphene
from graphene.types.generic import GenericScalar

from nexus_marketing.core.campaigns import CampaignStatus as Status
from nexus_marketing.core.engagements import EngagementType as Type
from nexus_marketing.core.journeys.statuses import JourneyStatus as JourneyState
from nexus_marketing.core.journeys.statuses import ResumePolicy

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


EngagementType = graphene.Enum("EngagementType", [(each.name, each.value) for each in Type])


class Engagement(graphene.ObjectType):
    """What a lead did; ``name`` is a custom event's own."""

    id = graphene.ID(required=True)
    type = EngagementType(required=True)
    name = graphene.String()
    lead_id = graphene.ID(required=True)
    campaign_id = graphene.ID()
    channel = graphene.String()
    verdict = graphene.String(required=True, description="human, machine or unknown.")
    notes = graphene.String()
    metadata = graphene.Field(JSON)
    tracked_at = graphene.DateTime(required=True)


class Segment(graphene.ObjectType):
    """An audience."""

    id = graphene.ID(required=True)
    name = graphene.String(required=True)
    conditions = graphene.Field(JSON)
    lead_count = graphene.Int(required=True)


class LeadScore(graphene.ObjectType):
    """A score of a lead; ``version`` is that of the rules by which it was computed."""

    name = graphene.String(required=True)
    value = graphene.Float(required=True)
    version = graphene.Int(required=True)
    computed_at = graphene.DateTime()
    next_change_at = graphene.DateTime()


class Lead(graphene.ObjectType):
    """A person; ``email`` is empty for those who are reached another way."""

    id = graphene.ID(required=True)
    email = graphene.String()
    name = graphene.String()
    first_name = graphene.String()
    last_name = graphene.String()
    external_id = graphene.String()
    phone = graphene.String(description="In E.164.")
    country = graphene.String()
    locale = graphene.String()
    time_zone = graphene.String()
    tags = graphene.List(graphene.NonNull(graphene.String), required=True)
    owner_id = graphene.ID(description="The member who looks after this lead.")
    version = graphene.Int(required=True)
    created_at = graphene.DateTime(required=True)
    updated_at = graphene.DateTime(required=True)
    score = graphene.Int(required=True, description="Rounded; REST has the exact number.")
    scores = graphene.List(graphene.NonNull(LeadScore), required=True, description="Its own comes first.")
    segments = graphene.List(graphene.NonNull(Segment), required=True)
    engagements = graphene.List(
        graphene.NonNull(Engagement), required=True, type=EngagementType(), limit=graphene.Int()
    )
    metadata = graphene.Field(JSON)

    @staticmethod
    async def resolve_engagements(
        row: dict[str, Any],
        info: Any,
        type: Any = None,  # noqa: A002 - the schema's name
        limit: int = DEFAULT_LIMIT,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await info.context.engagements("lead_id", int(row["id"]), type, limit)
        return found

    @staticmethod
    def resolve_score(row: dict[str, Any], _info: Any) -> int:
        return round(row["score"])

    @staticmethod
    async def resolve_scores(row: dict[str, Any], info: Any) -> list[Any]:
        found: list[Any] = await info.context.loaders.scores_of_lead.load(int(row["id"]))
        return found

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


JourneyStatus = graphene.Enum("JourneyStatus", [(each.name, each.value) for each in JourneyState])
ResumePolicyName = graphene.Enum("ResumePolicy", [(each.name, each.value) for each in ResumePolicy])


class Journey(graphene.ObjectType):
    """A journey: ``published`` is the number of the version in force."""

    id = graphene.ID(required=True)
    name = graphene.String(required=True)
    status = JourneyStatus(required=True)
    draft = graphene.Field(JSON, required=True)
    published = graphene.Int()
    campaign_id = graphene.ID(description="Under which its messages are sent and counted.")
    version = graphene.Int(required=True)
    created_at = graphene.DateTime(required=True)
    updated_at = graphene.DateTime(required=True)


class JourneyRun(graphene.ObjectType):
    """A lead's passage through a version of a journey."""

    id = graphene.ID(required=True)
    lead_id = graphene.ID(required=True)
    version = graphene.Int(required=True)
    sequence = graphene.Int(required=True)
    state = graphene.String(required=True)
    node = graphene.String(required=True)
    wake_at = graphene.DateTime()
    entered_at = graphene.DateTime(required=True)
    ended_at = graphene.DateTime()
    reason = graphene.String()


class JourneyRevival(graphene.ObjectType):
    """Runs that failed at one node for one reason, and what becomes of them: ``revived``, or why not."""

    version = graphene.Int(required=True)
    node = graphene.String(required=True)
    reason = graphene.String(required=True)
    runs = graphene.Int(required=True)
    what = graphene.String(required=True)


class JourneyEntry(graphene.ObjectType):
    """What became of a lead that was to come in: ``entered`` with the run, else the reason of the refusal."""

    lead_id = graphene.ID(required=True)
    outcome = graphene.String(required=True)
    run_id = graphene.ID()


class Campaign(graphene.ObjectType):
    """A message for an audience. ``budget`` is in major units of ``currency``."""

    id = graphene.ID(required=True)
    name = graphene.String(required=True)
    status = CampaignStatus(required=True)
    stage = graphene.String(required=True, description="The definition's own name for where it is.")
    status_reason = graphene.String()
    channel = graphene.String(required=True)
    channels = graphene.Field(JSON, description="Where it goes out by several at once: the template of each.")
    wait_for = graphene.String(required=True, description="How many of them have to be through: all, any, or a number.")
    recurrence = graphene.Field(JSON)
    send_rates = graphene.List(graphene.NonNull(JSON), description="How fast each of its sends may be.")
    next_run_at = graphene.DateTime(description="When a recurring campaign is sent next.")
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
    engagements = graphene.List(
        graphene.NonNull(Engagement),
        required=True,
        type=EngagementType(),
        limit=graphene.Int(),
        description="The newest.",
    )
    analytics = graphene.Field(CampaignAnalytics, required=True)

    @staticmethod
    async def resolve_engagements(
        row: dict[str, Any],
        info: Any,
        type: Any = None,  # noqa: A002 - the schema's name
        limit: int = DEFAULT_LIMIT,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await info.context.engagements("campaign_id", int(row["id"]), type, limit)
        return found

    @staticmethod
    async def resolve_leads(row: dict[str, Any], info: Any, limit: int = DEFAULT_LIMIT) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await info.context.leads_of_segment(row["segment_id"], limit)
        return found

    @staticmethod
    def resolve_analytics(row: dict[str, Any], info: Any) -> dict[str, Any]:
        found: dict[str, Any] = info.context.analytics(int(row["id"]))
        return found
