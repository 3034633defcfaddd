"""SQL of those who come into a journey: many at a time, a statement for each table."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, answers, send
from nexus_marketing.db.queries.journey_steps import CHANGING
from nexus_marketing.db.queries.rowsets import Values, as_ids, columns_of, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import UtcDateTime, read_moment

_RUN: Final = {"lead_id": "bigint", "sequence": "bigint", "key": "text", "entered_at": "timestamptz", **CHANGING}
_STEP: Final = {"run_id": "bigint", "at": "timestamptz", "said": "text", "node": "text", "detail": "jsonb"}
_ARRIVAL: Final = {"lead_id": "bigint", "outcome": "text", "run_id": "bigint"}


@dataclass(slots=True)
class PastOfLead:
    """What is known of a lead in a journey: how often it entered, when last, with which keys, and whether it was asked."""

    entries: int = 0
    last_entered_at: datetime | None = None
    keys: set[str] = field(default_factory=set)
    is_seen: bool = False


def lock_living(session: Session, lead_ids: Collection[int]) -> set[int]:
    """Those of the leads that are there; nobody changes them until the end of the transaction."""
    lock = " FOR UPDATE" if is_postgresql(session) else ""
    statement = (
        f"SELECT id FROM marketing_leads WHERE tenant_id = :tenant_id AND id IN ({ids_of(session)})"
        f" AND gone_at IS NULL ORDER BY id{lock}"
    )
    return set(run(session, statement, {"ids": as_ids(lead_ids)}, writes=True).scalars())


_MINE = "FROM marketing_journey_runs WHERE tenant_id = :tenant_id AND journey_id = :journey_id AND lead_id IN ({ids})"
_COUNTED = f"SELECT lead_id, max(sequence) AS entries, max(entered_at) AS last {_MINE} GROUP BY lead_id"
_KEYS = f"SELECT lead_id, key {_MINE} AND key IS NOT NULL"
# A look for each lead, which no belief about a table that fills can turn into one at all who came before, for each of them.
_SEEN = """
SELECT i.id AS lead_id FROM ({ids}) AS i WHERE (
  SELECT a.lead_id FROM marketing_journey_arrivals AS a
  WHERE a.tenant_id = :tenant_id AND a.journey_id = :journey_id AND a.lead_id = i.id AND a.occurrence = :occurrence
) IS NOT NULL
"""


def pasts_of(
    session: Session, journey_id: int, lead_ids: Collection[int], occurrence: str, *, with_keys: bool
) -> dict[int, PastOfLead]:
    """What is known of each of the leads in a journey; ``with_keys`` also by which keys they entered."""
    bound = {"journey_id": journey_id, "ids": as_ids(lead_ids)}
    ids = ids_of(session)
    counted, seen, *keyed = answers(
        session,
        Question(_COUNTED.format(ids=ids), bound),
        Question(_SEEN.format(ids=ids), {**bound, "occurrence": occurrence}),
        *([Question(_KEYS.format(ids=ids), bound)] if with_keys else []),
    )
    found = {lead_id: PastOfLead() for lead_id in lead_ids}
    for row in counted:
        past = found[row.lead_id]
        past.entries, past.last_entered_at = row.entries, read_moment(row.last)
    for row in seen:
        found[row.lead_id].is_seen = True
    for row in keyed[0] if keyed else ():
        found[row.lead_id].keys.add(row.key)
    return found


def add_runs(session: Session, shared: Mapping[str, Any], rows: Sequence[Values]) -> dict[int, int]:
    """Write new runs, one of each lead; answers their ids by lead.

    Args:
        session: of the tenant.
        shared: ``journey_id``, ``version_number`` and ``is_single``.
        rows: columns of :class:`~nexus_marketing.db.models.JourneyRun`, moments as canonical text.
    """
    source, bound = columns_of(session, _RUN, rows)
    names = ", ".join(_RUN)
    statement = (
        f"INSERT INTO marketing_journey_runs (tenant_id, journey_id, version_number, is_single, {names})"
        f" SELECT :tenant_id, :journey_id, :version_number, :is_single, {names} FROM {source} RETURNING id, lead_id"
    )
    (written,) = answers(session, Question(statement, {**bound, **shared}, writes=True))
    return {row.lead_id: row.id for row in written}


def add_steps(session: Session, rows: Sequence[Values]) -> None:
    """Write lines of history; ``at`` is canonical text. May be sent ahead."""
    source, bound = columns_of(session, _STEP, rows)
    names = ", ".join(_STEP)
    send(
        session,
        f"INSERT INTO marketing_journey_steps (tenant_id, {names}) SELECT :tenant_id, {names} FROM {source}",
        bound,
    )


_ARRIVED = """
INSERT INTO marketing_journey_arrivals (tenant_id, journey_id, occurrence, at, {names})
SELECT :tenant_id, :journey_id, :occurrence, :at, {names} FROM {source}
"""


def add_arrivals(session: Session, shared: Mapping[str, Any], rows: Sequence[Values]) -> None:
    """Write what became of arrivals: ``lead_id``, ``outcome`` and ``run_id``; may be sent ahead.

    ``shared`` is their ``journey_id``, ``occurrence`` and moment ``at``.
    """
    source, bound = columns_of(session, _ARRIVAL, rows)
    statement = text(_ARRIVED.format(names=", ".join(_ARRIVAL), source=source))
    send(session, statement.bindparams(bindparam("at", type_=UtcDateTime())), {**bound, **shared})
