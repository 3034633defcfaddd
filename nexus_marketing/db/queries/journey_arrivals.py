"""SQL of those who come into a journey: many at a time, a statement for each table."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, answers, send
from nexus_marketing.db.queries.journeys import RUN_DUE
from nexus_marketing.db.queries.rowsets import Values, as_among, columns_of, is_postgresql
from nexus_marketing.db.types import Json, UtcDateTime, read_moment

_STEP: Final = {"run_id": "bigint", "at": "timestamptz", "said": "text", "node": "text", "detail": "jsonb"}
_REFUSED: Final = {"lead_id": "bigint", "outcome": "text"}


@dataclass(slots=True)
class PastOfLead:
    """What is known of a lead in a journey: how often it entered, when last, with which keys, and whether it was asked."""

    entries: int = 0
    last_entered_at: datetime | None = None
    keys: set[str] = field(default_factory=set)
    is_seen: bool = False


# A look for each lead, by a key whose order is asked for: no belief about a table that fills can turn it into one at all
# who came before (``db.by_index``). SQLite, which believes nothing, knows no LATERAL.
_OF_EACH = """
SELECT i.id AS lead_id, r.* FROM (SELECT unnest(CAST(:ids AS bigint[])) AS id) AS i CROSS JOIN LATERAL ({each}) AS r
"""
_EACH = "WHERE tenant_id = :tenant_id AND journey_id = :journey_id AND lead_id = i.id"
_LAST_PG = _OF_EACH.format(
    each=f"SELECT sequence, entered_at FROM marketing_journey_runs {_EACH} ORDER BY sequence DESC LIMIT 1"
)
_KEYS_PG = _OF_EACH.format(each=f"SELECT key FROM marketing_journey_runs {_EACH} AND key IS NOT NULL ORDER BY sequence")
_SEEN_PG = _OF_EACH.format(
    each=f"SELECT occurrence FROM marketing_journey_arrivals {_EACH} AND occurrence = :occurrence LIMIT 1"
)
_THOSE = """
WHERE tenant_id = :tenant_id AND journey_id = :journey_id AND lead_id IN (SELECT value FROM json_each(:ids))
"""
_LAST = f"SELECT lead_id, max(sequence) AS sequence, entered_at FROM marketing_journey_runs {_THOSE} GROUP BY lead_id"
_KEYS = f"SELECT lead_id, key FROM marketing_journey_runs {_THOSE} AND key IS NOT NULL"
_SEEN = f"SELECT lead_id FROM marketing_journey_arrivals {_THOSE} AND occurrence = :occurrence"


class PastAsked(NamedTuple):
    """What is asked of leads in a journey, and what is made of the answers (``db.ahead.answers``)."""

    questions: tuple[Question, ...]

    def told(self, answered: Sequence[Sequence[Any]]) -> dict[int, PastOfLead]:
        """By the leads of whom anything is known."""
        last, seen, *keyed = answered
        found = {row.lead_id: PastOfLead(row.sequence, read_moment(row.entered_at)) for row in last}
        for row in seen:
            found.setdefault(row.lead_id, PastOfLead()).is_seen = True
        for row in keyed[0] if keyed else ():
            found[row.lead_id].keys.add(row.key)
        return found


def past_asked(
    session: Session, journey_id: int, lead_ids: Collection[int], occurrence: str, *, with_keys: bool
) -> PastAsked:
    """What is known of each of the leads in a journey; ``with_keys`` also by which keys they entered."""
    bound = {"journey_id": journey_id, "ids": as_among(session, lead_ids), "occurrence": occurrence}
    last, seen, keys = (_LAST_PG, _SEEN_PG, _KEYS_PG) if is_postgresql(session) else (_LAST, _SEEN, _KEYS)
    return PastAsked(tuple(Question(each, bound) for each in (last, seen, *([keys] if with_keys else []))))


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
INSERT INTO marketing_journey_arrivals (tenant_id, journey_id, occurrence, at, lead_id, outcome, run_id)
SELECT :tenant_id, :journey_id, :occurrence, :at, s.lead_id, {outcome}, {run_id} FROM {source}
"""


def add_refusals(session: Session, shared: Mapping[str, Any], rows: Sequence[Values]) -> None:
    """Write who did not come in: ``lead_id`` and, as ``outcome``, why; may be sent ahead.

    ``shared`` is their ``journey_id``, ``occurrence`` and moment ``at``.
    """
    source, bound = columns_of(session, _REFUSED, rows)
    statement = _typed(_ARRIVED.format(outcome="s.outcome", run_id="NULL", source=source))
    send(session, statement, {**bound, **shared})


_OWN: Final = {"lead_id": "bigint", "sequence": "bigint", "key": "text"}
_WRITTEN: Final = {"id": "bigint", "lead_id": "bigint", "sequence": "bigint"}
_RUNS = """
INSERT INTO marketing_journey_runs (tenant_id, journey_id, version_number, is_single, lead_id, sequence, key, entered_at,
  state, node, visit, wake_at, wait_token, version, snapshot)
SELECT :tenant_id, :journey_id, :version_number, :is_single, s.lead_id, s.sequence, {key}, :at,
  :state, :node, :visit, :wake_at, :wait_token, :version, :snapshot FROM {source}
RETURNING id, lead_id, sequence
"""
_LINES = """
INSERT INTO marketing_journey_steps (tenant_id, run_id, at, said, node, detail)
SELECT :tenant_id, s.id, :at, :said, :node, {detail} FROM {source}
"""
_WOKEN = f"""
INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
SELECT :tenant_id, '{RUN_DUE}', CAST(s.id AS text), :wake_at, :payload, :at FROM {{source}}
"""
_DETAIL_PG = "CAST(:detail AS jsonb) || jsonb_build_object('sequence', s.sequence)"
_DETAIL = "json_set(:detail, '$.sequence', s.sequence)"
_TYPES: Final[Mapping[str, Any]] = {"at": UtcDateTime(), "wake_at": UtcDateTime(), "snapshot": Json, "payload": Json}


def add_runs(session: Session, shared: Mapping[str, Any], rows: Sequence[Values]) -> dict[int, int]:
    """Write runs that begin alike, one of each lead, with a line of history, the arrival and the timer of each.

    On PostgreSQL all of it is one statement, which knows the ids of the runs without telling them first.

    Args:
        session: of the tenant.
        shared: ``journey_id``, ``version_number``, ``is_single``, ``occurrence`` and moment ``at``; of the runs ``state``,
            ``node``, ``visit``, ``wake_at``, ``wait_token``, ``version`` and ``snapshot``; of the lines ``said`` and ``detail``
            (JSON text, to which the sequence is added); of the timers ``payload``.
        rows: ``lead_id``, ``sequence`` and ``key`` of each.

    Returns:
        The ids of the runs by lead.
    """
    has_keys = any(row["key"] is not None for row in rows)
    source, bound = columns_of(session, {name: _OWN[name] for name in _OWN if has_keys or name != "key"}, rows)
    begun = _RUNS.format(key="s.key" if has_keys else "NULL", source=source)
    arrived = _ARRIVED.format(outcome="'entered'", run_id="s.id", source="{source}")
    if is_postgresql(session):
        runs = "runs AS s"
        lines = _LINES.format(detail=_DETAIL_PG, source=runs)
        statement = (
            f"WITH runs AS ({begun}), lines AS ({lines}), arrived AS ({arrived.format(source=runs)}),"
            f" woken AS ({_WOKEN.format(source=runs)}) SELECT s.id, s.lead_id FROM {runs}"
        )
        (written,) = answers(session, Question(_typed(statement), {**shared, **bound}, writes=True))
    else:
        (written,) = answers(session, Question(_typed(begun), {**shared, **bound}, writes=True))
        source, bound = columns_of(session, _WRITTEN, [row._asdict() for row in written])
        for each in (
            _LINES.format(detail=_DETAIL, source=source),
            arrived.format(source=source),
            _WOKEN.format(source=source),
        ):
            send(session, _typed(each), {**shared, **bound})
    return {row.lead_id: row.id for row in written}


@lru_cache(maxsize=100)
def _typed(statement: str) -> Executable:
    clause = text(statement)
    known = clause._bindparams  # noqa: SLF001 - there is no public way to ask
    return clause.bindparams(*(bindparam(name, type_=kind) for name, kind in _TYPES.items() if name in known))
