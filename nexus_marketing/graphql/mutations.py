"""What can be done."""

from typing import Any

import graphene

from nexus_marketing.core.ids import parse_id
from nexus_marketing.graphql.queries import Query
from nexus_marketing.graphql.types import Campaign
from nexus_marketing.services.campaigns import launch_campaign


class Mutation(graphene.ObjectType):
    """Each mutation of a request is committed with the others or not at all."""

    launch_campaign = graphene.Field(Campaign, required=True, id=graphene.ID(required=True))

    @staticmethod
    def resolve_launch_campaign(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        campaign = launch_campaign(info.context.nexus, parse_id(id, "campaign"))
        return Query.resolve_campaign(None, info, str(campaign.id))
