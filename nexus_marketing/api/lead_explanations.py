"""``/api/v1/leads/{id}/explanation``: what became of a lead in a campaign, and why."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.pages import read_query
from nexus_marketing.api.replies import show
from nexus_marketing.api.resources import path_id
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Campaign, Lead
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.explanations import explain_lead


def includeme(config: Configurator) -> None:
    """The route of explanations."""
    config.add_api_route("GET", "/api/v1/leads/{id}/explanation", explain, permission=Permission.LEADS_READ)


def explain(request: Request) -> Response:
    """``?campaign_id=``: a sentence, and every delivery with its state, reason and times."""
    session = request.nexus.session
    lead = find(session, Lead, path_id(request, "lead"))
    asked = read_query(request, ("campaign_id",)).get("campaign_id")
    if not asked:
        raise ValidationError.at("campaign_id", "required", "Name the campaign: ?campaign_id=…")
    campaign = find(session, Campaign, parse_id(asked, "campaign"))
    return show(explain_lead(request.nexus, lead.id, campaign.id))
