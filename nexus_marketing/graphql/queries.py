"""What can be asked."""

from dataclasses import replace
from typing import Any

import graphene

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.errors import NotFound, ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.journeys import RunState
from nexus_marketing.core.money import major_units
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries.listings import Listing, page, read_wish
from nexus_marketing.db.queries.resources.campaigns import CAMPAIGNS, DEFINITIONS
from nexus_marketing.db.queries.resources.journeys import JOURNEY_RUNS, JOURNEYS
from nexus_marketing.db.queries.resources.leads import LEADS
from nexus_marketing.db.queries.resources.segments import SEGMENT_LEADS
from nexus_marketing.db.tenancy import find
from nexus_marketing.graphql.loaders import GraphContext, check_limit
from nexus_marketing.graphql.types import (
    DEFAULT_LIMIT,
    Campaign,
    CampaignStatus,
    Definition,
    Journey,
    JourneyRun,
    JourneyStatus,
    Lead,
)

_MAX_OFFSET = 10_000
Document = dict[str, Any]


class Query(graphene.ObjectType):
    """Reads; lists hold at most 100."""

    campaigns = graphene.List(
        graphene.NonNull(Campaign),
        required=True,
        status=CampaignStatus(),
        limit=graphene.Int(),
        offset=graphene.Int(),
    )
    campaign = graphene.Field(Campaign, id=graphene.ID(required=True))
    definitions = graphene.List(
        graphene.NonNull(Definition), required=True, limit=graphene.Int(), offset=graphene.Int()
    )
    definition = graphene.Field(Definition, id=graphene.ID(required=True))
    leads = graphene.List(
        graphene.NonNull(Lead),
        required=True,
        segment=graphene.ID(),
        score=graphene.Int(description="At least this score."),
        limit=graphene.Int(),
        offset=graphene.Int(),
    )
    lead = graphene.Field(Lead, id=graphene.ID(required=True))
    journeys = graphene.List(
        graphene.NonNull(Journey),
        required=True,
        status=JourneyStatus(),
        limit=graphene.Int(),
        offset=graphene.Int(),
    )
    journey = graphene.Field(Journey, id=graphene.ID(required=True))
    journey_runs = graphene.List(
        graphene.NonNull(JourneyRun),
        required=True,
        journey=graphene.ID(required=True),
        state=graphene.String(description="Such as waiting or failed."),
        limit=graphene.Int(),
        offset=graphene.Int(),
    )

    @staticmethod
    def resolve_campaigns(
        _root: Any, info: Any, status: Any = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> list[Document]:
        filter_text = f"status == '{status.value}'" if status is not None else ""
        return [as_campaign(row) for row in _page(info.context, CAMPAIGNS, limit, offset, filter_text)]

    @staticmethod
    def resolve_campaign(_root: Any, info: Any, id: str) -> Document | None:  # noqa: A002 - the schema's name
        found = _one(info.context, CAMPAIGNS, id)
        return None if found is None else as_campaign(found)

    @staticmethod
    def resolve_definitions(_root: Any, info: Any, limit: int = DEFAULT_LIMIT, offset: int = 0) -> list[Document]:
        return _page(info.context, DEFINITIONS, limit, offset, "")

    @staticmethod
    def resolve_definition(_root: Any, info: Any, id: str) -> Document | None:  # noqa: A002 - the schema's name
        return _one(info.context, DEFINITIONS, id)

    @staticmethod
    def resolve_leads(
        _root: Any,
        info: Any,
        segment: str | None = None,
        score: int | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> list[Document]:
        filter_text = f"score >= {score}" if score is not None else ""
        if segment is None:
            return _page(info.context, LEADS, limit, offset, filter_text)
        segment_id = find(info.context.nexus.session, Segment, parse_id(segment, "segment")).id
        return _page(info.context, SEGMENT_LEADS, limit, offset, filter_text, segment_id=segment_id)

    @staticmethod
    def resolve_lead(_root: Any, info: Any, id: str) -> Document | None:  # noqa: A002 - the schema's name
        return _one(info.context, LEADS, id)

    @staticmethod
    def resolve_journeys(
        _root: Any, info: Any, status: Any = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> list[Document]:
        filter_text = f"status == '{status.value}'" if status is not None else ""
        return _page(info.context, JOURNEYS, limit, offset, filter_text)

    @staticmethod
    def resolve_journey(_root: Any, info: Any, id: str) -> Document | None:  # noqa: A002 - the schema's name
        return _one(info.context, JOURNEYS, id)

    @staticmethod
    def resolve_journey_runs(
        _root: Any, info: Any, journey: str, state: str | None = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> list[Document]:
        journey_id = find(info.context.nexus.session, JourneyRow, parse_id(journey, "journey")).id
        if state is not None and state not in RunState.__members__.values():
            raise ValidationError.at("state", "unknown_choice", f"{state!r} is none of {', '.join(RunState)}.")
        filter_text = f"state == '{state}'" if state is not None else ""
        return _page(info.context, JOURNEY_RUNS, limit, offset, filter_text, journey_id=journey_id)


def as_campaign(row: Document) -> Document:
    """A listed campaign with its money in major units."""
    amount = major_units(row["budget"], row["currency"])
    return {**row, "budget": None if amount is None else float(amount), "stage": row["stage"] or row["status"]}


def _page(
    context: GraphContext, listing: Listing, limit: int, offset: int, filter_text: str, **scope: int
) -> list[Document]:
    if not 0 <= offset <= _MAX_OFFSET:
        raise ValidationError.at("offset", "out_of_bounds", f"offset is between 0 and {_MAX_OFFSET}.")
    wish = read_wish(listing, limit=check_limit(limit), filter_text=filter_text)
    wish = replace(wish, offset=offset, parameters=scope)
    nexus = context.nexus
    return page(nexus.session, listing, wish, Evaluation(nexus.now)).documents()


def _one(context: GraphContext, listing: Listing, id_: str) -> Document | None:
    """The row with this id; ``None`` for one that is foreign, unknown or no id at all."""
    try:
        number = parse_id(id_)
    except NotFound:
        return None
    found = _page(context, listing, 1, 0, f"id == {number}")
    return found[0] if found else None
