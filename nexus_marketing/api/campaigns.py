"""``/api/v1/campaigns``."""

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_document, read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import campaigns as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.campaigns import CampaignAction
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.money import major_units
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.promotion import read_kept
from nexus_marketing.core.values import parse_datetime
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.resources.campaigns import CAMPAIGN_HISTORY, CAMPAIGNS
from nexus_marketing.db.queries.resources.engagements import CAMPAIGN_ENGAGEMENTS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services import reactions
from nexus_marketing.services.actions import compensation
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.campaigns import moving, promotion, records, runs
from nexus_marketing.services.campaigns.forms import form_of
from nexus_marketing.services.campaigns.preflights import check_preflight

_PATH = "/api/v1/campaigns"


def includeme(config: Configurator) -> None:
    """The routes of campaigns."""
    read, write, launch = Permission.CAMPAIGNS_READ, Permission.CAMPAIGNS_WRITE, Permission.CAMPAIGNS_LAUNCH
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_campaigns, permission=read)
    config.add_api_route("POST", _PATH, writes(create_campaign), permission=write)
    config.add_api_route("POST", f"{_PATH}/promote", writes(promote_campaigns), permission=launch)
    config.add_api_route("GET", one, shows(Campaign, "campaign", campaign_document), permission=read)
    config.add_api_route("PATCH", one, writes(update_campaign), permission=write)
    config.add_api_route("DELETE", one, writes(_acts(CampaignAction.CANCEL)), permission=write)
    config.add_api_route("POST", f"{one}/launch", writes(launch_campaign), permission=launch)
    for action in CampaignAction:
        if action is CampaignAction.LAUNCH:
            continue
        config.add_api_route("POST", f"{one}/{action}", writes(_acts(action)), permission=launch)
    config.add_api_route("POST", f"{one}/moves", writes(move_campaign), permission=launch)
    config.add_api_route("POST", f"{one}/fail", writes(fail_campaign), permission=launch)
    config.add_api_route("PUT", f"{one}/next-run", writes(move_next_run), permission=launch)
    config.add_api_route("GET", f"{one}/history", list_history, permission=read)
    config.add_api_route("GET", f"{one}/engagements", list_engagements, permission=Permission.ENGAGEMENTS_READ)
    config.add_api_route("GET", f"{one}/reactions", list_reactions, permission=Permission.ENGAGEMENTS_READ)
    config.add_api_route("POST", f"{one}/reactions", writes(read_reactions), permission=Permission.ENGAGEMENTS_WRITE)
    config.add_api_route("GET", f"{one}/analytics", show_analytics, permission=read)


def campaign_document(campaign: Campaign) -> Document:
    """A campaign as the API shows it: money in major units."""
    document = document_of(campaign, CAMPAIGNS.fields, CAMPAIGNS.ids)
    document["budget"] = major_units(campaign.budget_minor, campaign.currency)
    return document


def list_campaigns(request: Request) -> Response:
    return respond_page(request, CAMPAIGNS, rendering=_with_money)


def create_campaign(request: Request) -> Reply:
    data = read_document(request)
    form_of(data).check(data, schemas.READ_ONLY)
    return created(campaign_document(records.create_campaign(request.nexus, data)), _PATH)


def update_campaign(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    campaign = records.update_campaign(request.nexus, path_id(request, "campaign"), data, expected_version=version)
    return changed(campaign_document(campaign), _PATH)


def show_analytics(request: Request) -> Response:
    return show(campaign_analytics(request.nexus, path_id(request, "campaign")))


def promote_campaigns(request: Request) -> Reply:
    """Campaigns that a program's objects kept themselves; 200 whether they were new or not."""
    data = read_object(request, schemas.PROMOTE)
    kept = [read_kept(each, f"campaigns.{index}") for index, each in enumerate(data["campaigns"])]
    return Reply(promotion.promote_campaigns(request.nexus, kept))


def list_history(request: Request) -> Response:
    campaign = find(request.nexus.session, Campaign, path_id(request, "campaign"))
    return respond_page(request, CAMPAIGN_HISTORY, scope={"campaign_id": campaign.id})


def list_engagements(request: Request) -> Response:
    campaign = find(request.nexus.session, Campaign, path_id(request, "campaign"))
    return respond_page(request, CAMPAIGN_ENGAGEMENTS, scope={"campaign_id": campaign.id}, searchable=True)


def list_reactions(request: Request) -> Response:
    """What was last seen of the campaign's posts, at most 100; nobody is asked for it."""
    return show(_all_of(reactions.seen_reactions(request.nexus, path_id(request, "campaign"))))


def read_reactions(request: Request) -> Reply:
    """202: a worker looks at the posts; the body says what was seen before."""
    return Reply(_all_of(reactions.ask_again(request.nexus, path_id(request, "campaign"))), 202)


def _all_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": rows, "has_more": False, "next": None}


def move_campaign(request: Request) -> Reply:
    """Any move of the campaign's definition, by name."""
    data = read_object(request, schemas.MOVE)
    return _move(request, data.pop("action"), data)


def launch_campaign(request: Request) -> Reply:
    """With ``preflight_id`` only as it was looked at; ``tolerance`` is by how many percent the audience may have changed."""
    data = read_object(request, schemas.LAUNCH) if request.content_length else {}
    seen = parse_id(data["preflight_id"], "pre-flight") if "preflight_id" in data else None
    check_preflight(request.nexus, path_id(request, "campaign"), seen, data.get("tolerance"))
    return _move(request, CampaignAction.LAUNCH, data)


def fail_campaign(request: Request) -> Reply:
    """It failed: nothing more of it is done, and what it did is taken back where its definition says how."""
    data = read_object(request, schemas.FAIL)
    version = expected_version(request, data)
    campaign = compensation.fail_campaign(
        request.nexus, path_id(request, "campaign"), data["reason"], expected_version=version
    )
    return changed(campaign_document(campaign), _PATH)


def move_next_run(request: Request) -> Reply:
    """``at`` is when a recurring campaign is sent next; ``null`` leaves the next run out."""
    data = read_object(request, schemas.NEXT_RUN)
    at = None if data["at"] is None else parse_datetime(data["at"], "at")
    version = expected_version(request, data)
    campaign = runs.move_next_run(request.nexus, path_id(request, "campaign"), at, expected_version=version)
    return changed(campaign_document(campaign), _PATH)


def _acts(action: CampaignAction) -> Callable[[Request], Reply]:
    """A move that every campaign has; the version it is meant for, and a reason, may be given."""

    def change(request: Request) -> Reply:
        return _move(request, action, read_object(request, schemas.ACTION) if request.content_length else {})

    return change


def _move(request: Request, action: str, data: dict[str, Any]) -> Reply:
    version = expected_version(request, data)
    campaign = moving.move_campaign(
        request.nexus, path_id(request, "campaign"), action, expected_version=version, reason=data.get("reason")
    )
    return changed(campaign_document(campaign), _PATH)


def _with_money(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for document in documents:
        if "budget" in document:
            # The listing brings the currency along whenever the budget is asked for.
            document["budget"] = major_units(document["budget"], document["currency"])
    return documents
