"""Channel accounts of a tenant: made, changed and removed by people; their secrets go in and never come out."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.accounts import AccountHealth
from nexus_marketing.core.errors import Conflict, Problem, ValidationError
from nexus_marketing.core.pacing.rates import check_account_rates
from nexus_marketing.core.values import canonical, canonical_text
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.accounts import MOST_ACCOUNTS
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context, account_place
from nexus_marketing.services.audit import record
from nexus_marketing.services.channels.configs import Config, read_config
from nexus_marketing.services.versions import find_to_change

MOST_WEIGHT: Final = 1_000
_NAME_LENGTH: Final = 63
_PLAIN: Final = ("name", "enabled", "weight", "rates", "config")


def create_account(ctx: Context, data: Mapping[str, Any]) -> ChannelAccount:
    """Write down an account.

    Args:
        ctx: the unit of work.
        data: ``type`` (a channel), ``name``, ``config`` (its settings, secrets among them), ``enabled`` (default: yes),
            ``weight`` (0 to 1000, default 1; 0 stands by for the others), ``rates`` (as ``check_account_rates`` takes
            them).

    Raises:
        ValidationError: everything that is wrong, with its place; no message repeats a secret.
        Conflict: the name is taken among the channel's accounts, or the tenant has too many.
    """
    count = ctx.session.scalar(select(func.count()).select_from(ChannelAccount)) or 0
    if count >= MOST_ACCOUNTS:
        raise Conflict(f"The tenant has {count} channel accounts: remove one first.")
    type_ = str(data["type"])
    config = read_config(ctx.runtime, ctx.session, type_, data.get("config") or {})
    account = ChannelAccount(
        type=type_,
        name=_name(data["name"]),
        config=config.plain,
        enabled=data.get("enabled", True),
        weight=_weight(data.get("weight", 1)),
        rates=_rates(data.get("rates", [])),
        health=AccountHealth.UNKNOWN,
        secrets_set=sorted(config.secrets),
        version=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(account)
    _flush_name(ctx, account)
    account.secrets = _sealed(ctx, account.id, config)
    ctx.session.flush()
    changes = {name: (None, getattr(account, name)) for name in ("type", *_PLAIN)}
    _note(ctx, "channel.created", account, {**changes, **_secret_changes({}, config.secrets)})
    return account


def update_account(
    ctx: Context, account_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> ChannelAccount:
    """Change an account; of ``config`` what is not named stays, and ``None`` takes a setting out.

    Workers use it within a second; what was seen of its health says nothing any more.

    Raises:
        NotFound: there is no such account.
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: as for a new one; or ``required_again``: a stored secret would be sent to another server.
        Conflict: the name is taken; or its secrets cannot be read any more (``secrets_unreadable``).
    """
    account = find_to_change(ctx, ChannelAccount, account_id, expected_version)
    before = {name: getattr(account, name) for name in _PLAIN}
    known = Config(account.config, secrets_of(ctx, account)) if "config" in data else Config(account.config, {})
    config = known
    if "config" in data:
        config = read_config(ctx.runtime, ctx.session, account.type, data["config"], known)
        account.config = config.plain
        if config.secrets != known.secrets:
            account.secrets, account.secrets_set = _sealed(ctx, account.id, config), sorted(config.secrets)
    if "name" in data:
        account.name = _name(data["name"])
    account.enabled = data.get("enabled", account.enabled)
    account.weight = _weight(data.get("weight", account.weight))
    if "rates" in data:
        account.rates = _rates(data["rates"])
    account.health, account.health_reason, account.health_at = AccountHealth.UNKNOWN, None, None
    account.version += 1
    account.updated_at = ctx.now
    _flush_name(ctx, account)
    changes = {name: (old, getattr(account, name)) for name, old in before.items() if old != getattr(account, name)}
    _note(ctx, "channel.updated", account, {**changes, **_secret_changes(known.secrets, config.secrets)})
    return account


def delete_account(ctx: Context, account_id: int, *, expected_version: int | None = None) -> None:
    """Remove an account and its secrets; sends that have no other are paused and say so.

    Raises:
        NotFound: there is no such account.
        StaleVersion: ``expected_version`` is not the current one.
    """
    account = find_to_change(ctx, ChannelAccount, account_id, expected_version)
    ctx.session.delete(account)
    ctx.session.flush()
    _note(ctx, "channel.deleted", account, {"type": (account.type, None), "name": (account.name, None)})


def secrets_of(ctx: Context, account: ChannelAccount) -> dict[str, Any]:
    """An account's secrets, for code that hands them to its channel.

    Raises:
        SecretsUnreadable: their key is gone.
    """
    return ctx.runtime.keys.vault.open(account.secrets, account_place(tenant_of(ctx.session), account.id))


def _sealed(ctx: Context, account_id: int, config: Config) -> bytes | None:
    return ctx.runtime.keys.vault.seal(config.secrets, account_place(tenant_of(ctx.session), account_id))


def _secret_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """That a secret was set, changed or taken out, and nothing of what it is."""
    return {
        f"secrets.{name}": ("set" if name in before else None, "set anew" if name in after else None)
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _note(ctx: Context, action: str, account: ChannelAccount, changes: Mapping[str, tuple[Any, Any]]) -> None:
    record(ctx, action, "channel", account.id, changes, personal=("config",))
    tenant_id, accounts = tenant_of(ctx.session), ctx.runtime.accounts
    ctx.after_commit(lambda: accounts.forget(tenant_id))
    ctx.ring("sends")


def _name(value: object) -> str:
    text = canonical_text(str(value).strip(), "name")
    if not 1 <= len(text) <= _NAME_LENGTH or not text.isprintable():
        raise ValidationError.at("name", "not_well_formed", f"A name has 1 to {_NAME_LENGTH} printable characters.")
    return text


def _rates(value: object) -> list[dict[str, Any]]:
    try:
        return [dict(canonical(each, "rates")) for each in check_account_rates(value)]
    except ValidationError as error:
        problems = [Problem(f"rates{each.path}", each.code, each.message) for each in error.problems]
        raise ValidationError(problems=problems) from error


def _weight(value: int) -> int:
    if not 0 <= value <= MOST_WEIGHT:
        said = f"{value} is no weight: write 0 (stands by) to {MOST_WEIGHT}."
        raise ValidationError.at("weight", "out_of_bounds", said)
    return value


def _flush_name(ctx: Context, account: ChannelAccount) -> None:
    name, type_ = account.name, account.type
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"name: there is a {type_} account {name!r} already; choose another name.", field="name"
        ) from error
