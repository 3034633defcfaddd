"""``/api/v1/lead-exports``: leads as a file of any size."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.downloads import download
from nexus_marketing.api.pages import read_query
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Segment
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.exports import FORMATS, lead_blocks

_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


def includeme(config: Configurator) -> None:
    """The route of exports."""
    config.add_api_route("GET", "/api/v1/lead-exports", export, permission=Permission.LEADS_READ, mode="write")


def export(request: Request) -> Response:
    """``?format=csv`` or ``jsonl``, ``?segment_id=`` for its members only; who took the leads out is audited."""
    query = read_query(request, ("format", "segment_id"))
    form = query.get("format") or "csv"
    if form not in FORMATS:
        raise ValidationError.at("format", "not_allowed", f"{form[:40]!r} is no format: use {' or '.join(FORMATS)}.")
    segment_id = None
    if query.get("segment_id"):
        segment_id = find(request.nexus.session, Segment, parse_id(query["segment_id"], "segment")).id
    record(request.nexus, "leads.exported", "export", form, {"segment_id": (None, segment_id)})
    blocks = lead_blocks(
        request.registry["nexus.runtime"],
        request.identity.tenant_id,
        actor=request.nexus.actor,
        form=form,
        segment_id=segment_id,
        role="app",
    )
    return download(blocks, _TYPES[form], f"leads.{form}")
