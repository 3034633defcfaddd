"""SQL of what messages were made of: blocks of a claim's recipients, and the erasing of some of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.deliveries import ChunkClaim
from nexus_marketing.db.queries.rowsets import as_ids, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import to_text

_KEEP = """
INSERT INTO marketing_render_blocks (tenant_id, send_id, chunk_no, fence, seq_lo, seq_hi, at, block)
VALUES (:tenant_id, :send_id, :chunk_no, :fence, :lo, :hi, :at, :block) ON CONFLICT DO NOTHING
"""
_ABOUT = """
SELECT d.seq, b.send_id, b.chunk_no, b.fence, b.block, b.erased
FROM marketing_deliveries d JOIN marketing_render_blocks b
  ON b.tenant_id = d.tenant_id AND b.send_id = d.send_id AND d.seq BETWEEN b.seq_lo AND b.seq_hi
WHERE d.tenant_id = :tenant_id AND d.lead_id IN ({ids}) AND NOT {is_erased}
ORDER BY b.send_id, b.chunk_no, b.fence LIMIT :size
"""
_FIND = """
SELECT chunk_no, fence, block, erased FROM marketing_render_blocks
WHERE tenant_id = :tenant_id AND send_id = :send_id AND :seq BETWEEN seq_lo AND seq_hi
ORDER BY at DESC, chunk_no DESC, fence DESC
"""
_REPLACE = """
UPDATE marketing_render_blocks SET block = :block, erased = CAST(:erased AS {json})
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
"""
_OLD = """
SELECT tenant_id, send_id, chunk_no, fence FROM marketing_render_blocks WHERE at < {before} ORDER BY at LIMIT :size
"""
_FORGET = """
DELETE FROM marketing_render_blocks
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
"""


def keep_block(session: Session, claim: ChunkClaim, seqs: Sequence[int], at: datetime, block: bytes) -> None:
    """Keep what the messages of a claim are made of; ``seqs`` ascend."""
    where = {"send_id": claim.send_id, "chunk_no": claim.chunk_no, "fence": claim.fence}
    run(session, _KEEP, {**where, "lo": seqs[0], "hi": seqs[-1], "at": to_text(at), "block": block}, writes=True)


def blocks_of(session: Session, send_id: int, seq: int) -> list[Row[Any]]:
    """Blocks that may hold a recipient (``block``, ``erased``), the newest first."""
    return list(run(session, _FIND, {"send_id": send_id, "seq": seq}, writes=False))


def blocks_about(session: Session, lead_ids: Sequence[int], size: int) -> list[Row[Any]]:
    """(seq, send_id, chunk_no, fence, block, erased) of blocks that may still say something about these leads."""
    if is_postgresql(session):
        is_erased = "(b.erased @> to_jsonb(d.seq))"
    else:
        is_erased = "EXISTS (SELECT 1 FROM json_each(b.erased) AS e WHERE e.value = d.seq)"
    statement = _ABOUT.format(ids=ids_of(session), is_erased=is_erased)
    return list(run(session, statement, {"ids": as_ids(lead_ids), "size": size}, writes=False))


def replace_block(session: Session, row: Row[Any], block: bytes, erased: Sequence[int]) -> None:
    """The block without some of its recipients."""
    kind = "jsonb" if is_postgresql(session) else "text"
    key = {"send_id": row.send_id, "chunk_no": row.chunk_no, "fence": row.fence}
    values = {**key, "block": block, "erased": orjson.dumps(list(erased)).decode()}
    run(session, _REPLACE.format(json=kind), values, writes=True)


def old_blocks(session: Session, before: datetime, size: int) -> list[Row[Any]]:
    """(tenant_id, send_id, chunk_no, fence) of up to so many blocks of all tenants from before a moment."""
    moment = "CAST(:before AS timestamptz)" if is_postgresql(session) else ":before"
    values = {"before": to_text(before), "size": size}
    return list(run_for_all(session, _OLD.format(before=moment), values, writes=False))


def forget_blocks(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Delete blocks of the session's tenant."""
    run(
        session,
        _FORGET,
        [{"send_id": row.send_id, "chunk_no": row.chunk_no, "fence": row.fence} for row in rows],
        writes=True,
    )
