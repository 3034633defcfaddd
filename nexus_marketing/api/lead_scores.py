"""``/api/v1/leads/{id}/scores``: a lead's scores and what they are made of."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import show
from nexus_marketing.api.resources import Document, path_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.scoring import ContributionKind
from nexus_marketing.core.scoring.folding import Part
from nexus_marketing.services.scores.reading import Explanation, LeadScore, explain_score, scores_of_lead

_PATH = "/api/v1/leads/{id}/scores"


def includeme(config: Configurator) -> None:
    """The routes of a lead's scores."""
    config.add_api_route("GET", _PATH, list_lead_scores, permission=Permission.LEADS_READ)
    config.add_api_route("GET", f"{_PATH}/{{name}}/explanation", show_explanation, permission=Permission.LEADS_READ)


def list_lead_scores(request: Request) -> Response:
    found = scores_of_lead(request.nexus, path_id(request, "lead"))
    return show({"data": [_score_document(each) for each in found], "has_more": False, "next": None})


def show_explanation(request: Request) -> Response:
    """The newest contributions come first; ``left_out`` says how many older ones there are."""
    found = explain_score(request.nexus, path_id(request, "lead"), request.matchdict["name"])
    return show(_explanation_document(found))


def part_document(part: Part) -> Document:
    """A contribution: what was given, what of it caps let through, and what its age leaves of that."""
    given = part.contribution
    is_event = given.kind == ContributionKind.EVENT
    return {
        "kind": given.kind,
        "rule": given.rule or None,
        "version": given.version or None,
        "points": given.points,
        "counted": part.counted,
        "weight": part.weight,
        "present": part.present,
        "at": given.at,
        "engagement_id": str(given.cause) if is_event else None,
        "actor": given.actor,
        "reason": given.reason,
    }


def _score_document(score: LeadScore) -> Document:
    marks = score.marks or {}
    return {
        "name": score.name,
        "value": score.value,
        "version": score.version or None,
        "computed_at": score.computed_at,
        "next_change_at": score.next_change_at,
        "thresholds": {key: {"above": mark["above"], "told_at": mark["told_at"]} for key, mark in marks.items()},
    }


def _explanation_document(found: Explanation) -> Document:
    parts = found.parts
    return {
        "name": found.name,
        "value": found.shown,
        "exact": found.fold.value,
        "total": found.fold.total,
        "min": found.rules.low,
        "max": found.rules.high,
        "version": found.version or None,
        "as_of": found.as_of,
        "groups": {name: points for name, points in found.fold.groups.items() if name},
        "contributions": [part_document(each) for each in parts],
        "left_out": len(found.fold.parts) - len(parts),
        "crossings": [
            {
                "threshold": each.threshold,
                "direction": each.direction,
                "before": each.before,
                "after": each.after,
                "at": each.at,
            }
            for each in found.crossings
        ],
    }
