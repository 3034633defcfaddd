"""What providers report, taken in: proved to be theirs, put into our words, and kept for the workers.

The request reads nothing of leads or messages and writes one row an event, so that it is over at once whatever it says.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import select

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.contracts import Channel, HearingChannel, ProviderEvent, ProviderEventKind
from nexus_marketing.core.deliveries import read_message_id
from nexus_marketing.core.errors import (
    NexusError,
    NoSuchAddress,
    NotFound,
    PermissionDenied,
    SecretsUnreadable,
    Unavailable,
    ValidationError,
)
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.accounts import all_accounts
from nexus_marketing.db.queries.provider_reports import keep_reports
from nexus_marketing.db.queries.tenants import find_tenant_id
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.channels.records import secrets_of
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

Found = TypeVar("Found")

#: In place of a tenant's name: whose an event is, its message says.
ANY_TENANT: Final = "-"
_PROVIDER = Actor("provider", frozenset())
#: A provider sends up to a thousand at a time; this many from one request are no provider.
_MOST_EVENTS: Final = 10_000
#: Anybody may send anything here: so long it is tried whether one of a tenant's accounts knows the signature.
_LONGEST_SECONDS: Final = 1.0
_LONGEST: Final[Mapping[str, int]] = {"event_id": 200, "message_id": 400, "code": 64, "address": 320, "detail": 1_600}


@dataclass(frozen=True, slots=True)
class HookCall:
    """A request to an address for providers; ``headers`` as ``HearingChannel`` takes them."""

    tenant: str
    channel: str
    provider: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def receive_call(runtime: Runtime, call: HookCall) -> int:
    """Keep what a provider says; answers how many events.

    Raises:
        NotFound: there is no such channel, it hears of nobody, or (only to who proved to be the provider) no such tenant.
        PermissionDenied: it does not come from the provider, or nothing was set up to tell.
        Unavailable: that cannot be told now.
        ValidationError: a message came in, and nobody knows for which tenant.
    """
    channel: Channel | None = runtime.channels.get(call.channel)
    if channel is None or not isinstance(channel, HearingChannel):
        raise NoSuchAddress
    tenant_id, known = None, list[Mapping[str, Any]]()
    if channel.capabilities.secret_settings and not channel.capabilities.hears_for_all:
        tenant_id, known = _tenants_own(runtime, call)
    # An account that is off may still be reported on. Without any, the operator's own provider may be meant.
    until = time.monotonic() + _LONGEST_SECONDS
    for settings in known or [{}]:
        if time.monotonic() > until:
            raise Unavailable("It took too long to tell whose signature this is.", retry_after_seconds=60.0)
        if _ask(runtime, call, partial(channel.verify, settings, call.headers, call.body), otherwise=False):
            break
    else:
        runtime.telemetry.count("hooks.refused", channel=call.channel)
        raise PermissionDenied("The signature is not the provider's, or this provider is not set up.")
    if tenant_id is None and call.tenant != ANY_TENANT:
        tenant_id = _tenant_id(runtime, call.tenant)
        if tenant_id is None:
            raise NotFound(f"There is no tenant {call.tenant[:63]!r}: the address has its name behind /hooks/.")
    told = lambda: _checked(channel.parse_events(settings, call.headers, call.body))  # noqa: E731
    return _keep(runtime, call, tenant_id, _ask(runtime, call, told, otherwise=[]))


def keep_events(runtime: Runtime, tenant_id: int, channel: str, provider: str, events: Iterable[ProviderEvent]) -> int:
    """Keep what a provider says over a connection of a tenant's account; answers how many events.

    Returning says that they are kept for good.
    """
    return _keep_for(runtime, channel, provider, tenant_id, _checked(events))


def _ask(runtime: Runtime, call: HookCall, question: Callable[[], Found], *, otherwise: Found) -> Found:
    """A channel's answer. What strangers send must not make it fail, and if it does that is no reason to come again."""
    try:
        return question()
    except Unavailable:
        raise
    except NexusError as error:
        log.warning("hook_not_understood", channel=call.channel, provider=call.provider[:63], reason=error.message)
    except Exception:  # isolation boundary: a plugin's code on a stranger's bytes
        log.exception("hook_failed", channel=call.channel, provider=call.provider[:63])
    runtime.telemetry.count("hooks.failed", channel=call.channel)
    return otherwise


def _checked(events: Iterable[ProviderEvent]) -> list[ProviderEvent]:
    """What a plugin answered, as far as it is what it must be."""
    found = list(islice(events, _MOST_EVENTS))
    return [replace(event, kind=ProviderEventKind(event.kind), at=_aware(event.at)) for event in found]


def _aware(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None


def _tenants_own(runtime: Runtime, call: HookCall) -> tuple[int | None, list[Mapping[str, Any]]]:
    """The accounts by whose settings it has to be judged who speaks; none where there is no such tenant."""
    tenant_id = None if call.tenant == ANY_TENANT else _tenant_id(runtime, call.tenant)
    if tenant_id is None:
        return None, []
    found: list[Mapping[str, Any]] = []
    with runtime.work(tenant_id, _PROVIDER, mode="read", role="app") as ctx:
        accounts = [each for each in all_accounts(ctx.session) if each.type == call.channel]
        of_plugin = runtime.channel_settings(ctx.session, call.channel) or {}
        for account in accounts:
            try:
                found.append({**account.config, **secrets_of(ctx, account), **of_plugin})
            except SecretsUnreadable:
                log.warning("secrets_unreadable", tenant_id=tenant_id, account_id=account.id)
    return tenant_id, found or ([of_plugin] if of_plugin else [])


def _tenant_id(runtime: Runtime, slug: str) -> int | None:
    with runtime.work(None, _PROVIDER, mode="read", role="app") as ctx:
        return find_tenant_id(ctx.session, slug[:63].replace("\x00", ""))


def _keep(runtime: Runtime, call: HookCall, tenant_id: int | None, events: Sequence[ProviderEvent]) -> int:
    """Each tenant's events in one transaction. If one fails the provider repeats all, and the others know theirs."""
    whose: dict[int, list[ProviderEvent]] = {}
    for event in events:
        key = read_message_id(event.message_id)
        owner = tenant_id if key is None else key.tenant_id
        if owner is None and event.kind is ProviderEventKind.INBOUND_MESSAGE:
            said = "For which tenant is this message? Write its name behind /hooks/ in the address at the provider."
            raise ValidationError.at("tenant", "required", said)
        if owner is None or owner != (tenant_id or owner):
            runtime.telemetry.count("hooks.dropped", channel=call.channel, why="foreign" if owner else "unknown")
            continue
        whose.setdefault(owner, []).append(event)
    about = (call.channel, call.provider)
    return sum(_keep_for(runtime, *about, owner, each) for owner, each in sorted(whose.items()))


def _keep_for(runtime: Runtime, channel: str, provider: str, tenant_id: int, events: Sequence[ProviderEvent]) -> int:
    with runtime.work(tenant_id, _PROVIDER, role="app") as ctx:
        if ctx.session.scalar(select(Tenant.id).where(Tenant.id == tenant_id)) is None:
            return 0  # a message of an installation that is no more
        keep_reports(ctx.session, [_report(ctx, channel, provider, event) for event in events])
        ctx.ring("engagements")
        return len(events)


def _report(ctx: Context, channel: str, provider: str, event: ProviderEvent) -> dict[str, Any]:
    body = {name: _clean(str(getattr(event, name)), longest) for name, longest in _LONGEST.items()}
    body["kind"] = str(event.kind)
    body["at"] = to_text(_moment(event.at, ctx.now))
    about = {"channel": channel, "provider": _clean(provider, 63)}
    return {"received_at": to_text(ctx.now), "body": body, **about}


def _moment(at: datetime | None, now: datetime) -> datetime:
    """When it happened; a clock of theirs that is ahead of ours does not make it the future."""
    return now if at is None or at > now else at


def _clean(text: str, longest: int) -> str:
    """What a database keeps: no NUL, no half characters, not more than there is room for."""
    return text[:longest].replace("\x00", "").encode(errors="replace").decode()
