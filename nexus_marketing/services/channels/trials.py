"""Trying a channel account: whether it can be reached, and one message by it. No transaction is open meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.accounts import Account, AccountHealth
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.audience import normalise_email_address
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind, Channel
from nexus_marketing.core.errors import Conflict, RateLimited, ValidationError
from nexus_marketing.core.sms import is_e164
from nexus_marketing.db.models import AuditEntry, ChannelAccount
from nexus_marketing.db.queries.accounts import note_health
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.privacy import suppressed_hashes
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.trying import Tried, try_message, try_reach
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.channels.configs import find_channel, secrets_of_type
from nexus_marketing.services.privacy import address_hash

#: Whoever asks more often than that does not want to know whether it works.
_BETWEEN: Final = timedelta(seconds=5)
#: Test messages of a tenant, whose budget they are not charged to: by the operator's provider they may cost money.
_MOST_TESTS: Final = 30
_TESTS_WITHIN: Final = timedelta(hours=1)
_TESTED: Final = "channel.tested"


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
        RateLimited: it was tried a moment ago, or the tenant tries another one now.
    """
    with runtime.trials.one(tenant_id):
        with runtime.work(tenant_id, actor, role="app") as ctx:
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
        RateLimited: it was tried a moment ago, the tenant tries another one now, or sent too many of these.
    """
    with runtime.trials.one(tenant_id):
        with runtime.work(tenant_id, actor, role="app") as ctx:
            wait_alone(ctx.session, "channel tests")
            trial = _trial(ctx, account_id)
            address = _address(trial.channel, to)
            _refuse_many(ctx)
            # Not the address, which no erasure would find here: who knows it can tell whether it was this one.
            hashed = address_hash(ctx, address) if address else None
            if hashed is not None:
                _refuse_suppressed(ctx, trial.channel.name, hashed)
            record(ctx, _TESTED, "channel", account_id, {"to_hash": (None, hashed)})
        tried = try_message(trial.channel, trial.settings, address, runtime.clock, trial.secrets)
        return _noted(runtime, tenant_id, actor, trial, tried)


def _trial(ctx: Context, account_id: int) -> _Trial:
    """The account, if it may be tried now; whoever asks next finds that it was."""
    row = find(ctx.session, ChannelAccount, account_id, lock=True)
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
    note_health(ctx.session, account, ctx.now, account.health, row.health_reason)
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


def _refuse_many(ctx: Context) -> None:
    about = (
        AuditEntry.subject_type == "channel",
        AuditEntry.action == _TESTED,
        AuditEntry.at > ctx.now - _TESTS_WITHIN,
    )
    moments = ctx.session.scalars(select(AuditEntry.at).where(*about).order_by(AuditEntry.at).limit(_MOST_TESTS)).all()
    if len(moments) >= _MOST_TESTS:
        rest = (moments[0] + _TESTS_WITHIN - ctx.now).total_seconds()
        said = f"{_MOST_TESTS} test messages were sent within the last hour: wait, or look with check, which sends nothing."
        raise RateLimited(said, retry_after_seconds=max(rest, 1.0))


def _refuse_suppressed(ctx: Context, channel: str, hashed: bytes) -> None:
    if any(suppressed_hashes(ctx.session, [hashed], channel, each) for each in MessageClass):
        raise Conflict("This address is suppressed: nothing is sent there, tests neither.")
