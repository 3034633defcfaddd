"""SQL of what brings leads into journeys: a piece of all of them, or some that are named, and no more than is looked at."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Executable, Select, bindparam, select, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, send
from nexus_marketing.db.queries.rowsets import among, as_among, as_ids, ids_of
from nexus_marketing.db.queries.segments import LEADS
from nexus_marketing.db.types import BigInt

_TENANT = bindparam("tenant_id", type_=BigInt)
#: Whose clock counts, beside the dates.
_ALWAYS: Final = frozenset({"id", "time_zone"})


def leads_after(after: int, most: int, names: Collection[str]) -> Question:
    """The next leads by their ids, at most so many: the columns of these names."""
    return Question(_after(_columns(names)), {"after": after, "most": most})


def leads_named(session: Session, lead_ids: Collection[int], names: Collection[str]) -> Question:
    """The same of leads that are named."""
    return Question(_named(_columns(names), among(session, "ids")), {"ids": as_among(session, lead_ids)})


def leads_locked(session: Session, lead_ids: Collection[int], names: Collection[str] | None) -> Question:
    """As :func:`leads_named`, in the order of their ids; nobody changes them until the end of the transaction.

    Without ``names`` all columns.
    """
    columns = _columns(LEADS.c.keys() if names is None else names)
    return Question(_locking(columns, among(session, "ids")), {"ids": as_among(session, lead_ids)}, writes=True)


def _columns(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(_ALWAYS.union(names).intersection(LEADS.c.keys())))


@lru_cache(maxsize=100)
def _after(columns: tuple[str, ...]) -> Executable:
    mine = (LEADS.c.tenant_id == _TENANT, LEADS.c.id > bindparam("after", type_=BigInt), LEADS.c.gone_at.is_(None))
    wanted = select(*(LEADS.c[name] for name in columns)).where(*mine)
    return wanted.order_by(LEADS.c.id).limit(bindparam("most", type_=BigInt))


@lru_cache(maxsize=100)
def _named(columns: tuple[str, ...], among_ids: str) -> Select[Any]:
    mine = (LEADS.c.tenant_id == _TENANT, text(f"id {among_ids}"), LEADS.c.gone_at.is_(None))
    return select(*(LEADS.c[name] for name in columns)).where(*mine)


@lru_cache(maxsize=100)
def _locking(columns: tuple[str, ...], among_ids: str) -> Executable:
    return _named(columns, among_ids).order_by(LEADS.c.id).with_for_update()


_NONE_OF: Final = """
DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND type = :type AND key IN (
  SELECT CAST(:journey_id AS text) || ':' || CAST(i.id AS text) FROM ({ids}) AS i)
"""


def forget_dates(session: Session, type_: str, journey_id: int, lead_ids: Collection[int]) -> None:
    """Take the timers of leads back that have no date any more; may be sent ahead."""
    values: dict[str, Any] = {"type": type_, "journey_id": journey_id, "ids": as_ids(lead_ids)}
    send(session, _NONE_OF.format(ids=ids_of(session)), values)
