"""``/api/v1/journeys``: drafts, published versions, who comes in, and where runs are."""

from collections.abc import Callable

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id
from nexus_marketing.api.schemas import journeys as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.journeys.statuses import JourneyMove, ResumePolicy
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Journey
from nexus_marketing.db.queries.resources.journeys import JOURNEY_RUNS, JOURNEYS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.journeys import records as services
from nexus_marketing.services.journeys.arrivals import ENTERED, Answer
from nexus_marketing.services.journeys.entrances import close_entrance, open_entrance
from nexus_marketing.services.journeys.entries import enter_leads, enter_members
from nexus_marketing.services.journeys.moves import migrate_runs
from nexus_marketing.services.journeys.patching import patch_journey
from nexus_marketing.services.journeys.reviving import revive_runs

_PATH = "/api/v1/journeys"


def includeme(config: Configurator) -> None:
    """The routes of journeys."""
    read, write, launch = Permission.CAMPAIGNS_READ, Permission.CAMPAIGNS_WRITE, Permission.CAMPAIGNS_LAUNCH
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_journeys, permission=read)
    config.add_api_route("POST", _PATH, writes(create_journey), permission=write)
    config.add_api_route("GET", one, show_journey, permission=read)
    config.add_api_route("PATCH", one, writes(update_journey), permission=write)
    config.add_api_route("GET", f"{one}/versions", list_versions, permission=read)
    config.add_api_route("POST", f"{one}/publish", writes(publish_journey), permission=launch)
    for move in JourneyMove:
        config.add_api_route("POST", f"{one}/{move}", writes(_moves(move)), permission=launch)
    config.add_api_route("POST", f"{one}/entries", writes(enter), permission=launch)
    config.add_api_route("POST", f"{one}/migrate", writes(migrate), permission=launch)
    config.add_api_route("POST", f"{one}/patch", writes(patch), permission=Permission.CAMPAIGNS_PATCH)
    config.add_api_route("POST", f"{one}/revive", writes(revive), permission=launch)
    config.add_api_route("POST", f"{one}/entrance", writes(make_entrance), permission=launch)
    config.add_api_route("DELETE", f"{one}/entrance", writes(end_entrance), permission=launch)
    config.add_api_route("GET", f"{one}/runs", list_runs, permission=Permission.LEADS_READ)


def journey_document(journey: Journey) -> Document:
    """A journey as the API shows it."""
    return document_of(journey, JOURNEYS.fields, JOURNEYS.ids)


def list_journeys(request: Request) -> Response:
    return respond_page(request, JOURNEYS)


def create_journey(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(journey_document(services.create_journey(request.nexus, data)), _PATH)


def show_journey(request: Request) -> Response:
    """With how many runs there are in each state."""
    journey = find(request.nexus.session, Journey, path_id(request, "journey"))
    document = {**journey_document(journey), "runs": services.run_counts(request.nexus, journey.id)}
    return show(document, journey.version)


def update_journey(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    journey = services.update_journey(request.nexus, path_id(request, "journey"), data, expected_version=version)
    return changed(journey_document(journey), _PATH)


def list_versions(request: Request) -> Response:
    journey = find(request.nexus.session, Journey, path_id(request, "journey"))
    data = [
        {
            "version": each.number,
            "digest": each.digest,
            "templates": each.pins,
            "patches": each.patches,
            "published_by": each.published_by,
            "published_at": each.published_at,
        }
        for each in services.versions_of(request.nexus, journey.id)
    ]
    return show({"data": data, "has_more": False, "next": None})


def publish_journey(request: Request) -> Reply:
    version = _version(request)
    journey = services.publish_journey(request.nexus, path_id(request, "journey"), expected_version=version)
    return changed(journey_document(journey), _PATH)


def enter(request: Request) -> Reply:
    """200 with an answer for each lead; 202 with a segment, whose members workers let in."""
    journey_id = path_id(request, "journey")
    data = read_object(request, schemas.ENTRIES)
    if not data.keys() & {"lead_ids", "segment_id"}:
        raise ValidationError.at("lead_ids", "required", "Name lead_ids or a segment_id: who is to come in.")
    document: Document = {}
    if "segment_id" in data:
        segment_id, backfill = parse_id(data["segment_id"], "segment"), data.get("backfill", "none")
        members = enter_members(request.nexus, journey_id, segment_id, backfill=backfill == "all")
        document |= {"segment_id": str(segment_id), "backfill": backfill, "members": members}
    answers = enter_leads(request.nexus, journey_id, [parse_id(each, "lead") for each in data.get("lead_ids", ())])
    document["data"] = [answer_document(each) for each in answers]
    return Reply(document, 202 if "segment_id" in data else 200)


def migrate(request: Request) -> Reply:
    """200 with what would become of whom, 202 where workers see to it."""
    wish = read_object(request, schemas.MIGRATE)
    return Reply(migrate_runs(request.nexus, path_id(request, "journey"), wish), 200 if wish.get("dry_run") else 202)


def patch(request: Request) -> Reply:
    """200 with what would change and for whom, 202 where workers see to it."""
    data = read_object(request, schemas.PATCHING) if request.content_length else {}
    version, is_dry = expected_version(request, data), bool(data.get("dry_run", False))
    found = patch_journey(request.nexus, path_id(request, "journey"), expected_version=version, dry_run=is_dry)
    return Reply(found, 200 if is_dry else 202)


def revive(request: Request) -> Reply:
    """200 with what would become of whom, 202 where workers see to it."""
    wish = read_object(request, schemas.REVIVE)
    return Reply(revive_runs(request.nexus, path_id(request, "journey"), wish), 200 if wish.get("dry_run") else 202)


def make_entrance(request: Request) -> Reply:
    """The address is shown this once; making another one ends it."""
    version = _version(request)
    return Reply({"url": open_entrance(request.nexus, path_id(request, "journey"), expected_version=version)}, 201)


def end_entrance(request: Request) -> Reply:
    close_entrance(request.nexus, path_id(request, "journey"), expected_version=_version(request))
    return Reply(None, 204)


def list_runs(request: Request) -> Response:
    journey = find(request.nexus.session, Journey, path_id(request, "journey"))
    return respond_page(request, JOURNEY_RUNS, scope={"journey_id": journey.id})


def answer_document(answer: Answer) -> Document:
    """What became of somebody who was brought to a journey."""
    document: Document = {"lead_id": str(answer.lead_id)}
    if answer.outcome == ENTERED:
        return document | {"status": ENTERED, "run_id": str(answer.run_id)}
    return document | {"status": "refused", "reason": answer.outcome}


def _moves(move: JourneyMove) -> Callable[[Request], Reply]:
    form = {JourneyMove.RESUME: schemas.RESUME, JourneyMove.STOP: schemas.STOP}.get(move, schemas.MOVE)

    def view(request: Request) -> Reply:
        data = read_object(request, form) if request.content_length else {}
        version, policy = expected_version(request, data), ResumePolicy(data.get("policy", ResumePolicy.CATCH_UP))
        journey_id = path_id(request, "journey")
        journey = services.move_journey(
            request.nexus,
            journey_id,
            move,
            expected_version=version,
            policy=policy,
            compensate=data.get("compensate", False),
        )
        return changed(journey_document(journey), _PATH)

    view.__name__ = f"{move}_journey"
    return view


def _version(request: Request) -> int | None:
    data = read_object(request, schemas.MOVE) if request.content_length else {}
    return expected_version(request, data)
