"""``/api/v1/engagements``: events that programs report, one at a time or many."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request

from nexus_marketing.api.bodies import read_json
from nexus_marketing.api.errors import HttpFault
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.schemas.engagements import MAX_ROWS, READ_ONLY, ROW
from nexus_marketing.api.writes import writes
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.schemas import check
from nexus_marketing.runtime import Context
from nexus_marketing.services import engagements as services

_STATUSES = ("accepted", "duplicate", "rejected")


def includeme(config: Configurator) -> None:
    """One route."""
    config.add_api_route(
        "POST", "/api/v1/engagements", writes(record_engagements), permission=Permission.ENGAGEMENTS_WRITE
    )


def record_engagements(request: Request) -> Reply:
    """An object is one event (201, 200 for a repeat, 422); an array answers row by row (200)."""
    body = read_json(request)
    if isinstance(body, dict):
        return _one(request.nexus, body)
    if not isinstance(body, list):
        raise ValidationError.at("", "not_an_object", "Send one engagement as an object, or several as an array.")
    if not 0 < len(body) <= MAX_ROWS:
        raise HttpFault(422, "out_of_bounds", f"Send 1 to {MAX_ROWS} engagements at once, not {len(body)}.")
    answers = _many(request.nexus, body)
    counts = Counter(answer["status"] for answer in answers)
    return Reply({"data": answers, **{status: counts[status] for status in _STATUSES}})


def _one(context: Context, row: Mapping[str, Any]) -> Reply:
    check(row, ROW, READ_ONLY)
    (answer,) = services.record_engagements(context, [row])
    if answer["status"] == "rejected":
        raise ValidationError(problems=[Problem(**problem) for problem in answer["errors"]])
    return Reply(answer, 201 if answer["status"] == "accepted" else 200)


def _many(context: Context, rows: Sequence[Any]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [_fault_of(row) for row in rows]
    sound = [number for number, answer in enumerate(answers) if not answer]
    recorded = services.record_engagements(context, [rows[number] for number in sound])
    for number, answer in zip(sound, recorded, strict=True):
        answers[number] = answer
    return answers


def _fault_of(row: Any) -> dict[str, Any]:
    try:
        if not isinstance(row, dict):
            raise ValidationError.at("", "not_an_object", "Each engagement is an object.")
        check(row, ROW, READ_ONLY)
    except ValidationError as error:
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in error.problems]
        return {"status": "rejected", "errors": problems}
    return {}
