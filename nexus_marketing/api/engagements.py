"""``/api/v1/engagements``: events that programs report, one at a time or many."""

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

import orjson
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_json
from nexus_marketing.api.errors import HttpFault
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.schemas.engagements import MAX_LINES, MAX_ROWS
from nexus_marketing.api.surroundings import bound_body
from nexus_marketing.api.writes import writes
from nexus_marketing.core.errors import Problem, Unavailable, ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.retry import DATABASE_ERRORS
from nexus_marketing.security.repeats import repeatable
from nexus_marketing.services import engagements as services
from nexus_marketing.services.engagements import MAX_BATCH, Answer

_PATH = "/api/v1/engagements"
_BULK = f"{_PATH}/bulk"
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_STATUSES = ("accepted", "duplicate", "rejected")


def includeme(config: Configurator) -> None:
    """The routes of reported events."""
    write = Permission.ENGAGEMENTS_WRITE
    config.add_api_route("POST", _PATH, writes(record_engagements), permission=write)
    config.add_api_route("POST", _BULK, record_lines, permission=write)
    bound_body(config, _BULK, config.registry["nexus.runtime"].settings.max_bulk_bytes)


def record_engagements(request: Request) -> Reply:
    """An object is one event (201, 200 for a repeat, 422); an array answers row by row (200)."""
    body = read_json(request)
    if isinstance(body, dict):
        return _one(services.record_engagements(request.nexus, [body])[0])
    if not isinstance(body, list):
        raise ValidationError.at("", "not_an_object", "Send one engagement as an object, or several as an array.")
    if not 0 < len(body) <= MAX_ROWS:
        fault = f"Send 1 to {MAX_ROWS} engagements at once, not {len(body)}; more go to {_BULK}, one a line."
        raise HttpFault(422, "out_of_bounds", fault)
    return Reply(_summary(services.record_engagements(request.nexus, body)))


def record_lines(request: Request) -> Response:
    """Thousands of events, one JSON object a line: taken in as they are read, each answered in its place.

    A batch of lines is committed at a time. With an ``Idempotency-Key``, lines without an event id get one
    from the key, their number and what they say, so that a repeat takes in what is missing and nothing twice.
    """
    if request.content_type not in _LINES:
        raise ValidationError.at("", "unsupported_media_type", f"Send {_LINES[0]}: one JSON object a line.")
    claim = repeatable(request)
    key = None if claim is None else claim.key.encode()
    runtime, identity = request.registry["nexus.runtime"], request.identity
    lines = _lines(request)
    answers: list[Answer] = []
    while piece := list(islice(lines, MAX_BATCH)):
        if len(answers) + len(piece) > MAX_LINES:
            raise _interrupted(413, "too_many_lines", f"Send at most {MAX_LINES} lines at once.", len(answers))
        rows = [_row(line, len(answers) + number, key) for number, line in enumerate(piece)]
        try:
            with runtime.work(
                identity.tenant_id, identity.actor, role="app", request_id=request.environ["nexus.request_id"]
            ) as ctx:
                answers += services.record_engagements(ctx, rows)
        except (*DATABASE_ERRORS, Unavailable) as error:
            if not answers:
                raise
            raise _interrupted(503, "interrupted", "The database went away.", len(answers)) from error
    if not answers:
        raise ValidationError.at("", "empty", "Send at least one line.")
    return show(_summary(answers))


def _one(answer: Answer) -> Reply:
    if answer["status"] == "rejected":
        raise ValidationError(problems=[Problem(**problem) for problem in answer["errors"]])
    return Reply(answer, 201 if answer["status"] == "accepted" else 200)


def _summary(answers: Sequence[Answer]) -> dict[str, Any]:
    counts = Counter(answer["status"] for answer in answers)
    return {"data": answers, **{status: counts[status] for status in _STATUSES}}


def _interrupted(status: int, code: str, sentence: str, done: int) -> HttpFault:
    remedy = f" The first {done} lines were taken in: send the others." if done else ""
    return HttpFault(status, code, sentence + remedy, members={"lines_done": done})


def _lines(request: Request) -> Iterator[bytes]:
    """The lines of the body that hold something."""
    for line in request.body_file:
        if not line.isspace():
            yield line


def _row(line: bytes, number: int, key: bytes | None) -> Any:
    """The value of a line; what is no JSON is a row like any other and rejected as one."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if key is not None and isinstance(row, dict) and "event_id" not in row:
        row["event_id"] = blake2b(b"%d:" % number + line, key=key[:64], digest_size=24).hexdigest()
    return row
