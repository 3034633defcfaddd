"""Sealing tenants' secrets again under the newest key, so that an older one can be taken out of ``nexus.secret_key``."""

from typing import Any, NamedTuple

from sqlalchemy import Row

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import SecretsUnreadable
from nexus_marketing.db.queries.accounts import seal_again, sealed_rows
from nexus_marketing.runtime import Runtime, account_place, plugin_place
from nexus_marketing.services.audit import record

_PLACES = {"account": account_place, "plugin": plugin_place}
_SUBJECTS = {"account": "channel", "plugin": "plugin_settings"}


class Rotation(NamedTuple):
    """How many secrets there are, are sealed under the newest key by this, and cannot be opened (key gone, or altered)."""

    sealed: int
    renewed: int
    unreadable: int


def stale_secrets(runtime: Runtime) -> Rotation:
    """What a rotation would do; nothing is written."""
    vault, renewed, unreadable = runtime.keys.vault, 0, 0
    with runtime.work(None, mode="read", role="owner") as ctx:
        rows = sealed_rows(ctx.session)
    for kind, row in rows:
        renewed += not vault.is_current(row.secrets)
        unreadable += _opened(runtime, kind, row) is None
    return Rotation(len(rows), renewed, unreadable)


def rotate_secrets(runtime: Runtime, actor: Actor) -> Rotation:
    """Seal again whatever is not under the newest key, each in a transaction of its own: it may be broken off and begun anew.

    What somebody sets meanwhile is under the newest key already. What no key opens is left as it is, and counted: one
    row that was altered keeps nobody else's secrets under an old key.
    """
    vault, renewed, unreadable = runtime.keys.vault, 0, 0
    with runtime.work(None, mode="read", role="owner") as ctx:
        rows = sealed_rows(ctx.session)
    for kind, row in rows:
        old = bytes(row.secrets)
        opened = _opened(runtime, kind, row)
        if opened is None:
            unreadable += 1
            continue
        if vault.is_current(old):
            continue
        new = vault.seal(opened, _PLACES[kind](row.tenant_id, row.id)) or b""
        with runtime.work(row.tenant_id, actor) as ctx:
            if seal_again(ctx.session, kind, row.id, {"old": old, "new": new}):
                renewed += 1
                record(ctx, "secrets.renewed", _SUBJECTS[kind], row.id)
    return Rotation(len(rows), renewed, unreadable)


def _opened(runtime: Runtime, kind: str, row: Row[Any]) -> dict[str, Any] | None:
    try:
        return runtime.keys.vault.open(row.secrets, _PLACES[kind](row.tenant_id, row.id))
    except SecretsUnreadable:
        return None
