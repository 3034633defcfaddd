"""Taking over from workers that are gone: by lease, or at once where their journal tells (BEHAVIOUR.md 5.2)."""

from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import account_mark
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.deliveries import MAX_CRASHES
from nexus_marketing.db.isolation import isolated
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.deliveries import ChunkClaim, release_chunk
from nexus_marketing.db.queries.settling import Settlement, settle
from nexus_marketing.db.queries.takeovers import (
    LONGEST_LEASE_SECONDS,
    TakenOver,
    expired_chunks,
    set_doubt,
    shorten_lease,
    take_over,
)
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.journal import DeadJournal, JournalKey, dead_journals
from nexus_marketing.delivery.outcomes import RetryPolicy, crashed, settlement, unknown
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Workers may have been given leases of different lengths: nobody's is so many times ours.
_LONGEST_LEASES = 4.0


def recover_dead(runtime: Runtime, folder: Path) -> int:
    """Recover chunks of workers of this host that died, with what their journals say.

    Returns:
        How many chunks were taken over.
    """
    found = dead_journals(folder)
    return sum(_recover_alone(runtime, journal.key, journal) for journal in found if journal.key is not None)


def recover_expired(runtime: Runtime) -> int:
    """Recover chunks whose lease is over. Their journals are not read: the worker may be frozen, not dead.

    Leases from before the database's clock was set back would be over much too late: they are as if taken now.
    """
    lease = runtime.settings.lease.total_seconds()
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        expired = expired_chunks(session, max(LONGEST_LEASE_SECONDS, _LONGEST_LEASES * lease))
    for row in expired:
        if row.is_too_long:
            _shorten(runtime, row, lease)
    return sum(
        _recover_alone(runtime, JournalKey(row.tenant_id, row.send_id, row.chunk_no, row.fence), None)
        for row in expired
        if not row.is_too_long
    )


def _shorten(runtime: Runtime, row: Row[Any], lease_seconds: float) -> None:
    with open_session(runtime.engines.worker, tenant_id=row.tenant_id, mode="write") as session, session.begin():
        shorten_lease(session, row.send_id, row.chunk_no, row.fence, lease_seconds=lease_seconds)
    log.warning("lease_shortened", tenant_id=row.tenant_id, send_id=row.send_id, chunk_no=row.chunk_no)


def _recover_alone(runtime: Runtime, key: JournalKey, journal: DeadJournal | None) -> int:
    """One that cannot be recovered keeps no other from it, nor its journal from whoever tries again."""

    def recover() -> int:
        done = _recover(runtime, key, journal)
        if journal is not None:
            journal.is_needed = False
        return done

    if journal is not None:
        journal.is_needed = True
    return isolated(recover, tenant_id=key.tenant_id, send_id=key.send_id, chunk_no=key.chunk_no)


def _recover(runtime: Runtime, key: JournalKey, journal: DeadJournal | None) -> int:
    worker = runtime.engines.worker
    with open_session(worker, tenant_id=key.tenant_id, mode="durable") as session, session.begin():
        taken = take_over(session, key.send_id, key.chunk_no, key.fence, dead=journal is not None)
        if taken is None:
            return 0
        claim = taken.claim
        send = find(session, Send, key.send_id)
        channel = runtime.channels.get(send.channel)
        is_repeatable = channel is not None and channel.capabilities.supports_idempotency
        left_by = account_mark(claim.account)
        retries = RetryPolicy(
            runtime.settings.max_attempts, runtime.settings.lease, is_repeatable=is_repeatable, via=left_by
        )
        policy = _Recovery(retries, runtime.rng, claim, MessageClass(send.message_class), journal)
        settled = [each for row in taken.rows for each in policy.settle(row)]
        if journal is not None:
            settled += _doubt(runtime, session, taken, {each.seq for each in settled})
        settle(session, key.send_id, settled)
        release_chunk(session, claim, closed=False, waits_for=claim.waits_for)
    runtime.telemetry.count("delivery.recovered", 1, journal="yes" if journal else "no")
    return 1


def _doubt(runtime: Runtime, session: Session, taken: TakenOver, settled: set[int]) -> list[Settlement]:
    """Suspect those over whom the worker may have ended; the one over whom several did is given up.

    Those that it was about to hand over and that were not on the wire; those that would have been first where it had not
    come so far. One end may be anybody's; from the second over the same ones on they are handed over one by one.
    """
    claim = taken.claim
    left = [row for row in taken.rows if row.seq not in settled]
    doubt = (left[0].seq, left[-1].seq) if left else taken.first
    if doubt is None:
        set_doubt(session, claim, 0, None)
        return []
    crashes, before = 1, claim.doubt
    if before is not None and doubt[0] <= before[1] and before[0] <= doubt[1]:
        crashes = min(taken.crashes + 1, 1_000)
        doubt = (max(doubt[0], before[0]), min(doubt[1], before[1]))
    if crashes < MAX_CRASHES or len(left) != 1:
        set_doubt(session, claim, crashes, doubt)
        return []
    set_doubt(session, claim, crashes, None)  # kept for whoever asks what happened
    row = left[0]
    log.error("message_buried", tenant_id=claim.tenant_id, send_id=claim.send_id, seq=row.seq, crashes=crashes)
    runtime.telemetry.count("delivery.buried")
    return [crashed(row.seq, row.attempts, row.mark, crashes)]


class _Recovery:
    """Decides what became of the recipients of an open intent."""

    def __init__(
        self,
        policy: RetryPolicy,
        rng: Random,
        claim: ChunkClaim,
        message_class: MessageClass,
        journal: DeadJournal | None,
    ) -> None:
        self._policy = policy
        self._rng = rng
        self._claim = claim
        self._message_class = message_class
        self._journal = journal

    def settle(self, row: Row[Any]) -> list[Settlement]:
        """Nothing for a recipient that was surely not on the wire: it stays planned and is sent."""
        if self._journal is None:
            return [unknown(row.seq, row.attempts, row.mark, self._message_class, self._policy, self._rng)]
        position = self._claim.position(row.seq)
        if not self._journal.was_on_wire(position):
            return []
        kind = self._journal.answer(position) or OutcomeKind.UNKNOWN
        return [
            settlement(
                Outcome(position, kind, "journal"),
                seq=row.seq,
                attempts=row.attempts,
                mark=row.mark,
                message_class=self._message_class,
                policy=self._policy,
                rng=self._rng,
            )
        ]
