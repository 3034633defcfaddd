"""Trying a channel account: whether it can be reached, and one message by it. No transaction is open meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.accounts import Account, AccountHealth
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.audience import normalise_email_address
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind, Channel
from nexus_marketing.core.errors import Conflict, RateLimited, ValidationError
from nexus_marketing.core.sms import is_e164
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.accounts import note_health
from nexus_marketing.db.queries.privacy import suppressed_hashes
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.trying import Tried, try_message, try_reach
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.channel_configs import find_channel, secrets_of_type
from nexus_marketing.services.privacy import address_hash

#: Whoever asks more often than that does not want to know whether it works.
_BETWEEN: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Trial:
    account: Account
    channel: Channel
    settings: Mapping[str, Any] = field(repr=False)
    secrets: list[Any] = field(repr=False)


def probe_account(runtime: Runtime, tenant_id: int, actor: Actor, account_id: int) -> Tried:
    """Connect to an account's provider, log in, and part; what is seen is its ``health`` from now on.

    Raises:
        NotFound: there is no such account.
        Conflict: its channel cannot be looked at without sending, or its secrets cannot be read.
        RateLimited: it was tried a moment ago.
    """
    with runtime.work(tenant_id, actor, mode="read", role="app") as ctx:
        trial = _trial(ctx, account_id)
    return _noted(runtime, tenant_id, actor, trial, try_reach(trial.channel, trial.settings, trial.secrets))


def send_test(runtime: Runtime, tenant_id: int, actor: Actor, account_id: int, to: str = "") -> Tried:
    """Send one message by an account. It counts nowhere, and goes to nobody who is suppressed.

    Args:
        runtime: of the process.
        tenant_id: whose account.
        actor: who asks; audited.
        account_id: which one.
        to: an address of the channel's kind; left out where the channel needs none.

    Raises:
        NotFound: there is no such account.
        ValidationError: ``to`` is missing, or no address of this channel.
        Conflict: the address is suppressed; or the account's secrets cannot be read.
        RateLimited: it was tried a moment ago.
    """
    with runtime.work(tenant_id, actor, role="app") as ctx:
        trial = _trial(ctx, account_id)
        address = _address(trial.channel, to)
        if address:
            _refuse_suppressed(ctx, trial.channel.name, address)
        record(ctx, "channel.tested", "channel", account_id, {"to": (None, address)}, personal=("to",))
        note_health(ctx.session, trial.account, ctx.now, trial.account.health, None)
    tried = try_message(trial.channel, trial.settings, address, runtime.clock, trial.secrets)
    return _noted(runtime, tenant_id, actor, trial, tried)


def _trial(ctx: Context, account_id: int) -> _Trial:
    row = find(ctx.session, ChannelAccount, account_id)
    waited = _BETWEEN if row.health_at is None else ctx.now - row.health_at
    if abs(waited) < _BETWEEN:
        rest = (_BETWEEN - abs(waited)).total_seconds()
        raise RateLimited("This account was tried a moment ago: wait a little.", retry_after_seconds=rest)
    runtime, account = ctx.runtime, Account._make(getattr(row, name) for name in Account._fields)
    channel = find_channel(runtime, account.type)
    of_plugin = runtime.channel_settings(ctx.session, account.type)
    if of_plugin is None:
        raise Conflict(
            f"{account.type} belongs to a plugin that is off for this tenant: plugins enable switches it on."
        )
    settings = {**runtime.account_settings(row.tenant_id, account), **of_plugin}
    names = secrets_of_type(runtime, account.type)
    return _Trial(account, channel, settings, [settings[name] for name in settings.keys() & names])


def _noted(runtime: Runtime, tenant_id: int, actor: Actor, trial: _Trial, tried: Tried) -> Tried:
    reason = None if tried.health in (AccountHealth.OK, AccountHealth.UNKNOWN) else (tried.detail or tried.code)
    with runtime.work(tenant_id, actor, role="app") as ctx:
        note_health(ctx.session, trial.account, ctx.now, tried.health, reason)
    runtime.accounts.forget(tenant_id)
    return tried


def _address(channel: Channel, to: str) -> str:
    kind, text = channel.capabilities.address_kind, to.strip()
    if kind not in (AddressKind.EMAIL, AddressKind.PHONE):
        return ""
    if not text:
        raise ValidationError.at("to", "required", f"A test by {channel.name} needs an address: name it in to.")
    if kind is AddressKind.EMAIL:
        return normalise_email_address(text)
    if not is_e164(text):
        raise ValidationError.at("to", "not_a_phone", "Write the number as +493012345678.")
    return text


def _refuse_suppressed(ctx: Context, channel: str, address: str) -> None:
    hashed = address_hash(ctx, address)
    if any(suppressed_hashes(ctx.session, [hashed], channel, each) for each in MessageClass):
        raise Conflict("This address is suppressed: nothing is sent there, tests neither.")
