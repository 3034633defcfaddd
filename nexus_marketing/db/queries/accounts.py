"""SQL about channel accounts: those that messages leave by, and what is seen of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, select, text
from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import Account
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import Json, UtcDateTime
from nexus_marketing.telemetry import scrub

#: Of one tenant, all channels together: more are refused when they are made.
MOST_ACCOUNTS = 200


def accounts_of(session: Session) -> dict[str, Sequence[Account]]:
    """The enabled accounts of the session's tenant by channel, the oldest first."""
    columns = (getattr(ChannelAccount, name) for name in Account._fields)
    wanted = select(*columns).where(ChannelAccount.enabled.is_(True)).order_by(ChannelAccount.id).limit(MOST_ACCOUNTS)
    found: defaultdict[str, list[Account]] = defaultdict(list)
    for row in session.execute(wanted):
        found[row.type].append(Account._make(row))
    return dict(found)


def all_accounts(session: Session) -> list[ChannelAccount]:
    """Every account of the session's tenant, disabled ones too, by channel."""
    wanted = select(ChannelAccount).order_by(ChannelAccount.type, ChannelAccount.id).limit(MOST_ACCOUNTS)
    return list(session.scalars(wanted))


_NOTE_HEALTH = """
UPDATE marketing_channels SET health = :health, health_reason = :reason, health_at = :at
WHERE tenant_id = :tenant_id AND id = :id AND version = :version
"""


def note_health(session: Session, account: Account, at: datetime, health: str, reason: str | None) -> None:
    """Write down what was seen of an account, unless somebody has changed it since.

    The reason is in other people's words, which often name the recipient: no address of anybody's is kept of them.
    """
    reason = None if reason is None else scrub(reason)
    values = {"id": account.id, "version": account.version, "at": at, "health": health, "reason": reason}
    run(session, text(_NOTE_HEALTH).bindparams(bindparam("at", type_=UtcDateTime())), values, writes=True)


_ILL = """
SELECT a.tenant_id, t.slug, a.type, a.name, a.health, a.health_reason FROM marketing_channels a
JOIN marketing_tenants t ON t.id = a.tenant_id
WHERE a.enabled AND a.health IN ('refused', 'unreachable') ORDER BY t.slug, a.type, a.name LIMIT 100
"""


def ill_accounts(session: Session) -> list[Row[Any]]:
    """(tenant_id, slug, type, name, health, health_reason) of enabled accounts that do not work; for the operator."""
    return list(run_for_all(session, _ILL, writes=False))


_LISTENING = {
    # By way of the tenants, each by its own part of the index: one pass over all accounts would be one over all tenants.
    "postgresql": """
SELECT t.id AS tenant_id, {columns} FROM marketing_tenants t CROSS JOIN LATERAL (
    SELECT * FROM marketing_channels c WHERE c.tenant_id = t.id AND c.type = :type AND c.enabled OFFSET 0) a
ORDER BY t.id, a.id""",
    "sqlite": """
SELECT t.id AS tenant_id, {columns} FROM marketing_tenants t CROSS JOIN marketing_channels a
WHERE a.tenant_id = t.id AND a.type = :type AND a.enabled ORDER BY t.id, a.id""",
}


def accounts_to_hear(session: Session, type_: str) -> list[tuple[int, Account]]:
    """(tenant_id, account) of every tenant's enabled accounts of a channel."""
    columns = ", ".join(f"a.{name}" for name in Account._fields)
    statement = _LISTENING["postgresql" if is_postgresql(session) else "sqlite"].format(columns=columns)
    typed = text(statement).columns(config=Json, rates=Json)
    rows = run_for_all(session, typed, {"type": type_}, writes=False)
    return [(row.tenant_id, Account._make(getattr(row, name) for name in Account._fields)) for row in rows]


_SEALED = {
    "account": "SELECT tenant_id, id, secrets FROM marketing_channels WHERE secrets IS NOT NULL ORDER BY tenant_id, id",
    "plugin": "SELECT tenant_id, id, secrets FROM marketing_plugins WHERE secrets IS NOT NULL ORDER BY tenant_id, id",
}
_RESEAL = {
    "account": "UPDATE marketing_channels SET secrets = :new WHERE tenant_id = :tenant_id AND id = :id AND secrets = :old",
    "plugin": "UPDATE marketing_plugins SET secrets = :new WHERE tenant_id = :tenant_id AND id = :id AND secrets = :old",
}


def sealed_rows(session: Session) -> list[tuple[str, Row[Any]]]:
    """What is sealed, of all tenants: ``account`` or ``plugin``, and (tenant_id, id, secrets); for the operator."""
    return [(kind, row) for kind, wanted in _SEALED.items() for row in run_for_all(session, wanted, writes=False)]


def seal_again(session: Session, kind: str, id_: int, sealed: Mapping[str, bytes]) -> bool:
    """Put ``new`` in the place of ``old`` secrets; not where somebody has set others meanwhile."""
    return run(session, _RESEAL[kind], {"id": id_, **sealed}, writes=True).rowcount == 1  # type: ignore[attr-defined]
