"""``/api/v1/leads``."""

from collections import Counter
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import asked_limit, bound_to, make_cursor, read_cursor, read_query, respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id
from nexus_marketing.api.schemas import leads as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.schemas import check
from nexus_marketing.db.models import Lead
from nexus_marketing.db.queries.resources.engagements import LEAD_ENGAGEMENTS
from nexus_marketing.db.queries.resources.leads import LEADS
from nexus_marketing.services.leads import erasure, merging, upserts
from nexus_marketing.services.leads import records as services
from nexus_marketing.services.leads.duplicates import find_duplicates
from nexus_marketing.services.leads.lookup import find_lead
from nexus_marketing.services.leads.timeline import Entry, read_timeline
from nexus_marketing.services.scores.setting import set_score as set_own_score
from nexus_marketing.services.segments.rules import lead_schema

_PATH = "/api/v1/leads"
_STATUSES = ("created", "updated", "unchanged", "rejected")


def includeme(config: Configurator) -> None:
    """The routes of leads; those of whole words come before those of ids."""
    read, write = Permission.LEADS_READ, Permission.LEADS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_leads, permission=read)
    config.add_api_route("POST", _PATH, writes(create_lead), permission=write)
    config.add_api_route("PUT", _PATH, writes(upsert_lead), permission=write)
    config.add_api_route("POST", f"{_PATH}/batch", writes(upsert_leads), permission=write)
    # It writes down what it looks by, and nothing that anybody sees.
    config.add_api_route("GET", f"{_PATH}/duplicates", list_duplicates, permission=read, mode="write")
    config.add_api_route("GET", one, show_lead, permission=read)
    config.add_api_route("PATCH", one, writes(update_lead), permission=write)
    config.add_api_route("DELETE", one, writes(erase_lead), permission=write)
    config.add_api_route("GET", f"{one}/erasure", show_erasure, permission=read)
    config.add_api_route("POST", f"{one}/merge", writes(merge_leads), permission=write)
    config.add_api_route("GET", f"{one}/timeline", show_timeline, permission=read)
    config.add_api_route("POST", f"{one}/tags", writes(change_tags), permission=write)
    config.add_api_route("POST", f"{one}/score", writes(set_score), permission=write)
    config.add_api_route("GET", f"{one}/engagements", list_engagements, permission=Permission.ENGAGEMENTS_READ)


def lead_document(lead: Lead) -> Document:
    """A lead as the API shows it."""
    return document_of(lead, LEADS.fields, LEADS.ids)


def list_leads(request: Request) -> Response:
    return respond_page(request, LEADS, schema=lambda: lead_schema(request.nexus))


def create_lead(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(lead_document(services.create_lead(request.nexus, data)), _PATH)


def show_lead(request: Request) -> Response:
    lead = find_lead(request.nexus, path_id(request, "lead"))
    return show(lead_document(lead), lead.version)


def upsert_lead(request: Request) -> Reply:
    """201 where the lead is new, else 200."""
    data = read_object(request, schemas.UPSERT, schemas.READ_ONLY)
    lead, is_new = upserts.upsert_lead(request.nexus, data)
    return created(lead_document(lead), _PATH) if is_new else changed(lead_document(lead), _PATH)


def upsert_leads(request: Request) -> Reply:
    """200 with an answer for each row, whatever became of it."""
    rows = read_object(request, schemas.BATCH)["leads"]
    answers: list[Document | None] = [_fault_of(row) for row in rows]
    sound = [number for number, answer in enumerate(answers) if answer is None]
    written = upserts.upsert_leads(request.nexus, [rows[number] for number in sound])
    for number, answer in zip(sound, written, strict=True):
        answers[number] = _row_document(answer)
    counts = Counter(answer["status"] for answer in answers if answer is not None)
    return Reply({"data": answers, **{status: counts[status] for status in _STATUSES}})


def _fault_of(row: Any) -> Document | None:
    try:
        if not isinstance(row, dict):
            raise ValidationError.at("", "not_an_object", "Each lead is an object.")
        check(row, schemas.UPSERT, schemas.READ_ONLY)
    except ValidationError as error:
        return _row_document(upserts.RowAnswer("rejected", errors=error.problems))
    return None


def _row_document(answer: upserts.RowAnswer) -> Document:
    if answer.lead_id is None:
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in answer.errors]
        return {"status": answer.status, "errors": problems}
    return {"status": answer.status, "id": str(answer.lead_id), "version": answer.version}


def update_lead(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    lead = services.update_lead(request.nexus, path_id(request, "lead"), data, expected_version=version)
    return changed(lead_document(lead), _PATH)


def list_duplicates(request: Request) -> Response:
    """Each page looks at 1,000 leads and may find none."""
    query = read_query(request, ("cursor",))
    after = parse_id(query["cursor"], "page") if query.get("cursor") else 0
    found = find_duplicates(request.nexus, after)
    pairs = [
        {"lead_id": str(pair.lead_id), "other_id": str(pair.other_id), "reasons": pair.reasons} for pair in found.pairs
    ]
    has_more = found.next_id is not None
    next_page = str(found.next_id) if has_more else None
    return show({"data": pairs, "looked_at": found.looked_at, "has_more": has_more, "next": next_page})


def show_timeline(request: Request) -> Response:
    """What happened, newest first; ``left_out`` names sources that the key may not see."""
    lead_id, query = path_id(request, "lead"), read_query(request, ("cursor", "limit", "sources"))
    keys = request.registry["nexus.runtime"].keys
    bound = bound_to(request.identity.tenant_id, "timeline", str(lead_id), query.get("sources", ""))
    after = read_cursor(keys, query["cursor"], bound) if "cursor" in query else None
    names = [name.strip() for name in query["sources"].split(",")] if query.get("sources") else ()
    page = read_timeline(request.nexus, lead_id, names=names, after=after, limit=asked_limit(query))
    next_page = make_cursor(keys, page.entries[-1].position, bound) if page.has_more else None
    document = {"data": [_entry_document(each) for each in page.entries], "has_more": page.has_more, "next": next_page}
    return show({**document, "left_out": page.left_out})


def _entry_document(entry: Entry) -> Document:
    return {"at": entry.at, "source": entry.source, "type": entry.type, "data": entry.data}


def change_tags(request: Request) -> Reply:
    data = read_object(request, schemas.TAGS, patch=True)
    version = expected_version(request, data)
    lead = services.change_tags(request.nexus, path_id(request, "lead"), expected_version=version, **data)
    return changed(lead_document(lead), _PATH)


def erase_lead(request: Request) -> Reply:
    """204, or 202 where the workers go on with it; a lead that was erased is erased."""
    version = expected_version(request)
    removal = erasure.erase_lead(request.nexus, path_id(request, "lead"), expected_version=version)
    if removal.finished_at is not None:
        return Reply(None, 204)
    return Reply(erasure.certificate(removal), 202, f"{_PATH}/{removal.lead_id}/erasure")


def show_erasure(request: Request) -> Response:
    """The certificate; ``not_requested`` for a lead that is there."""
    lead_id = path_id(request, "lead")
    removal = erasure.find_erasure(request.nexus, lead_id)
    if removal is None:
        return show({"lead_id": str(lead_id), "status": "not_requested"})
    return show(erasure.certificate(removal))


def merge_leads(request: Request) -> Reply:
    """The lead of the path stays and is answered."""
    data = read_object(request, schemas.MERGE)
    version = expected_version(request, data)
    other = parse_id(data["from"], "lead")
    lead_id, policy = path_id(request, "lead"), data.get("policy")
    lead = merging.merge_leads(request.nexus, lead_id, other, policy, expected_version=version)
    return changed(lead_document(lead), _PATH)


def set_score(request: Request) -> Reply:
    data = read_object(request, schemas.SCORE)
    lead = set_own_score(request.nexus, path_id(request, "lead"), data["score"], data["reason"])
    return changed(lead_document(lead), _PATH)


def list_engagements(request: Request) -> Response:
    lead = find_lead(request.nexus, path_id(request, "lead"))
    return respond_page(request, LEAD_ENGAGEMENTS, scope={"lead_id": lead.id}, searchable=True)
