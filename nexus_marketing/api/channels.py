"""``/api/v1/channels``: a tenant's accounts at providers. Secrets go in; that they are set is all that comes out."""

from dataclasses import asdict

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import channels as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.resources.messages import CHANNELS
from nexus_marketing.services.channels import records as services
from nexus_marketing.services.channels.configs import channel_types
from nexus_marketing.services.channels.trials import probe_account, send_test

_PATH = "/api/v1/channels"


def includeme(config: Configurator) -> None:
    """The routes of channel accounts. What asks a provider holds no transaction, and is repeated without harm."""
    read, write = Permission.CHANNELS_READ, Permission.CHANNELS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_accounts, permission=read)
    config.add_api_route("POST", _PATH, writes(create_account), permission=write)
    config.add_api_route("GET", f"{_PATH}/types", list_types, permission=read)
    config.add_api_route("GET", one, shows(ChannelAccount, "channel account", account_document), permission=read)
    config.add_api_route("PATCH", one, writes(update_account), permission=write)
    config.add_api_route("DELETE", one, writes(delete_account), permission=write)
    config.add_api_route("POST", f"{one}/check", check_account, permission=write, mode="read")
    config.add_api_route("POST", f"{one}/test", test_account, permission=write, mode="read")


def account_document(account: ChannelAccount) -> Document:
    """An account as the API shows it."""
    return document_of(account, CHANNELS.fields, CHANNELS.ids)


def list_accounts(request: Request) -> Response:
    return respond_page(request, CHANNELS)


def list_types(request: Request) -> Response:
    """The channels of this installation, and what an account of each can be set to."""
    return show({"data": channel_types(request.registry["nexus.runtime"]), "has_more": False, "next": None})


def create_account(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(account_document(services.create_account(request.nexus, data)), _PATH)


def update_account(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    account = services.update_account(
        request.nexus, path_id(request, "channel account"), data, expected_version=version
    )
    return changed(account_document(account), _PATH)


def delete_account(request: Request) -> Reply:
    version = expected_version(request)
    services.delete_account(request.nexus, path_id(request, "channel account"), expected_version=version)
    return Reply(None, 204)


def check_account(request: Request) -> Response:
    """Connect and log in, and send nothing."""
    identity, runtime = request.identity, request.registry["nexus.runtime"]
    id_ = path_id(request, "channel account")
    return show(asdict(probe_account(runtime, identity.tenant_id, identity.actor, id_)))


def test_account(request: Request) -> Response:
    """Send one message of ours to an address."""
    data = read_object(request, schemas.TEST)
    identity, runtime = request.identity, request.registry["nexus.runtime"]
    id_ = path_id(request, "channel account")
    return show(asdict(send_test(runtime, identity.tenant_id, identity.actor, id_, data.get("to", ""))))
