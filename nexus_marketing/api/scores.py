"""``/api/v1/scores``: named scores, their rules as drafts and as published versions."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.lead_scores import part_document
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id
from nexus_marketing.api.schemas import scores as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Score, ScoreRecompute
from nexus_marketing.db.queries.resources.segments import SCORES
from nexus_marketing.services.scores import records as services
from nexus_marketing.services.scores.looking import Change
from nexus_marketing.services.scores.reading import SHOWN, preview
from nexus_marketing.services.scores.recomputing import last_recompute

_PATH = "/api/v1/scores"


def includeme(config: Configurator) -> None:
    """The routes of scores."""
    read, write = Permission.SCORES_READ, Permission.SCORES_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_scores, permission=read)
    config.add_api_route("POST", _PATH, writes(create_score), permission=write)
    config.add_api_route("GET", one, show_score, permission=read)
    config.add_api_route("PATCH", one, writes(update_score), permission=write)
    config.add_api_route("DELETE", one, writes(remove_score), permission=write)
    config.add_api_route("GET", f"{one}/versions", list_versions, permission=read)
    config.add_api_route("POST", f"{one}/publish", writes(publish_score), permission=write)
    config.add_api_route("POST", f"{one}/recompute", writes(recompute_score), permission=write)
    config.add_api_route("GET", f"{one}/recompute", show_recompute, permission=read)
    # It says of leads what only those may know who may read them.
    config.add_api_route("POST", f"{one}/preview", preview_draft, permission=Permission.LEADS_READ, mode="read")


def score_document(score: Score) -> Document:
    """A score as the API shows it."""
    return document_of(score, SCORES.fields, SCORES.ids)


def recompute_document(row: ScoreRecompute) -> Document:
    """How far a version is on its way through all leads."""
    return {
        "score_id": str(row.score_id),
        "version": row.version,
        "status": "running" if row.finished_at is None else "finished",
        "leads": row.leads,
        "changed": row.changed,
        "requested_by": row.requested_by,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    }


def list_scores(request: Request) -> Response:
    return respond_page(request, SCORES)


def create_score(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(score_document(services.create_score(request.nexus, data)), _PATH)


def show_score(request: Request) -> Response:
    score = services.show_score(request.nexus, path_id(request, "score"))
    return show(score_document(score), score.version)


def update_score(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY | {"name"}, patch=True)
    version = expected_version(request, data)
    score = services.update_score(request.nexus, path_id(request, "score"), data, expected_version=version)
    return changed(score_document(score), _PATH)


def remove_score(request: Request) -> Reply:
    """202: workers delete what it counted."""
    score_id, version = path_id(request, "score"), expected_version(request)
    services.remove_score(request.nexus, score_id, expected_version=version)
    return Reply({"id": str(score_id), "status": "removing"}, 202, _PATH)


def list_versions(request: Request) -> Response:
    data = [
        {
            "version": each.number,
            "rules": each.rules,
            "fire_on_recompute": each.fire_on_recompute,
            "published_by": each.published_by,
            "published_at": each.published_at,
        }
        for each in services.versions_of(request.nexus, path_id(request, "score"))
    ]
    return show({"data": data, "has_more": False, "next": None})


def publish_score(request: Request) -> Reply:
    """202: in force at once, and on its way through all leads."""
    data = read_object(request, schemas.PUBLISH) if request.content_length else {}
    version = expected_version(request, data)
    row = services.publish_score(request.nexus, path_id(request, "score"), expected_version=version, **data)
    return _under_way(row)


def recompute_score(request: Request) -> Reply:
    return _under_way(services.recompute_score(request.nexus, path_id(request, "score")))


def show_recompute(request: Request) -> Response:
    score = services.show_score(request.nexus, path_id(request, "score"))
    row = last_recompute(request.nexus, score.id)
    return show({"score_id": str(score.id), "status": "never"} if row is None else recompute_document(row))


def preview_draft(request: Request) -> Response:
    data = read_object(request, schemas.PREVIEW) if request.content_length else {}
    ids = [parse_id(each, "lead") for each in data.pop("lead_ids", ())]
    found = preview(request.nexus, path_id(request, "score"), lead_ids=ids, **data)
    return show({"data": [_preview_document(change) for change in found]})


def _preview_document(change: Change) -> Document:
    parts = change.update.fold.parts
    return {
        "lead_id": str(change.lead_id),
        "before": change.update.before,
        "after": change.update.value,
        "groups": {name: points for name, points in change.update.fold.groups.items() if name},
        "contributions": [part_document(each) for each in parts[: -SHOWN - 1 : -1]],
    }


def _under_way(row: ScoreRecompute) -> Reply:
    return Reply(recompute_document(row), 202, f"{_PATH}/{row.score_id}/recompute")
