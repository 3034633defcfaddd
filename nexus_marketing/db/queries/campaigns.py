"""SQL of campaigns whose time has come."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run_for_all
from nexus_marketing.db.types import UtcDateTime

_DUE = text("""
SELECT tenant_id, id FROM marketing_campaigns WHERE tick_at IS NOT NULL AND tick_at <= :now
ORDER BY tick_at LIMIT 100
""").bindparams(bindparam("now", type_=UtcDateTime()))


def campaigns_to_tick(session: Session, now: datetime) -> list[Row[Any]]:
    """(tenant_id, id) of campaigns that the clock may move, the longest waiting first.

    By the clock that decides about them, not the database's: one that is ahead would offer them again and again.
    """
    return list(run_for_all(session, _DUE, {"now": now}, writes=False))
