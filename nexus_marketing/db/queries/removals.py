"""SQL of merging and erasing: what refers to a lead follows it or is cleared, in pieces that can be repeated.

Nothing here keeps a cursor: a piece takes what is still to be done, so that a process which is killed
between two pieces loses nothing and does nothing twice.
"""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import JSON, Column, Row, Table, TextClause, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.segments import SegmentCause, SegmentMove
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import (
    EngagementAttachment,
    LeadImportChange,
    LeadKey,
    ScoreContribution,
    ScoreCrossing,
    ScoreMark,
    ScoreValue,
    SegmentMember,
)
from nexus_marketing.db.queries.deliveries import WITHHELD
from nexus_marketing.db.queries.upkeep import count_moves
from nexus_marketing.db.tenancy import run

#: Rows whose key is itself what is personal go whole, and so do those that rate a person.
DELETED: frozenset[str] = frozenset(
    model.__tablename__
    for model in (
        LeadImportChange,
        LeadKey,
        SegmentMember,
        ScoreContribution,
        ScoreCrossing,
        ScoreMark,
        ScoreValue,
    )
)
#: What a file says lies elsewhere: row and bytes go together.
FILES = EngagementAttachment.__tablename__
#: The lead's own row is emptied by the service, with its version; the rest is found by ``lead_id``.
LEADS = "marketing_leads"


def personal_tables() -> list[Table]:
    """Every table that says something personal about a lead: has ``lead_id``, and personal columns or goes whole."""
    tables = (cast("Table", mapper.local_table) for mapper in Base.registry.mappers)
    found = [
        table
        for table in tables
        if "lead_id" in table.c and table.name != FILES and (table.name in DELETED or _personal(table))
    ]
    return sorted(found, key=lambda table: table.name)


def clear_piece(session: Session, table: Table, lead_ids: Sequence[int], size: int) -> int:
    """Clear what is personal in up to ``size`` rows about these leads; 0 when nothing is left."""
    statement = _clearing(table.name, session.get_bind().dialect.name)
    return int(run(session, statement, {"leads": list(lead_ids), "size": size}, writes=True).rowcount)  # type: ignore[attr-defined]


@lru_cache(maxsize=100)
def _clearing(name: str, dialect: str) -> TextClause:
    table = Base.metadata.tables[name]
    key = ", ".join(column.name for column in table.primary_key.columns if column.name != "tenant_id")
    about = "tenant_id = :tenant_id AND lead_id IN :leads"
    empty = {f'"{column.name}"': _empty(column, dialect) for column in _personal(table)}
    if name in DELETED:
        head, full = f"DELETE FROM {name}", ""
    else:
        head = f"UPDATE {name} SET " + ", ".join(f"{column} = {value}" for column, value in empty.items())
        left = (
            f"{column} IS NOT NULL" if value == "NULL" else f"{column} <> {value}" for column, value in empty.items()
        )
        full = f" AND ({' OR '.join(left)})"
    chosen = f"SELECT {key} FROM {name} WHERE {about}{full} ORDER BY {key} LIMIT :size"
    return _leads(f"{head} WHERE {about} AND ({key}) IN ({chosen})")


def _personal(table: Table) -> list[Column[Any]]:
    return [column for column in table.c if column.info.get("personal")]


def _empty(column: Column[Any], dialect: str) -> str:
    if column.nullable:
        return "NULL"
    if not isinstance(column.type, JSON):
        return "''"
    document = "'[]'" if column.name == "tags" else "'{}'"
    return f"CAST({document} AS jsonb)" if dialect == "postgresql" else document


def has_open_messages(session: Session, lead_ids: Sequence[int]) -> bool:
    """Whether a send still has these leads before it."""
    statement = "SELECT 1 FROM marketing_deliveries WHERE tenant_id = :tenant_id AND lead_id IN :leads AND state = 'planned' LIMIT 1"
    return run(session, _leads(statement), {"leads": list(lead_ids)}, writes=False).first() is not None


def attachments_of(session: Session, lead_ids: Sequence[int], size: int) -> list[Row[Any]]:
    """(id, blob_key) of files that belong to engagements of these leads."""
    statement = (
        f"SELECT id, blob_key FROM {FILES} WHERE tenant_id = :tenant_id AND lead_id IN :leads ORDER BY id LIMIT :size"
    )
    return list(run(session, _leads(statement), {"leads": list(lead_ids), "size": size}, writes=False))


def delete_attachments(session: Session, ids: Sequence[int]) -> int:
    """Forget files by the ids of their rows."""
    statement = text(f"DELETE FROM {FILES} WHERE tenant_id = :tenant_id AND id IN :ids").bindparams(
        bindparam("ids", expanding=True)
    )
    return int(run(session, statement, {"ids": list(ids)}, writes=True).rowcount)  # type: ignore[attr-defined]


# What may be on the wire is settled by whoever put it there, and by recovery if that one died.
_ON_WIRE = """EXISTS (SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = :tenant_id AND c.send_id = d.send_id
    AND c.closed_at IS NULL AND c.lease_until IS NOT NULL AND d.seq BETWEEN c.{lo} AND c.{hi})"""
_WITHHELD = WITHHELD.format(reason=":reason")
_CANCEL = """
UPDATE marketing_deliveries AS d SET {withheld}
WHERE d.tenant_id = :tenant_id AND d.lead_id IN :leads AND d.state = 'planned' AND NOT {on_wire}
"""


def cancel_messages(session: Session, lead_ids: Sequence[int], reason: str) -> int:
    """Settle open recipients that are not on the wire.

    The suppression that keeps them off it must have been committed before: a window that begins
    later sees it, one that began earlier is seen here.
    """
    statement = _leads(_CANCEL.format(withheld=_WITHHELD, on_wire=_ON_WIRE.format(lo="intent_lo", hi="intent_hi")))
    found = run(session, statement, {"leads": list(lead_ids), "reason": reason}, writes=True)
    return int(found.rowcount)  # type: ignore[attr-defined]


_FOLLOW = """
UPDATE marketing_deliveries AS d SET lead_id = :winner
WHERE d.tenant_id = :tenant_id AND d.lead_id = :loser AND d.state = 'planned' AND NOT EXISTS (
    SELECT 1 FROM marketing_deliveries o WHERE o.tenant_id = :tenant_id AND o.lead_id = :winner
    AND o.send_id = d.send_id AND o.step = d.step AND o.occurrence = d.occurrence AND o.channel = d.channel)
"""


def follow_messages(session: Session, loser: int, winner: int) -> int:
    """Open recipients of a merged lead become those of the winner, unless it is one of the same message itself."""
    return int(run(session, _FOLLOW, {"loser": loser, "winner": winner}, writes=True).rowcount)  # type: ignore[attr-defined]


def settle_doubles(session: Session, loser: int) -> int:
    """Settle open recipients that would be a second message to one person.

    Those in the hands of a worker are settled by it: what it has read may leave.
    """
    statement = _leads(_CANCEL.format(withheld=_WITHHELD, on_wire=_ON_WIRE.format(lo="seq_lo", hi="seq_hi")))
    return int(run(session, statement, {"leads": [loser], "reason": "duplicate_address"}, writes=True).rowcount)  # type: ignore[attr-defined]


_MOVE_ENGAGEMENTS = """
UPDATE marketing_engagements SET lead_id = :winner
WHERE tenant_id = :tenant_id AND lead_id = :loser AND (tracked_at, id) IN (
    SELECT tracked_at, id FROM marketing_engagements WHERE tenant_id = :tenant_id AND lead_id = :loser
    ORDER BY tracked_at, id LIMIT :size)
"""


def move_engagements(session: Session, loser: int, winner: int, size: int) -> int:
    """Up to ``size`` engagements of a merged lead become the winner's; 0 when none is left."""
    bound = {"loser": loser, "winner": winner, "size": size}
    return int(run(session, _MOVE_ENGAGEMENTS, bound, writes=True).rowcount)  # type: ignore[attr-defined]


def move_consents(session: Session, loser: int, winner: int) -> int:
    """Acts of consent of a merged lead become the winner's."""
    statement = "UPDATE marketing_consents SET lead_id = :winner WHERE tenant_id = :tenant_id AND lead_id = :loser"
    return int(run(session, statement, {"loser": loser, "winner": winner}, writes=True).rowcount)  # type: ignore[attr-defined]


def consent_folds(session: Session, lead_id: int) -> list[Row[Any]]:
    """(channel, type) of which a lead has acts of consent."""
    statement = (
        "SELECT DISTINCT channel, type FROM marketing_consents WHERE tenant_id = :tenant_id AND lead_id = :lead_id"
    )
    return list(run(session, statement, {"lead_id": lead_id}, writes=False))


_JOIN_SEGMENTS = """
INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
SELECT m.tenant_id, m.segment_id, :winner, m.entered_at, m.generation FROM marketing_segment_members m
JOIN marketing_segments s ON s.tenant_id = m.tenant_id AND s.id = m.segment_id AND s.kind IN ('static', 'snapshot')
WHERE m.tenant_id = :tenant_id AND m.lead_id = :loser
ON CONFLICT (tenant_id, segment_id, lead_id) DO NOTHING RETURNING segment_id
"""


def move_memberships(session: Session, loser: int, winner: int) -> int:
    """The winner joins the segments of a merged lead that no rule decides any more; the others decide by themselves."""
    joined = run(session, _JOIN_SEGMENTS, {"loser": loser, "winner": winner}, writes=True).scalars().all()
    count_moves(session, [(segment_id, winner, SegmentMove.ENTERED) for segment_id in joined], SegmentCause.CHANGE)
    return len(joined)


def leave_segments(session: Session, lead_ids: Sequence[int]) -> int:
    """Leads that are gone leave their segments."""
    statement = (
        "DELETE FROM marketing_segment_members WHERE tenant_id = :tenant_id AND lead_id IN :leads"
        " RETURNING segment_id, lead_id"
    )
    gone = run(session, _leads(statement), {"leads": list(lead_ids)}, writes=True).all()
    moves = [(row.segment_id, row.lead_id, SegmentMove.LEFT) for row in gone]
    count_moves(session, moves, SegmentCause.CHANGE)
    return len(moves)


_SUPPRESSIONS = """
SELECT s.address_hash, s.channel, s.type, s.reason FROM marketing_suppressions s
WHERE s.tenant_id = :tenant_id AND s.address_hash IN :hashes AND s.suppressed_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM marketing_suppressions n WHERE n.tenant_id = :tenant_id AND n.address_hash = s.address_hash
    AND n.channel = s.channel AND n.type = s.type AND n.id > s.id)
ORDER BY s.id
"""


def standing_suppressions(session: Session, hashes: Sequence[bytes]) -> list[Row[Any]]:
    """(address_hash, channel, type, reason) of what keeps messages from these addresses."""
    if not hashes:
        return []
    statement = text(_SUPPRESSIONS).bindparams(bindparam("hashes", expanding=True))
    return list(run(session, statement, {"hashes": list(hashes)}, writes=False))


def add_counts(counts: Mapping[str, Any], more: Mapping[str, int]) -> dict[str, int]:
    """Rows by table, grown."""
    names = sorted({*map(str, counts), *map(str, more)})  # SQLAlchemy's names are a kind of text that JSON refuses
    return {name: int(counts.get(name, 0)) + more.get(name, 0) for name in names}


def _leads(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("leads", expanding=True))
