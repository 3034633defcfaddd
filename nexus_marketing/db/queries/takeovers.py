"""SQL of taking over chunks from workers that are gone (BEHAVIOUR.md 5.2, Recovery)."""

from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.deliveries import ChunkClaim, chunk_members, lane_of, members_of
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all

# While the server was away nobody could renew a lease: who is alive has it again at once. A server that was started later
# than now had its clock set back.
_SERVER_IS_BACK = (
    "clock_timestamp() NOT BETWEEN pg_postmaster_start_time() AND pg_postmaster_start_time() + interval '1 second'"
)
_EXPIRED = """
SELECT tenant_id, send_id, chunk_no, fence, lease_until > nexus_now() AS is_too_long FROM marketing_delivery_chunks
WHERE closed_at IS NULL AND lease_until IS NOT NULL AND {is_back}
  AND (lease_until < nexus_now() OR lease_until > nexus_after(:longest_seconds))
ORDER BY lease_until LIMIT 100
"""
#: Nobody has a lease for longer, unless told to.
LONGEST_LEASE_SECONDS = 600.0


def expired_chunks(session: Session, longest_seconds: float = LONGEST_LEASE_SECONDS) -> list[Row[Any]]:
    """Chunks of all tenants whose lease is over, as their workers are gone or frozen, or ``is_too_long``.

    No worker takes one for so long: the database's clock was set back.
    """
    is_back = _SERVER_IS_BACK if is_postgresql(session) else "true"
    values = {"longest_seconds": longest_seconds}
    return list(run_for_all(session, _EXPIRED.format(is_back=is_back), values, writes=False))


_SHORTEN = """
UPDATE marketing_delivery_chunks SET lease_until = nexus_after(:lease_seconds)
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence AND closed_at IS NULL
  AND lease_until > nexus_after(:lease_seconds)
"""


def shorten_lease(session: Session, send_id: int, chunk_no: int, fence: int, *, lease_seconds: float) -> None:
    """Have a lease be over after so many seconds, as if it were taken now; who is alive renews it before that."""
    values = {"send_id": send_id, "chunk_no": chunk_no, "fence": fence, "lease_seconds": lease_seconds}
    run(session, _SHORTEN, values, writes=True)


_TAKE_OVER = """
UPDATE marketing_delivery_chunks SET fence = fence + 1
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence AND closed_at IS NULL
  AND (:dead OR lease_until < nexus_now())
RETURNING seq_lo, seq_hi, seqs, intent_lo, intent_hi, fence, account, crashes, doubt_lo, doubt_hi, waits_for
"""
_OPEN_INTENT = """
SELECT seq, attempts, CASE WHEN reason = 'ambiguous' THEN reason END AS mark FROM marketing_deliveries
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq BETWEEN :lo AND :hi AND state = 'planned'
  AND due_at {lane}
ORDER BY seq
"""


class TakenOver(NamedTuple):
    """A chunk of a worker that is gone, its recipients that may have been on the wire, and how many ended over it before.

    ``first`` are those that would have been next where it had not come to a window; the claim's ``doubt`` is what was written
    down at the time before.
    """

    claim: ChunkClaim
    rows: list[Row[Any]]
    first: tuple[int, int] | None
    crashes: int


def take_over(session: Session, send_id: int, chunk_no: int, fence: int, *, dead: bool) -> TakenOver | None:
    """Raise the fence of a chunk whose worker is gone.

    ``dead``: the worker is known to be gone; otherwise its lease must be over at this very moment.
    ``None`` when somebody else was quicker or the worker is alive after all.
    """
    values = {"send_id": send_id, "chunk_no": chunk_no, "fence": fence, "dead": dead}
    row = run(session, _TAKE_OVER, values, writes=True).first()
    if row is None:
        return None
    doubt = None if row.doubt_lo is None else (row.doubt_lo, row.doubt_hi)
    claim = ChunkClaim(
        session.info["tenant_id"],
        send_id,
        chunk_no,
        row.seq_lo,
        row.seq_hi,
        chunk_members(row.seqs),
        row.fence,
        account=row.account,
        doubt=doubt,
        waits_for=row.waits_for,
    )
    if row.intent_lo is None:
        chunk = {"send_id": send_id, "lo": claim.seq_lo, "hi": claim.seq_hi, "most": _FIRST_WINDOW}
        first = run(session, _FIRST_OPEN.format(lane=lane_of(claim.seqs)), chunk, writes=False).one()
        return TakenOver(claim, [], None if first.lo is None else (first.lo, first.hi), row.crashes)
    window = {"send_id": send_id, "lo": row.intent_lo, "hi": row.intent_hi}
    rows = run(session, _OPEN_INTENT.format(lane=lane_of(claim.seqs)), window, writes=False).all()
    return TakenOver(claim, members_of(claim, rows), None, row.crashes)


#: As many recipients as a window may have.
_FIRST_WINDOW = 128
_FIRST_OPEN = """
SELECT min(seq) AS lo, max(seq) AS hi FROM (
  SELECT seq FROM marketing_deliveries
  WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq BETWEEN :lo AND :hi AND state = 'planned' AND due_at {lane}
  ORDER BY seq LIMIT :most) AS f
"""
_DOUBT = """
UPDATE marketing_delivery_chunks SET crashes = :crashes, doubt_lo = :lo, doubt_hi = :hi
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
"""


def set_doubt(session: Session, claim: ChunkClaim, crashes: int, doubt: tuple[int, int] | None) -> None:
    """Write down of whom a worker ended, and how many did one after the other."""
    lo, hi = doubt or (None, None)
    run(session, _DOUBT, {**claim.key, "crashes": crashes, "lo": lo, "hi": hi}, writes=True)
