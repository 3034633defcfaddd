"""SQL of leads whose dates bring them into journeys: a piece of all of them, or some that are named."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Executable, bindparam, select, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, send
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
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
    return Question(_named(_columns(names), ids_of(session)), {"ids": as_ids(lead_ids)})


def _columns(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(_ALWAYS.union(names).intersection(LEADS.c.keys())))


@lru_cache(maxsize=100)
def _after(columns: tuple[str, ...]) -> Executable:
    mine = (LEADS.c.tenant_id == _TENANT, LEADS.c.id > bindparam("after", type_=BigInt), LEADS.c.gone_at.is_(None))
    wanted = select(*(LEADS.c[name] for name in columns)).where(*mine)
    return wanted.order_by(LEADS.c.id).limit(bindparam("most", type_=BigInt))


@lru_cache(maxsize=100)
def _named(columns: tuple[str, ...], ids: str) -> Executable:
    mine = (LEADS.c.tenant_id == _TENANT, text(f"id IN ({ids})"), LEADS.c.gone_at.is_(None))
    return select(*(LEADS.c[name] for name in columns)).where(*mine)


_NONE_OF: Final = """
DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND type = :type AND key IN (
  SELECT CAST(:journey_id AS text) || ':' || CAST(i.id AS text) FROM ({ids}) AS i)
"""


def forget_dates(session: Session, type_: str, journey_id: int, lead_ids: Collection[int]) -> None:
    """Take the timers of leads back that have no date any more; may be sent ahead."""
    values: dict[str, Any] = {"type": type_, "journey_id": journey_id, "ids": as_ids(lead_ids)}
    send(session, _NONE_OF.format(ids=ids_of(session)), values)
