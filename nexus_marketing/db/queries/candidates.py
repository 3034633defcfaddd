"""Leads that a rule may be true of, with what plugins read of them and what the database says of parts of the rule."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, bindparam, select
from sqlalchemy.orm import Session

from nexus_marketing.db.conditions import wrap_for_select
from nexus_marketing.db.queries.segments import LEADS
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import BigInt

_TENANT: Final = bindparam("tenant_id", type_=BigInt)


def candidates(
    session: Session,
    narrow: ColumnElement[bool] | None,
    columns: Sequence[str],
    parts: Sequence[ColumnElement[bool]],
    *,
    after: int = 0,
    most: int | None = None,
    lead_ids: Sequence[int] | None = None,
) -> list[Row[Any]]:
    """Living leads, ascending: each row is the id, then the columns, then the parts as true or false.

    Args:
        session: one of the tenant's.
        narrow: the condition that holds for all of them, if any.
        columns: of leads, by name.
        parts: conditions to be answered of each.
        after: only leads with ids above this one.
        most: at most so many.
        lead_ids: of these alone.
    """
    shown = [LEADS.c.id.label("_id"), *(LEADS.c[name].label(f"_{name}") for name in columns)]
    shown += [wrap_for_select(part).label(f"_part_{place}") for place, part in enumerate(parts)]
    wanted = [LEADS.c.tenant_id == _TENANT, LEADS.c.gone_at.is_(None), LEADS.c.id > after]
    if narrow is not None:
        wanted.append(narrow)
    if lead_ids is not None:
        wanted.append(LEADS.c.id.in_(lead_ids))
    statement = select(*shown).where(*wanted).order_by(LEADS.c.id)
    return list(run(session, statement if most is None else statement.limit(most), writes=False))
