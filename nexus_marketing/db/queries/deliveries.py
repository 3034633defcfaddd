"""SQL of the hand-over protocol: claims, what a chunk holds, its release (BEHAVIOUR.md 5.2).

Every write after the claim says ``fence = :fence``: whoever lost the lease changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.db.queries.rowsets import among, as_among, as_ids, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import read_json

#: ``due_at`` of recipients that a retry chunk holds: never due by itself, and never an ordinary chunk's.
#: A recipient deferred again while in the chunk gets a real moment and is the chunk's no more.
GATHERED = "9999-12-31T00:00:00.000000Z"
#: Sets an open recipient who gets nothing more: one whose first attempt may have left is not called skipped.
WITHHELD = """state = CASE WHEN reason = 'ambiguous' THEN 'unknown' ELSE 'skipped' END,
    reason = CASE WHEN reason = 'ambiguous' THEN reason ELSE {reason} END, due_at = NULL, settled_at = nexus_now()"""


@dataclass(frozen=True, slots=True)
class ChunkClaim:
    """A chunk held under a lease: ``fence`` is what proves it."""

    tenant_id: int
    send_id: int
    chunk_no: int
    seq_lo: int
    seq_hi: int
    seqs: tuple[int, ...] | None
    fence: int
    #: Of a chunk that was taken over: by which account its messages left.
    account: int | None = None
    #: Over whom two workers ended, one after the other: they are handed over one by one.
    doubt: tuple[int, int] | None = None
    #: For the rate of which domain all that is left of it waits.
    waits_for: str | None = None

    def is_doubtful(self, seq: int) -> bool:
        """Whether a worker may have ended because of this recipient."""
        return self.doubt is not None and self.doubt[0] <= seq <= self.doubt[1]

    @property
    def key(self) -> Mapping[str, int]:
        """The parameters that name the chunk and prove the lease."""
        return {"send_id": self.send_id, "chunk_no": self.chunk_no, "fence": self.fence}

    def position(self, seq: int) -> int:
        """Where a recipient stands within the chunk, from 0."""
        return seq - self.seq_lo if self.seqs is None else self.seqs.index(seq)


# Of each lane the oldest, and of each domain that is waited for in it: a tenant with thousands of sends hides nobody, a lane
# that waits for its rate no other lane, and who waits for one domain nobody who waits for another.
_WITH_WORK = """
SELECT tenant_id, id, channel, message_class, waits_for FROM (
  SELECT s.tenant_id, s.id, s.channel, s.message_class, NULL AS waits_for,
    row_number() OVER (PARTITION BY s.tenant_id, s.channel, s.message_class ORDER BY s.id) AS nth
  FROM marketing_sends s WHERE s.status = 'running'
    AND EXISTS (SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = s.tenant_id AND c.send_id = s.id
                AND c.closed_at IS NULL AND c.lease_until IS NULL AND c.waits_for IS NULL)
  UNION ALL
  SELECT tenant_id, id, channel, message_class, waits_for,
    row_number() OVER (PARTITION BY tenant_id, channel, message_class, waits_for ORDER BY id) AS nth
  FROM ({waiting}) AS a) AS w
WHERE nth <= 20 ORDER BY message_class DESC, nth, id LIMIT 1000
"""
# From the sends that run to their chunks, not through those of all that are paused.
_WAITING_PG = """
SELECT s.tenant_id, s.id, s.channel, s.message_class, k.waits_for FROM marketing_sends s CROSS JOIN LATERAL (
  SELECT DISTINCT c.waits_for FROM marketing_delivery_chunks c WHERE c.tenant_id = s.tenant_id AND c.send_id = s.id
    AND c.closed_at IS NULL AND c.lease_until IS NULL AND c.waits_for IS NOT NULL) AS k
WHERE s.status = 'running'"""
_WAITING_SQLITE = """
SELECT DISTINCT s.tenant_id, s.id, s.channel, s.message_class, c.waits_for
FROM marketing_sends s CROSS JOIN marketing_delivery_chunks c
WHERE s.status = 'running' AND c.tenant_id = s.tenant_id AND c.send_id = s.id
  AND c.closed_at IS NULL AND c.lease_until IS NULL AND c.waits_for IS NOT NULL"""


def sends_with_work(session: Session) -> list[Row[Any]]:
    """(tenant_id, id, channel, message_class, waits_for) of running sends that have an open chunk nobody holds: transactional
    ones first, then some of everybody; once for each domain that its chunks wait for, and once for those that wait for none.
    """
    waiting = _WAITING_PG if is_postgresql(session) else _WAITING_SQLITE
    return list(run_for_all(session, _WITH_WORK.format(waiting=waiting), writes=False))


_CLAIM = """
UPDATE marketing_delivery_chunks
SET lease_until = nexus_after(:lease_seconds), claims = CASE WHEN claims < 32767 THEN claims + 1 ELSE claims END, fence = fence + 1, worker = :worker, account = :account
WHERE tenant_id = :tenant_id AND send_id = :send_id AND closed_at IS NULL AND lease_until IS NULL AND chunk_no = (
    SELECT c.chunk_no FROM marketing_delivery_chunks c
    WHERE c.tenant_id = :tenant_id AND c.send_id = :send_id AND c.closed_at IS NULL AND c.lease_until IS NULL
      AND c.waits_for {waits_for}
      AND EXISTS (SELECT 1 FROM marketing_sends s
                  WHERE s.tenant_id = :tenant_id AND s.id = :send_id AND s.status = 'running')
    ORDER BY c.chunk_no LIMIT 1{lock})
RETURNING chunk_no, seq_lo, seq_hi, seqs, fence, CASE WHEN crashes > 1 THEN doubt_lo END AS doubt_lo, doubt_hi
"""


def claim_chunk(
    session: Session,
    send_id: int,
    worker: str,
    lease_seconds: float,
    account: int | None = None,
    waits_for: str | None = None,
) -> ChunkClaim | None:
    """Take the lease of the next open chunk of a send, or ``None``: of those that wait for the rate of a domain, or for none.

    ``account`` is what its messages will leave by.
    """
    lock = " FOR UPDATE OF c SKIP LOCKED" if is_postgresql(session) else ""
    statement = _CLAIM.format(lock=lock, waits_for="IS NULL" if waits_for is None else "= :waits_for")
    values = {"send_id": send_id, "worker": worker, "lease_seconds": lease_seconds, "account": account}
    if waits_for is not None:
        values["waits_for"] = waits_for
    row = run(session, statement, values, writes=True).first()
    if row is None:
        return None
    return ChunkClaim(
        session.info["tenant_id"],
        send_id,
        row.chunk_no,
        row.seq_lo,
        row.seq_hi,
        chunk_members(row.seqs),
        row.fence,
        doubt=None if row.doubt_lo is None else (row.doubt_lo, row.doubt_hi),
        waits_for=waits_for,
    )


_ACCOUNT = """
UPDATE marketing_delivery_chunks SET account = :account
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
"""


def set_account(session: Session, claim: ChunkClaim, account: int) -> None:
    """The messages of a claim leave by another account than was thought; in the transaction of the claim."""
    run(session, _ACCOUNT, {**claim.key, "account": account}, writes=True)


_MARKED = """
SELECT seq, provider_code FROM marketing_deliveries
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN ({ids}) AND state = 'planned' AND reason = 'ambiguous'
"""


def marked_codes(session: Session, send_id: int, seqs: Sequence[int]) -> dict[int, str | None]:
    """Of recipients whose message may have left already: by which account, as it was written down."""
    statement, values = _MARKED.format(ids=ids_of(session)), {"send_id": send_id, "ids": as_ids(seqs)}
    return {row.seq: row.provider_code for row in run(session, statement, values, writes=False)}


def chunk_members(value: Any) -> tuple[int, ...] | None:
    """The recipients of a retry chunk."""
    return None if value is None else tuple(read_json(value))


_SPEAKER = """
SELECT min(seq) FROM marketing_deliveries WHERE tenant_id = :tenant_id AND send_id = :send_id AND state <> 'skipped'
"""


def speaker_of(session: Session, send_id: int) -> int | None:
    """The recipient who stands for an audience: the first of a send who was not left out, whatever became of the message."""
    found = run(session, _SPEAKER, {"send_id": send_id}, writes=False).scalar()
    return None if found is None else int(found)


_ROWS = """
SELECT d.seq, d.lead_id, d.attempts, CASE WHEN d.reason = 'ambiguous' THEN d.reason END AS mark,
  {address}, l.country, l.time_zone{columns}
FROM marketing_deliveries d
JOIN marketing_leads l ON l.tenant_id = d.tenant_id AND l.id = d.lead_id
WHERE d.tenant_id = :tenant_id AND d.send_id = :send_id AND d.seq BETWEEN :lo AND :hi AND d.state = 'planned'
  AND d.due_at {lane}{members}
ORDER BY d.seq{most}
"""
#: Where a channel reaches a lead, and what says who that is among suppressions. Who is reached by no address of
#: their own is known by the first one they have.
ADDRESSES = {
    AddressKind.EMAIL: "l.email, l.email_norm",
    AddressKind.PHONE: "l.phone, l.phone AS phone_norm",
    AddressKind.URL: "NULL AS address, coalesce(l.email_norm, l.phone)",
    AddressKind.NONE: "NULL AS address, coalesce(l.email_norm, l.phone)",
    AddressKind.AUDIENCE: "NULL AS address, NULL AS nobody",
}
#: What ``chunk_rows`` can bring for the message, by name.
LEAD_COLUMNS = {
    "email": "l.email",
    "country": "l.country",
    "name": "l.name",
    "first_name": "l.first_name",
    "last_name": "l.last_name",
    "external_id": "l.external_id",
    "phone": "l.phone",
    "locale": "l.locale",
    "time_zone": "l.time_zone",
    "score": "l.score",
    "metadata": "l.metadata",
}


class Recipient(NamedTuple):
    """An open ledger row with its lead. A tuple: what is read thirty times a message must cost little.

    ``mark`` says that an earlier hand-over had no answer; ``lead`` holds the columns that the message needs.
    """

    seq: int
    lead_id: int
    attempts: int
    mark: str | None
    address: str | None
    address_norm: str | None
    country: str | None
    time_zone: str | None
    lead: tuple[Any, ...]


_Member = TypeVar("_Member", Recipient, Row[Any])


def chunk_rows(
    session: Session, claim: ChunkClaim, kind: AddressKind, columns: Sequence[str], most: int | None = None
) -> list[Recipient]:
    """The chunk's open recipients with their address of this kind and these lead columns, by ``seq``, ``most`` of them."""
    values: dict[str, Any] = {"send_id": claim.send_id, "lo": claim.seq_lo, "hi": claim.seq_hi}
    members = limit = ""
    if most is not None:
        limit, values["most"] = " LIMIT :most", most
        if claim.seqs is not None:
            members, values["members"] = f" AND d.seq {among(session, 'members')}", as_among(session, claim.seqs)
    wanted = "".join(f", {LEAD_COLUMNS[name]}" for name in columns)
    statement = _ROWS.format(
        address=ADDRESSES[kind], columns=wanted, lane=lane_of(claim.seqs), members=members, most=limit
    )
    found = run(session, statement, values, writes=False).all()
    own = len(Recipient._fields) - 1
    rows = [Recipient._make((*row[:own], row[own:])) for row in found]
    return members_of(claim, rows)


def lane_of(seqs: Sequence[int] | None) -> str:
    """A recipient is in its ordinary chunk (no ``due_at``) or in the retry lane, never in both."""
    return "IS NULL" if seqs is None else f"= '{GATHERED}'"


def members_of(claim: ChunkClaim, rows: Sequence[_Member]) -> list[_Member]:
    """Those of the rows that belong to the chunk."""
    if claim.seqs is None:
        return list(rows)
    members = frozenset(claim.seqs)
    return [row for row in rows if row.seq in members]


_IS_HELD = """
SELECT lease_until IS NOT NULL AS is_held FROM marketing_delivery_chunks
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
"""


def is_held(session: Session, claim: ChunkClaim) -> bool | None:
    """Whether a chunk is held by this claim, or (``False``) was given back under it; nothing where the lease was lost."""
    found = run(session, _IS_HELD, claim.key, writes=False).scalar()
    return None if found is None else bool(found)


RELEASE = """
UPDATE marketing_delivery_chunks
SET intent_lo = NULL, intent_hi = NULL, lease_until = NULL, worker = NULL, waits_for = :waits_for,
    closed_at = CASE WHEN :closed THEN nexus_now() END
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence
RETURNING chunk_no
"""


def release_chunk(session: Session, claim: ChunkClaim, *, closed: bool, waits_for: str | None = None) -> bool:
    """Give the chunk back, closed when all its recipients are settled; ``False`` when the lease was lost.

    ``waits_for``: for the rate of which domain all that is left of it waits.
    """
    values = {**claim.key, "closed": closed, "waits_for": waits_for}
    return run(session, RELEASE, values, writes=True).first() is not None
