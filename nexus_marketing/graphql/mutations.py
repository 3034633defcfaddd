"""What can be done."""

from collections.abc import Mapping
from typing import Any

import graphene

from nexus_marketing.core.campaigns import CampaignAction, MessageClass
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.journeys.statuses import JourneyMove, ResumePolicy
from nexus_marketing.core.schemas import Schema, check
from nexus_marketing.graphql.queries import Query
from nexus_marketing.graphql.types import (
    JSON,
    Campaign,
    Definition,
    Journey,
    JourneyEntry,
    JourneyRevival,
    ResumePolicyName,
)
from nexus_marketing.services.campaigns.forms import form_of
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.preflights import check_preflight
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.journeys.entries import MOST_LEADS, enter_leads
from nexus_marketing.services.journeys.patching import patch_journey
from nexus_marketing.services.journeys.records import create_journey, move_journey, publish_journey
from nexus_marketing.services.journeys.reviving import revive_runs

CREATE_JOURNEY: Schema = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200, "required": True},
    "draft": {"type": "dict", "required": True},
}
MessageClassName = graphene.Enum("MessageClass", [(each.name, each.value) for each in MessageClass])


class CreateCampaignInput(graphene.InputObjectType):
    """A campaign to be; ``name`` may be left out where a definition gives it."""

    name = graphene.String()
    definition_id = graphene.ID()
    definition_version = graphene.String(description="The one in force where it is left out.")
    data = graphene.Field(JSON, description="Held against the definition's dataSchema.")
    message_class = MessageClassName()
    channel = graphene.String()
    channels = graphene.Field(
        JSON, description='Several at once, each with its template: {"sms": {"template_id": "7"}}.'
    )
    wait_for = graphene.String(description="How many of them have to be through: all, any, or a number.")
    recurrence = graphene.Field(
        JSON, description='Sent again and again: {"cron": "0 9 * * mon", "time_zone": "Europe/Berlin", "count": 12}.'
    )
    send_rates = graphene.List(
        graphene.NonNull(JSON), description='How fast each of its sends may be: [{"count": 100, "per": "1 minute"}].'
    )
    local_start = graphene.String(description="YYYY-MM-DDThh:mm by the clock of each lead.")
    priority = graphene.Int(description="Who goes first where two are due for the same lead: 0 to 100, the higher.")
    obeys_caps = graphene.Boolean()
    counts_toward_caps = graphene.Boolean()
    segment_id = graphene.ID()
    template_id = graphene.ID()
    subject_type = graphene.String()
    subject_id = graphene.String()
    budget = graphene.String(description="In major units of the currency, such as 1000.00.")
    currency = graphene.String()


class EnterJourneyInput(graphene.InputObjectType):
    """Who comes into which journey: at most 200 leads."""

    journey_id = graphene.ID(required=True)
    lead_ids = graphene.List(graphene.NonNull(graphene.ID), required=True)


class ReviveJourneyInput(graphene.InputObjectType):
    """Which of a journey's runs that failed, and why; all of them where nothing is chosen."""

    journey_id = graphene.ID(required=True)
    node = graphene.String()
    reason = graphene.String()
    run_ids = graphene.List(graphene.NonNull(graphene.ID))
    why = graphene.String(description="What their history says; only a dry run does without.")
    dry_run = graphene.Boolean()


class Mutation(graphene.ObjectType):
    """Each mutation of a request is committed with the others or not at all."""

    create_campaign = graphene.Field(Campaign, required=True, input=CreateCampaignInput(required=True))
    launch_campaign = graphene.Field(
        Campaign,
        required=True,
        id=graphene.ID(required=True),
        preflight_id=graphene.ID(description="Only as this pre-flight saw it."),
        tolerance=graphene.Float(description="By how many percent the audience may have changed since; 5 if left out."),
    )
    pause_campaign = graphene.Field(Campaign, required=True, id=graphene.ID(required=True), reason=graphene.String())
    move_campaign = graphene.Field(
        Campaign,
        required=True,
        description="Any move of the campaign's definition: resume, complete, cancel, start, or one of its own.",
        id=graphene.ID(required=True),
        action=graphene.String(required=True),
        reason=graphene.String(),
        version=graphene.Int(description="The version it is meant for; another one is a conflict."),
    )
    create_definition = graphene.Field(Definition, required=True, schema=graphene.Argument(JSON, required=True))
    publish_definition = graphene.Field(Definition, required=True, id=graphene.ID(required=True))
    create_journey = graphene.Field(
        Journey, required=True, name=graphene.String(required=True), draft=graphene.Argument(JSON, required=True)
    )
    publish_journey = graphene.Field(Journey, required=True, id=graphene.ID(required=True))
    pause_journey = graphene.Field(Journey, required=True, id=graphene.ID(required=True))
    resume_journey = graphene.Field(
        Journey,
        required=True,
        id=graphene.ID(required=True),
        policy=ResumePolicyName(description="What becomes of what was due meanwhile: CATCH_UP if left out."),
    )
    drain_journey = graphene.Field(Journey, required=True, id=graphene.ID(required=True))
    patch_journey = graphene.Field(
        Journey,
        required=True,
        description="Put other words of the draft in force for those on their way too.",
        id=graphene.ID(required=True),
    )
    revive_journey = graphene.List(
        graphene.NonNull(JourneyRevival),
        required=True,
        description="Put runs that failed back where they stood: what becomes of how many.",
        input=ReviveJourneyInput(required=True),
    )
    stop_journey = graphene.Field(
        Journey,
        required=True,
        id=graphene.ID(required=True),
        compensate=graphene.Boolean(description="Take back what its runs did, where its nodes say how."),
    )
    enter_journey = graphene.List(
        graphene.NonNull(JourneyEntry),
        required=True,
        description="An answer for each of the leads.",
        input=EnterJourneyInput(required=True),
    )

    @staticmethod
    def resolve_create_campaign(_root: Any, info: Any, input: Mapping[str, Any]) -> Any:  # noqa: A002 - the schema's name
        data = {name: value for name, value in input.items() if value is not None}
        if "message_class" in data:
            data["message_class"] = data["message_class"].value
        form_of(data).check(data, path="input")
        campaign = create_campaign(info.context.nexus, data)
        return Query.resolve_campaign(None, info, str(campaign.id))

    @staticmethod
    def resolve_launch_campaign(
        _root: Any,
        info: Any,
        id: str,  # noqa: A002 - the schema's name
        preflight_id: str | None = None,
        tolerance: float | None = None,
    ) -> Any:
        seen = None if preflight_id is None else parse_id(preflight_id, "pre-flight")
        check_preflight(info.context.nexus, parse_id(id, "campaign"), seen, tolerance)
        return _move(info, id, CampaignAction.LAUNCH)

    @staticmethod
    def resolve_pause_campaign(_root: Any, info: Any, id: str, reason: str | None = None) -> Any:  # noqa: A002 - the schema's name
        return _move(info, id, CampaignAction.PAUSE, reason)

    @staticmethod
    def resolve_move_campaign(
        _root: Any,
        info: Any,
        id: str,  # noqa: A002 - the schema's name
        action: str,
        reason: str | None = None,
        version: int | None = None,
    ) -> Any:
        return _move(info, id, action, reason, version)

    @staticmethod
    def resolve_create_definition(_root: Any, info: Any, schema: Any) -> Any:
        definition = create_definition(info.context.nexus, {"schema": schema})
        return Query.resolve_definition(None, info, str(definition.id))

    @staticmethod
    def resolve_publish_definition(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        definition = publish_definition(info.context.nexus, parse_id(id, "definition"))
        return Query.resolve_definition(None, info, str(definition.id))

    @staticmethod
    def resolve_create_journey(_root: Any, info: Any, name: str, draft: Any) -> Any:
        check({"name": name, "draft": draft}, CREATE_JOURNEY)
        return _journey(info, create_journey(info.context.nexus, {"name": name, "draft": draft}).id)

    @staticmethod
    def resolve_publish_journey(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        return _journey(info, publish_journey(info.context.nexus, parse_id(id, "journey")).id)

    @staticmethod
    def resolve_pause_journey(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        return _move_journey(info, id, JourneyMove.PAUSE)

    @staticmethod
    def resolve_resume_journey(_root: Any, info: Any, id: str, policy: Any = None) -> Any:  # noqa: A002 - the schema's name
        chosen = ResumePolicy.CATCH_UP if policy is None else ResumePolicy(policy.value)
        return _move_journey(info, id, JourneyMove.RESUME, chosen)

    @staticmethod
    def resolve_drain_journey(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        return _move_journey(info, id, JourneyMove.DRAIN)

    @staticmethod
    def resolve_stop_journey(_root: Any, info: Any, id: str, compensate: bool | None = None) -> Any:  # noqa: A002, FBT001 - the schema's
        nexus, number = info.context.nexus, parse_id(id, "journey")
        return _journey(info, move_journey(nexus, number, JourneyMove.STOP, compensate=bool(compensate)).id)

    @staticmethod
    def resolve_patch_journey(_root: Any, info: Any, id: str) -> Any:  # noqa: A002 - the schema's name
        number = parse_id(id, "journey")
        patch_journey(info.context.nexus, number)
        return _journey(info, number)

    @staticmethod
    def resolve_revive_journey(_root: Any, info: Any, input: Mapping[str, Any]) -> Any:  # noqa: A002 - the schema's name
        wish = {name: value for name, value in input.items() if value is not None}
        if len(wish.get("run_ids", ())) > MOST_LEADS:
            said = f"{len(wish['run_ids'])} runs are too many to name: name at most {MOST_LEADS}, or a reason."
            raise ValidationError.at("input.runIds", "too_many", said)
        return revive_runs(info.context.nexus, parse_id(input["journey_id"], "journey"), wish)["nodes"]

    @staticmethod
    def resolve_enter_journey(_root: Any, info: Any, input: Mapping[str, Any]) -> Any:  # noqa: A002 - the schema's name
        lead_ids = input["lead_ids"]
        if len(lead_ids) > MOST_LEADS:
            said = f"{len(lead_ids)} leads are too many for one call: name at most {MOST_LEADS}."
            raise ValidationError.at("input.leadIds", "too_many", said)
        journey_id = parse_id(input["journey_id"], "journey")
        numbers = [parse_id(each, "lead") for each in lead_ids]
        return [each._asdict() for each in enter_leads(info.context.nexus, journey_id, numbers)]


def _move_journey(info: Any, id_: str, move: JourneyMove, policy: ResumePolicy = ResumePolicy.CATCH_UP) -> Any:
    return _journey(info, move_journey(info.context.nexus, parse_id(id_, "journey"), move, policy=policy).id)


def _journey(info: Any, journey_id: int) -> Any:
    info.context.nexus.session.flush()
    return Query.resolve_journey(None, info, str(journey_id))


def _move(info: Any, id_: str, action: str, reason: str | None = None, version: int | None = None) -> Any:
    number = parse_id(id_, "campaign")
    campaign = move_campaign(info.context.nexus, number, action, expected_version=version, reason=reason)
    return Query.resolve_campaign(None, info, str(campaign.id))
