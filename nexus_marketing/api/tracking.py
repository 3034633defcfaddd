"""What recipients' mail programs and browsers ask for: pixels, links, and the way out.

No key, no cookie, no login: the signed token is the whole of it (S13). A token that we did not sign
costs no database and learns nothing. A GET never unsubscribes anybody, because scanners GET everything.
"""

from functools import partial
from html import escape
from urllib.parse import parse_qs

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import is_last_attempt
from sqlalchemy.exc import TimeoutError as PoolTimeout

from nexus_marketing.api.html import page
from nexus_marketing.api.replies import ApiResponse
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import NotFound, Unavailable
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.retry import DATABASE_ERRORS, is_transient, reason_of
from nexus_marketing.runtime import Context
from nexus_marketing.security.contexts import open_context
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.security.visitors import Crowd, Visitors, is_flood
from nexus_marketing.services.hits import click_destination, record_hit
from nexus_marketing.services.privacy import unsubscribe
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_RECIPIENT = Actor("recipient", frozenset())
_PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
#: The two forms that there are take a few hundred bytes; to take a long one apart costs.
_LONGEST_FORM = 16_384
_BUTTON = '<form method="post"><button name="action" value="unsubscribe">Unsubscribe</button></form>'
#: What keeps a hit from being kept.
_AWAY = (*DATABASE_ERRORS, Unavailable)
_PREFETCH = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ")


def includeme(config: Configurator) -> None:
    """Public, because recipients have no key. Opens and clicks are GETs that write on purpose."""
    hits = {"permission": PUBLIC, "mode": "write", "crowd": Crowd.ENGAGEMENTS}
    config.add_api_route("GET", "/t/o/{token}", open_pixel, **hits)
    config.add_api_route("GET", "/t/c/{token}", follow_link, **hits)
    config.add_api_route("GET", "/u/{token}", show_unsubscribe, permission=PUBLIC)
    config.add_api_route("POST", "/u/{token}", act_unsubscribe, permission=PUBLIC, crowd=Crowd.UNSUBSCRIBING)


def open_pixel(request: Request) -> Response:
    """The pixel, whatever happens: a broken image in somebody's mail helps nobody."""
    token = _token(request, TokenKind.OPEN)
    if token is not None and request.method == "GET" and not is_flood(request.environ):
        try:
            context = _context(request, token, "write")
            _record(request, context, token)
            context.session.flush()
        except _AWAY as error:
            log.warning("open_lost", error=reason_of(error))
            request.tm.doom()
    response = Response(_PIXEL, content_type="image/gif")
    # Mail is read on other sites than ours.
    response.headerlist.append(("Cross-Origin-Resource-Policy", "cross-origin"))
    return response


def follow_link(request: Request) -> Response:
    """Redirect to where the published template said, and nowhere else; also where the click cannot be kept."""
    token = _token(request, TokenKind.CLICK)
    if token is None:
        return _not_ours(request)
    is_noted = request.method == "GET" and not is_flood(request.environ)
    destinations, link = request.registry["nexus.visitors"].destinations, (token.tenant_id, token.send_id, token.link)
    destination = destinations.fresh(link)
    if destination is None or is_noted:
        try:
            context = _context(request, token, "write" if is_noted else "read")
            destination = click_destination(context, token)
            if destination is None:
                return _not_found()
            destinations.note(link, destination)
            if is_noted:
                _record(request, context, token)
                context.session.flush()
        except _AWAY as error:
            # Whoever clicked wants to read on, not to hear of a database without room.
            destination = destinations.fresh(link)
            # Where connections are all lent, another try would wait as long as this one.
            comes_again = is_transient(error) and not isinstance(error, PoolTimeout) and not is_last_attempt(request)
            if destination is None or comes_again:
                raise
            log.warning("click_lost", error=reason_of(error))
            request.tm.doom()
    return ApiResponse(status=302, headerlist=[("Location", destination), ("Content-Length", "0")])


def show_unsubscribe(request: Request) -> Response:
    """The page with the button; nothing changes."""
    token = _token(request, TokenKind.UNSUBSCRIBE)
    if token is None:
        return _not_ours(request)
    sender = _sender(_context(request, token, "read"), token)
    if sender is None:
        return _not_found()
    return page("Unsubscribe", f"<p>Stop marketing e-mail from {escape(sender)} to your address?</p>{_BUTTON}")


def act_unsubscribe(request: Request) -> Response:
    """One click by the mail program (RFC 8058), or the button of the page; as often as one likes.

    Nobody is sent away for asking too often: whoever does, and has just had the same done, is told so without another look.
    """
    token = _token(request, TokenKind.UNSUBSCRIBE)
    if token is None:
        return _not_ours(request)
    source = _source(request)
    if source is None:
        return page("Unsubscribe", f"<p>Press the button to unsubscribe.</p>{_BUTTON}", 400)
    visitors, text = request.registry["nexus.visitors"], request.matchdict["token"]
    if is_flood(request.environ) and visitors.done.fresh(text):
        return _done()
    context = _context(request, token, "write")
    try:
        unsubscribe(context, token.lead_id, source=source, send_id=token.send_id, seq=token.seq)
    except NotFound:
        # Erased since: nobody writes there any more, and the answer must not tell.
        log.info("unsubscribe_without_lead", tenant_id=token.tenant_id)
    if is_flood(request.environ):
        request.tm.get().addAfterCommitHook(partial(_note_done, visitors, text))
    return _done()


def _note_done(visitors: Visitors, text: str, is_committed: bool) -> None:  # noqa: FBT001 - as the hook is called
    if is_committed:
        visitors.done.note(text, True)


def _done() -> Response:
    return page("You are unsubscribed", "<p>You will get no more marketing e-mail from this sender.</p>")


def _token(request: Request, kind: TokenKind) -> Token | None:
    token: Token | None = request.registry["nexus.runtime"].keys.tokens.read(request.matchdict["token"], kind)
    return token


def _context(request: Request, token: Token, mode: str) -> Context:
    return open_context(request, token.tenant_id, _RECIPIENT, mode)


def _record(request: Request, context: Context, token: Token) -> None:
    environ = request.environ
    prefetch = any("pre" in environ.get(name, "") for name in _PREFETCH)  # prefetch, prerender, preview
    record_hit(context, token, user_agent=environ.get("HTTP_USER_AGENT", "")[:512], prefetch=prefetch)


def _sender(context: Context, token: Token) -> str | None:
    tenant = context.session.get(Tenant, token.tenant_id)
    return None if tenant is None else tenant.name


def _source(request: Request) -> str | None:
    if (request.content_length or 0) > _LONGEST_FORM:
        return None
    if request.content_type == "multipart/form-data":
        form = {name: [value] for name, value in request.POST.items() if isinstance(value, str)}
    else:
        form = parse_qs(request.body[:4096].decode("ascii", "replace"))
    if form.get("List-Unsubscribe") == ["One-Click"]:
        return "one_click"
    return "page" if form.get("action") == ["unsubscribe"] else None


def _not_ours(request: Request) -> Response:
    """A token that we did not sign: a link that was cut off, or somebody who tries."""
    request.registry["nexus.visitors"].note_guess(request.environ, page=True)
    return _not_found()


def _not_found() -> Response:
    return page("Not found", "<p>This link is not complete. Copy the whole of it from your message.</p>", 404)
