"""SQL of the hand-over protocol: claim, intent, settle, close, recover (BEHAVIOUR.md 5.2).

Every write after the claim says ``fence = :fence``: whoever lost the lease changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.db.queries.rowsets import among, as_among, as_ids, ids_of
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import bigint_array, read_json

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


class Settlement(NamedTuple):
    """What became of one recipient. ``due_in_seconds`` puts the row into the retry lane instead."""

    seq: int
    state: str
    reason: str | None = None
    code: str | None = None
    attempts: int = 0
    due_in_seconds: float | None = None


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
    waiting = _WAITING_PG if _is_postgresql(session) else _WAITING_SQLITE
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
    lock = " FOR UPDATE OF c SKIP LOCKED" if _is_postgresql(session) else ""
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
        address=ADDRESSES[kind], columns=wanted, lane=_lane(claim.seqs), members=members, most=limit
    )
    found = run(session, statement, values, writes=False).all()
    own = len(Recipient._fields) - 1
    rows = [Recipient._make((*row[:own], row[own:])) for row in found]
    return _members(claim, rows)


def _lane(seqs: Sequence[int] | None) -> str:
    """A recipient is in its ordinary chunk (no ``due_at``) or in the retry lane, never in both."""
    return "IS NULL" if seqs is None else f"= '{GATHERED}'"


def _members(claim: ChunkClaim, rows: Sequence[_Member]) -> list[_Member]:
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


# The range keeps a plan made without statistics from reading the whole send: a hash join over 20,000
# rows took 8 ms per window where the range takes 0.6.
_SETTLE_PG = """
UPDATE marketing_deliveries d
SET state = v.state, reason = v.reason, provider_code = v.code, attempts = v.attempts,
    due_at = CASE WHEN v.due_in IS NOT NULL THEN nexus_after(v.due_in) END,
    settled_at = CASE WHEN v.due_in IS NULL THEN nexus_now() END
FROM unnest(CAST(:seqs AS bigint[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:codes AS text[]),
            CAST(:attempts AS smallint[]), CAST(:dues AS double precision[]))
     AS v(seq, state, reason, code, attempts, due_in)
WHERE d.tenant_id = :tenant_id AND d.send_id = :send_id AND d.seq = v.seq AND d.state = 'planned'
  AND d.seq BETWEEN :first AND :last
"""
# Nearly every window is one group: everybody accepted. Scalars and one list of numbers spare the driver
# six arrays, 14 us a message.
_SETTLE_GROUP_PG = """
UPDATE marketing_deliveries
SET state = :state, reason = :reason, provider_code = :code, attempts = :attempts, due_at = NULL,
    settled_at = nexus_now()
WHERE tenant_id = :tenant_id AND send_id = :send_id AND state = 'planned'
  AND seq = ANY(CAST(:seqs AS bigint[])) AND seq BETWEEN :first AND :last
"""
_SETTLE_SQLITE = """
UPDATE marketing_deliveries
SET state = :state, reason = :reason, provider_code = :code, attempts = :attempts,
    due_at = CASE WHEN :due_in IS NOT NULL THEN nexus_after(:due_in) END,
    settled_at = CASE WHEN :due_in IS NULL THEN nexus_now() END
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq = :seq AND state = 'planned'
"""


def settle(session: Session, send_id: int, settlements: Sequence[Settlement]) -> None:
    """Write outcomes; the caller has proved its fence in the same transaction."""
    if not settlements:
        return
    if _is_postgresql(session):
        statement, values = settling(settlements)
        run(session, statement, {**values, "send_id": send_id}, writes=True)
        return
    rows = [
        {
            "send_id": send_id,
            "seq": each.seq,
            "state": str(each.state),
            "reason": None if each.reason is None else str(each.reason),
            "code": each.code,
            "attempts": each.attempts,
            "due_in": each.due_in_seconds,
        }
        for each in sorted(settlements, key=_seq)
    ]
    run(session, _SETTLE_SQLITE, rows, writes=True)


def settling(settlements: Sequence[Settlement]) -> tuple[str, Mapping[str, Any]]:
    """PostgreSQL's statement that writes these outcomes, open for one more condition, and its values."""
    ordered = sorted(settlements, key=_seq)
    first = ordered[0]
    bounds = {"first": first.seq, "last": ordered[-1].seq}
    alike = (first.state, first.reason, first.code, first.attempts, None)
    for each in ordered:
        if (each.state, each.reason, each.code, each.attempts, each.due_in_seconds) != alike:
            return _SETTLE_PG, {**bounds, **_columns(ordered)}
    return _SETTLE_GROUP_PG, {
        **bounds,
        "state": str(first.state),
        "reason": None if first.reason is None else str(first.reason),
        "code": first.code,
        "attempts": first.attempts,
        "seqs": bigint_array([each.seq for each in ordered]),
    }


def _columns(settlements: Sequence[Settlement]) -> dict[str, list[Any]]:
    return {
        "seqs": [each.seq for each in settlements],
        "states": [str(each.state) for each in settlements],
        "reasons": [None if each.reason is None else str(each.reason) for each in settlements],
        "codes": [each.code for each in settlements],
        "attempts": [each.attempts for each in settlements],
        "dues": [each.due_in_seconds for each in settlements],
    }


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
    is_back = _SERVER_IS_BACK if _is_postgresql(session) else "true"
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
        first = run(session, _FIRST_OPEN.format(lane=_lane(claim.seqs)), chunk, writes=False).one()
        return TakenOver(claim, [], None if first.lo is None else (first.lo, first.hi), row.crashes)
    window = {"send_id": send_id, "lo": row.intent_lo, "hi": row.intent_hi}
    rows = run(session, _OPEN_INTENT.format(lane=_lane(claim.seqs)), window, writes=False).all()
    return TakenOver(claim, _members(claim, rows), None, row.crashes)


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


def sends_with_due_rows(session: Session) -> list[Row[Any]]:
    """(tenant_id, send_id) of running sends with recipients whose retry is due."""
    return list(
        run_for_all(
            session,
            "SELECT s.tenant_id, s.id AS send_id FROM marketing_sends s WHERE s.status = 'running' AND EXISTS ("
            " SELECT 1 FROM marketing_deliveries d WHERE d.tenant_id = s.tenant_id AND d.send_id = s.id"
            " AND d.due_at IS NOT NULL AND d.due_at <= nexus_now()) ORDER BY s.id LIMIT 100",
            writes=False,
        )
    )


_DUE = """
SELECT seq FROM marketing_deliveries
WHERE tenant_id = :tenant_id AND send_id = :send_id AND due_at IS NOT NULL AND due_at <= nexus_now()
  AND state = 'planned'
ORDER BY due_at, seq LIMIT :size
"""
_ADD_CHUNK = """
INSERT INTO marketing_delivery_chunks (tenant_id, send_id, chunk_no, seq_lo, seq_hi, seqs, waits_for)
SELECT :tenant_id, :send_id, coalesce(max(chunk_no), 0) + 1, :lo, :hi, CAST(:seqs AS {json}), :waits_for
FROM marketing_delivery_chunks WHERE tenant_id = :tenant_id AND send_id = :send_id
"""


def open_retry_chunk(session: Session, send_id: int, size: int) -> int:
    """Gather due recipients into a chunk of their own; the caller holds the send's row lock."""
    seqs = sorted(run(session, _DUE, {"send_id": send_id, "size": size}, writes=False).scalars())
    if not seqs:
        return 0
    run(
        session,
        "UPDATE marketing_deliveries SET due_at = :gathered WHERE tenant_id = :tenant_id AND send_id = :send_id"
        " AND seq = :seq",
        [{"send_id": send_id, "seq": seq, "gathered": GATHERED} for seq in seqs],
        writes=True,
    )
    _add_chunk(session, send_id, seqs)
    return len(seqs)


def _add_chunk(session: Session, send_id: int, seqs: Sequence[int], waits_for: str | None = None) -> None:
    kind = "jsonb" if _is_postgresql(session) else "text"
    values = {"send_id": send_id, "lo": seqs[0], "hi": seqs[-1], "seqs": str(list(seqs)), "waits_for": waits_for}
    run(session, _ADD_CHUNK.format(json=kind), values, writes=True)


_PUT_ASIDE = """
UPDATE marketing_deliveries
SET due_at = :gathered, reason = CASE WHEN reason = 'ambiguous' THEN reason ELSE 'rate' END
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq {among} AND seq BETWEEN :lo AND :hi AND state = 'planned'
"""


def put_aside(session: Session, send_id: int, waiting: Mapping[str, Sequence[int]]) -> None:
    """Give recipients who wait for the rates of domains chunks of their own, one for each domain.

    The caller holds the send's row lock, and has proved that it holds the chunk that they come from. Whoever may have got
    the message keeps that mark, and the account beside it.

    Args:
        session: of the transaction.
        send_id: whose recipients they are.
        waiting: domain → ``seq`` of whoever waits for it.
    """
    for domain, seqs in sorted(waiting.items()):
        ordered = sorted(seqs)
        values = {"send_id": send_id, "seqs": as_among(session, ordered), "lo": ordered[0], "hi": ordered[-1]}
        values["gathered"] = GATHERED
        run(session, _PUT_ASIDE.format(among=among(session, "seqs")), values, writes=True)
        _add_chunk(session, send_id, ordered, domain)


def _seq(settlement: Settlement) -> int:
    return settlement.seq


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
