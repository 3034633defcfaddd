"""``/api/v1/lead-imports``: files of leads that are uploaded, tried out, brought in and undone."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.downloads import download
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import Document, created, document_of, path_id, shows
from nexus_marketing.api.schemas import lead_imports as schemas
from nexus_marketing.api.surroundings import bound_body
from nexus_marketing.api.writes import writes
from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadImport
from nexus_marketing.db.queries.resources.leads import LEAD_IMPORTS
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import new_blob_key
from nexus_marketing.services.imports import jobs as services
from nexus_marketing.services.leads.exports import error_blocks

_PATH = "/api/v1/lead-imports"


def includeme(config: Configurator) -> None:
    """The routes of imports."""
    read, write = Permission.LEADS_READ, Permission.LEADS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_imports, permission=read)
    config.add_api_route("POST", _PATH, upload, permission=write)
    config.add_api_route("GET", one, shows(LeadImport, "import", import_document), permission=read)
    config.add_api_route("GET", f"{one}/errors", show_errors, permission=read)
    config.add_api_route("POST", f"{one}/check", writes(check), permission=write)
    config.add_api_route("POST", f"{one}/start", writes(start), permission=write)
    config.add_api_route("POST", f"{one}/cancel", writes(cancel), permission=write)
    config.add_api_route("POST", f"{one}/undo", writes(undo), permission=write)
    bound_body(config, _PATH, config.registry["nexus.runtime"].settings.max_import_bytes)


def import_document(row: LeadImport) -> Document:
    """An import as the API shows it."""
    return document_of(row, LEAD_IMPORTS.fields, LEAD_IMPORTS.ids)


def list_imports(request: Request) -> Response:
    return respond_page(request, LEAD_IMPORTS)


def upload(request: Request) -> Response:
    """The body is the file, ``?name=`` what it is called; nothing is imported yet."""
    if not request.content_length:
        raise ValidationError.at("", "required", "The body is the file: send CSV or JSON lines.")
    blobs = request.registry["nexus.runtime"].blobs
    key = new_blob_key(request.identity.tenant_id)
    request.make_body_seekable()
    blobs.put(key, request.body_file)
    request.body_file.seek(0)

    def note(request: Request) -> Reply:
        with blobs.local(key) as path:
            look = services.look_at(path, ImportOptions())
        row = services.upload(request.nexus, look, name=request.GET.get("name", "leads"), blob_key=key)
        return created(import_document(row), _PATH)

    try:
        response = writes(note)(request)
    except BaseException:
        blobs.delete(key)
        raise
    if "Idempotency-Replayed" in response.headers:
        blobs.delete(key)
    return response


def check(request: Request) -> Reply:
    """202: a worker reads every row; ``report`` says then what would happen."""
    options = services.options_of(request.nexus, read_object(request, schemas.JOB)) or ImportOptions()
    return _accepted(services.request_check(request.nexus, path_id(request, "import"), options))


def start(request: Request) -> Reply:
    """202: a worker brings the file in."""
    options = services.options_of(request.nexus, read_object(request, schemas.JOB))
    return _accepted(services.request_start(request.nexus, path_id(request, "import"), options))


def cancel(request: Request) -> Reply:
    return Reply(import_document(services.cancel(request.nexus, path_id(request, "import"))))


def undo(request: Request) -> Reply:
    """202: a worker puts back what the import changed."""
    return _accepted(services.request_undo(request.nexus, path_id(request, "import")))


def show_errors(request: Request) -> Response:
    """Rejected rows as CSV: row, column, code, message."""
    row = find(request.nexus.session, LeadImport, path_id(request, "import"))
    runtime, tenant_id, import_id = request.registry["nexus.runtime"], request.identity.tenant_id, row.id
    blocks = error_blocks(runtime, tenant_id, import_id, role="app")
    return download(blocks, "text/csv", f"import-{import_id}-errors.csv")


def _accepted(row: LeadImport) -> Reply:
    return Reply(import_document(row), 202, f"{_PATH}/{row.id}")
