"""``/api/v1/campaigns/{id}/dead-letters``: what could not be handed over, or of which nobody knows."""

from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import RowMapping

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import asked_limit, bound_to, make_cursor, read_cursor, read_query
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, path_id
from nexus_marketing.api.schemas import campaigns as schemas
from nexus_marketing.api.writes import writes
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Campaign, Lead
from nexus_marketing.db.queries.dead_letters import Chosen, dead_letters
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.dead_letters import AT_ONCE, accept_unknown, replay_dead_letters

_PATH = "/api/v1/campaigns/{id}/dead-letters"
_IDS = ("send_id", "lead_id", "template_id")


def includeme(config: Configurator) -> None:
    """The routes of dead letters."""
    launch = Permission.CAMPAIGNS_LAUNCH
    config.add_api_route("GET", _PATH, list_dead_letters, permission=Permission.CAMPAIGNS_READ)
    config.add_api_route("POST", f"{_PATH}/replay", writes(replay), permission=launch)
    config.add_api_route("POST", f"{_PATH}/accept", writes(accept), permission=launch)


def list_dead_letters(request: Request) -> Response:
    """``?state=failed`` (default) or ``unknown``, ``?reason=``; oldest send first."""
    campaign = find(request.nexus.session, Campaign, path_id(request, "campaign"))
    query = read_query(request, ("state", "reason", "cursor", "limit"))
    state, reason = query.get("state") or DeliveryState.FAILED, query.get("reason", "")
    if state not in schemas.DEAD:
        raise ValidationError.at("state", "not_allowed", f"{state[:40]!r} is none of {', '.join(schemas.DEAD)}.")
    keys = request.registry["nexus.runtime"].keys
    bound = bound_to(request.identity.tenant_id, "dead-letters", str(campaign.id), state, reason)
    after = read_cursor(keys, query["cursor"], bound) if "cursor" in query else (0, 0)
    limit = asked_limit(query)
    chosen = Chosen(campaign.id, state, (reason,) if reason else ())
    rows = dead_letters(request.nexus.session, chosen, (after[0], after[1]), limit + 1)
    has_more = len(rows) > limit
    last = rows[limit - 1] if has_more else None
    next_page = None if last is None else make_cursor(keys, [last["send_id"], last["seq"]], bound)
    return show({"data": [_document(row) for row in rows[:limit]], "has_more": has_more, "next": next_page})


def replay(request: Request) -> Reply:
    """Through the whole gate again; ``has_more`` where one call was not enough."""
    data = read_object(request, schemas.REPLAY)
    moved = replay_dead_letters(
        request.nexus,
        path_id(request, "campaign"),
        DeliveryState(data.get("state", DeliveryState.FAILED)),
        reason=data.get("reason"),
        lead_id=_lead_id(request, data),
    )
    return Reply({"replayed": moved, "has_more": moved == AT_ONCE}, 202)


def accept(request: Request) -> Reply:
    """Those of which nobody knows count as accepted from now on."""
    data = read_object(request, schemas.ACCEPT)
    moved = accept_unknown(request.nexus, path_id(request, "campaign"), lead_id=_lead_id(request, data))
    return Reply({"accepted": moved, "has_more": moved == AT_ONCE})


def _lead_id(request: Request, data: dict[str, Any]) -> int | None:
    return find(request.nexus.session, Lead, int(data["lead_id"])).id if "lead_id" in data else None


def _document(row: RowMapping) -> Document:
    return {name: str(value) if name in _IDS else value for name, value in row.items()}
