"""Sealing tenants' secrets again under the newest key, so that an older one can be taken out of ``nexus.secret_key``."""

from typing import NamedTuple

from nexus_marketing.core.actors import Actor
from nexus_marketing.db.queries.accounts import seal_again, sealed_rows
from nexus_marketing.runtime import Runtime, account_place, plugin_place
from nexus_marketing.services.audit import record

_PLACES = {"account": account_place, "plugin": plugin_place}
_SUBJECTS = {"account": "channel", "plugin": "plugin_settings"}


class Rotation(NamedTuple):
    """How many secrets there are, are under the newest key now, and are unreadable with every key."""

    sealed: int
    renewed: int
    unreadable: int


def stale_secrets(runtime: Runtime) -> Rotation:
    """What a rotation would do; nothing is written."""
    vault, renewed, unreadable = runtime.keys.vault, 0, 0
    with runtime.work(None, mode="read", role="owner") as ctx:
        rows = sealed_rows(ctx.session)
    for _, row in rows:
        renewed += not vault.is_current(row.secrets)
        unreadable += not vault.knows(row.secrets)
    return Rotation(len(rows), renewed, unreadable)


def rotate_secrets(runtime: Runtime, actor: Actor) -> Rotation:
    """Seal again whatever is not under the newest key, each in a transaction of its own: it may be broken off and begun anew.

    What somebody sets meanwhile is under the newest key already. What no key opens is left as it is, and counted.
    """
    vault, renewed, unreadable = runtime.keys.vault, 0, 0
    with runtime.work(None, mode="read", role="owner") as ctx:
        rows = sealed_rows(ctx.session)
    for kind, row in rows:
        old = bytes(row.secrets)
        if vault.is_current(old):
            continue
        if not vault.knows(old):
            unreadable += 1
            continue
        place = _PLACES[kind](row.tenant_id, row.id)
        new = vault.seal(vault.open(old, place), place) or b""
        with runtime.work(row.tenant_id, actor) as ctx:
            if seal_again(ctx.session, kind, row.id, {"old": old, "new": new}):
                renewed += 1
                record(ctx, "secrets.renewed", _SUBJECTS[kind], row.id)
    return Rotation(len(rows), renewed, unreadable)
