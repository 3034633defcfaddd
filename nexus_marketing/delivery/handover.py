"""Handing a claimed chunk over, window by window (BEHAVIOUR.md 5.2, Commits of a chunk).

Before a window's first byte leaves, one transaction settles what is known, writes down which
recipients may be on the wire and proves the lease; the next window is committed while this one is
on the wire. No transaction is open during I/O.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nexus_marketing.core.contracts import IN_USE, ChannelSession, Outcome, OutcomeKind, Submission
from nexus_marketing.core.deliveries import DeliveryState, HoldReason, SkipReason
from nexus_marketing.core.pacing.breaker import Breaker, Verdict
from nexus_marketing.db.queries.deliveries import ChunkClaim, Recipient
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.db.queries.windows import Left, PendingClose, PendingWindow, Range, Window, WindowAnswer
from nexus_marketing.db.retry import DATABASE_ERRORS, cause_of, is_transient
from nexus_marketing.delivery.admission import Admission, Admitted
from nexus_marketing.delivery.composing import Composer
from nexus_marketing.delivery.gate import Gate
from nexus_marketing.delivery.journal import HandOverJournal
from nexus_marketing.delivery.outcomes import RetryPolicy, settlement, understood, withheld
from nexus_marketing.delivery.pace import Pace
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)
Result = TypeVar("Result")
_DATABASE_RETRY_SECONDS = 0.2
#: So long a worker waits for a database that is away, with what it has on the wire.
_OUTAGE_SECONDS = 120.0
#: What is neither of them says nothing of the audience: a server that is away or asks for patience, a message of ours.
_COUNTED = {
    OutcomeKind.PERMANENT_RECIPIENT: Verdict.BOUNCED,
    OutcomeKind.TRANSIENT: Verdict.FAILED,
    OutcomeKind.UNKNOWN: Verdict.FAILED,
}
#: What says nothing good of the account that messages leave by.
_NO_ANSWERS = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.PERMANENT_SENDER, OutcomeKind.REFUSED, OutcomeKind.UNKNOWN})


class LeaseLost(Exception):
    """Somebody else holds the chunk now: nothing more may be sent or settled under this fence."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What handing over one send's chunks needs."""

    runtime: Runtime
    gate: Gate
    composer: Composer
    session: ChannelSession
    journal: HandOverJournal
    pace: Pace
    max_in_flight: int
    is_repeatable: bool
    stopping: Callable[[], bool]
    breaker: Breaker
    #: The account that messages leave by, as it is written beside those without an answer.
    via: str | None = None
    #: Whether what it cannot carry may leave by another.
    has_other: bool = False


@dataclass(slots=True)
class _Window:
    """Recipients whose intent is committed."""

    lo: int
    hi: int
    outcomes: Iterator[Outcome | None]
    heard: Counter[OutcomeKind] = field(default_factory=Counter)


@dataclass(slots=True)
class ChunkResult:
    """What became of a claimed chunk: how many settled by state, and what was learnt from it."""

    settled: int = 0
    accepted: int = 0
    sender_failed: str | None = None
    #: Somebody took messages, or said of one what is wrong with it.
    answered: bool = False
    #: No message of the last window found a connection.
    unreached: bool = False
    #: That others use the account as much as they may was why.
    in_use: bool = False
    #: In the provider's or the system's words, what failed last.
    said: str = ""
    #: Nothing more is tried by this account: another one takes over.
    gives_way: bool = False
    #: Too many were refused: what the breaker says.
    tripped: str | None = None
    #: Nothing more may leave now: a rate is used up, the send's own or one that it shares.
    limited: bool = False
    limited_by_own: bool = False
    #: For the rates of which domains recipients of it wait.
    waits_for: frozenset[str] = frozenset()

    @property
    def must_stop(self) -> bool:
        """Nothing more is to be sent."""
        return self.sender_failed is not None or self.tripped is not None or self.gives_way


@dataclass(slots=True)
class ChunkHandOver:
    """One worker handing over one chunk."""

    parts: Parts
    claim: ChunkClaim
    rows: Sequence[Recipient]
    admission: Admission
    #: Whether nobody else is open in the chunk.
    is_whole: bool = True
    #: Done once, before anything leaves.
    before_first: Callable[[], None] | None = None
    known: list[Settlement] = field(default_factory=list)
    #: By domain, who waits for its rate.
    aside: dict[str, list[int]] = field(default_factory=dict)
    result: ChunkResult = field(default_factory=ChunkResult)
    _open: deque[_Window] = field(default_factory=deque)
    _by_ref: dict[int, Recipient] = field(default_factory=dict)
    _renewed_at: float = 0.0
    _exhausted_at: float = 0.0
    #: Of the time since then: how long commits were waited for.
    _waited_seconds: float = 0.0
    _closing: PendingClose | None = None

    def run(self) -> ChunkResult:
        """Hand everything over, settle and give the chunk back, for which :meth:`see_closed` waits.

        Returns early, with the rest still planned, when the send is paused, the worker stops, or the
        sender itself is refused. A lost lease ends it without another write.
        """
        self._renewed_at = self._exhausted_at = time.monotonic()
        try:
            finished = self._windows()
            while self._open:
                self._exhaust_oldest()
            self._close(finished=finished)
        except LeaseLost:
            self._lost_lease()
        finally:
            self._abandon()
        return self.result

    @property
    def is_closing(self) -> bool:
        """Whether the last commit is under way still; the journal is this chunk's until it is through."""
        return self._closing is not None

    def see_closed(self) -> bool:
        """Wait for the last commit; whether the lease held."""
        closing, self._closing = self._closing, None
        held = closing is not None and self._commit(closing.answer)
        if held:
            self.parts.runtime.telemetry.point("delivery.close.after")
        else:
            self._lost_lease()
        return held

    def _windows(self) -> bool:
        position = 0
        while position < len(self.rows):
            if self.parts.stopping() or self.result.must_stop:
                return False
            asked = max(self._width(), self.admission.ahead(self.parts.pace.rate))
            found = self.admission.admit(self.rows[position:], asked, self._commit)
            if not found.looked:
                self.result.limited, self.result.limited_by_own = True, found.is_own
                return False
            self._wait_for(found)
            position += found.looked
            if not self._hand_over(found.leaving):
                return False
        return not self.result.must_stop

    def _wait_for(self, found: Admitted) -> None:
        """Whose domain has no room comes again later."""
        self.known += found.waiting
        reasons = Counter(str(each.reason) for each in found.waiting)
        for row, group in found.aside:
            if group is not None:
                self.aside.setdefault(group, []).append(row.seq)
                reasons[HoldReason.RATE] += group != self.claim.waits_for
        channel = self.parts.gate.content.channel
        for reason, count in reasons.items():
            self.parts.runtime.telemetry.count("delivery.waiting", count, channel=channel, reason=str(reason))

    def _hand_over(self, rows: Sequence[Recipient]) -> bool:
        """Those who may leave, window by window; ``False`` when they may not any more."""
        if rows and self.before_first is not None:
            self._commit(self.before_first)
            self.before_first = None
        position = 0
        while position < len(rows):
            if position and (self.parts.stopping() or self.result.must_stop):
                return False
            careful = self.claim.is_doubtful(rows[position].seq)
            while careful and self._open:
                self._exhaust_oldest()
            window = rows[position : position + (1 if careful else self._width())]
            if not self._commit_window(window, careful=careful):
                return False
            position += len(window)
            if len(self._open) > 1:
                self._exhaust_oldest()
        return True

    def _width(self) -> int:
        return self.parts.pace.window(self.parts.max_in_flight, self.parts.gate.content.message_class)

    def _commit_window(self, window: Sequence[Recipient], *, careful: bool) -> bool:
        """Settle, intend and re-check in one transaction; then submit. ``False``: not running any more.

        Messages are composed while the transaction is committed, and the window before goes on; none leaves before. With
        ``careful`` nothing is done before it is known who was next: the process may end over it.
        """
        telemetry = self.parts.runtime.telemetry
        lo = self._open[0].lo if self._open else window[0].seq
        hi = window[-1].seq
        hashes = self.parts.gate.hashes(window)
        telemetry.point("delivery.intent.before")
        with self._intending((lo, hi), self._open_range(), list(hashes.values())) as pending:
            composed = [] if careful else self._composed(window)
            self._hear_meanwhile(pending)
            answer = self._answered(pending)
        if careful:
            composed = self._composed(window)
        telemetry.point("delivery.intent.after")
        if not answer.running:
            return False
        suppressed = {seq for seq, hashed in hashes.items() if hashed in answer.suppressed}
        batch = self._passing(window, composed, suppressed)
        outcomes = self.parts.session.submit(batch, self.parts.journal)
        self._open.append(_Window(lo=window[0].seq, hi=hi, outcomes=outcomes))
        return True

    def _composed(self, window: Sequence[Recipient]) -> list[Submission | str]:
        return self.parts.composer.compose(window, [self.claim.position(row.seq) for row in window])

    def _passing(
        self, window: Sequence[Recipient], composed: Sequence[Submission | str], suppressed: set[int]
    ) -> list[Submission]:
        """What may leave; about whom it may not, that is known now."""
        batch: list[Submission] = []
        for row, message in zip(window, composed, strict=True):
            if row.seq in suppressed:
                self._withhold(row, SkipReason.SUPPRESSED)
            elif isinstance(message, str):
                self._withhold(row, SkipReason.MISSING_VARIABLE, message[:64])
            else:
                self._by_ref[message.ref] = row
                batch.append(message)
        return batch

    def _hear_meanwhile(self, pending: PendingWindow) -> None:
        """Take in answers while a commit is under way, as long as every connection has a message to go on with."""
        enough = 2 * self.parts.max_in_flight
        policy = self._retry_policy()
        while len(self._by_ref) > enough and pending.is_waiting:
            outcome = next(self._open[0].outcomes, None)
            # No answer for long: the lease is no concern while it is being renewed.
            if outcome is None:
                return
            self._hear(outcome, policy)

    def _exhaust_oldest(self) -> None:
        """Hear every answer of the oldest window; it stays open until then, so that nothing of it is forgotten."""
        policy = self._retry_policy()
        for outcome in self._open[0].outcomes:
            if outcome is None:
                self._keep_lease()
            else:
                self._hear(outcome, policy)
        kinds = self._open.popleft().heard
        self.result.tripped = self.parts.breaker.tripped
        self.result.answered |= bool(kinds.keys() - _NO_ANSWERS)
        self.result.unreached = set(kinds) == {OutcomeKind.NOT_SENT}
        self.result.gives_way |= self.result.unreached and self.parts.has_other
        now = time.monotonic()
        self.parts.pace.saw(kinds.total(), now - self._exhausted_at, self._waited_seconds)
        self._exhausted_at, self._waited_seconds = now, 0.0
        telemetry, channel = self.parts.runtime.telemetry, self.parts.gate.content.channel
        for kind, count in kinds.items():
            telemetry.count("delivery.outcomes", count, channel=channel, outcome=kind)
        telemetry.point("delivery.wire")

    def _hear(self, outcome: Outcome, policy: RetryPolicy) -> None:
        """One answer of the oldest window."""
        outcome = understood(outcome)
        self._open[0].heard[outcome.kind] += 1
        row = self._by_ref.pop(outcome.ref)
        self._know(self._settlement(outcome, row, policy))
        self.admission.heard(row, outcome)
        self.parts.breaker.saw(_COUNTED.get(outcome.kind, Verdict.GOOD))
        if outcome.kind is OutcomeKind.PERMANENT_SENDER:
            self.result.sender_failed = outcome.code or outcome.detail or "sender refused"
        if outcome.kind in (OutcomeKind.PERMANENT_SENDER, OutcomeKind.NOT_SENT):
            self.result.said, self.result.in_use = outcome.detail, outcome.code == IN_USE

    def _settlement(self, outcome: Outcome, row: Recipient, policy: RetryPolicy) -> Settlement:
        return settlement(
            outcome,
            seq=row.seq,
            attempts=row.attempts,
            mark=row.mark,
            message_class=self.parts.gate.content.message_class,
            policy=policy,
            rng=self.parts.runtime.rng,
        )

    def _retry_policy(self) -> RetryPolicy:
        runtime = self.parts.runtime
        settings = runtime.settings
        age = runtime.clock.now() - self.parts.gate.content.launched_at
        too_old = age > settings.max_retry_age
        return RetryPolicy(settings.max_attempts, settings.lease, too_old, self.parts.is_repeatable, self.parts.via)

    def _withhold(self, row: Recipient, reason: SkipReason, code: str | None = None) -> None:
        self._know(withheld(Settlement(row.seq, DeliveryState.SKIPPED, reason, code, row.attempts), row.mark))

    def _know(self, settlement: Settlement) -> None:
        self.known.append(settlement)
        self.result.settled += settlement.due_in_seconds is None
        self.result.accepted += settlement.state == DeliveryState.ACCEPTED

    def _keep_lease(self) -> None:
        """A slow provider must not cost us the lease: renew it, settling what is known."""
        lease = self.parts.runtime.settings.lease.total_seconds()
        if time.monotonic() - self._renewed_at < lease / 3:
            return
        with self._intending(self._whole_range(), self._whole_range()) as pending:
            self._answered(pending)

    def _intending(self, intended: Range, on_wire: Range, hashes: Sequence[bytes] = ()) -> PendingWindow:
        runtime, content = self.parts.runtime, self.parts.gate.content
        lease = runtime.settings.lease.total_seconds()
        known, self.known = self.known, []
        window = Window(intended, on_wire, known, hashes, content.channel, content.message_class, lease)
        return PendingWindow(runtime.engines.worker, self.claim, window)

    def _answered(self, pending: PendingWindow) -> WindowAnswer:
        asked_at = time.monotonic()
        answer = self._commit(pending.answer)
        if answer is None:
            raise LeaseLost
        self._renewed_at = time.monotonic()
        self._waited_seconds += self._renewed_at - asked_at
        return answer

    def _open_range(self) -> Range:
        """What is on the wire now."""
        return (self._open[0].lo, self._open[-1].hi) if self._open else (None, None)

    def _whole_range(self) -> Range:
        """What is on the wire while a window that was taken out of the queue is waited for."""
        refs = self._by_ref.values()
        seqs = [row.seq for row in refs]
        return (min(seqs), max(seqs)) if seqs else (None, None)

    def _close(self, *, finished: bool) -> None:
        """Settle the rest and give the chunk back. Only what ended well may be under way while others go on."""
        runtime = self.parts.runtime
        runtime.telemetry.point("delivery.close.before")
        left = left_of(self.claim, self.aside, is_all=finished and self.is_whole)
        self.result.waits_for = frozenset(self.aside)
        self._closing = PendingClose(runtime.engines.worker, self.claim, self.known, left)
        if not (finished and self._closing.is_under_way):
            self.see_closed()

    def _lost_lease(self) -> None:
        self.parts.runtime.telemetry.count("delivery.lease_lost")

    def _abandon(self) -> None:
        """However this ended: leave nothing of this chunk in the connections that the next one will use."""
        if not self._by_ref:
            return
        self.parts.session.withdraw()
        while self._open:
            deque(self._open.popleft().outcomes, maxlen=0)
        self._by_ref.clear()

    def _commit(self, step: Callable[[], Result]) -> Result:
        """Do a step that commits; a database that restarts is waited for.

        Every step may be repeated: it writes absolute values under the fence, which holds for longer than the lease
        where nobody took the chunk over.
        """
        deadline = self._renewed_at + max(self.parts.runtime.settings.lease.total_seconds(), _OUTAGE_SECONDS)
        waits = False
        while True:
            try:
                result = step()
            except DATABASE_ERRORS as error:
                if not is_transient(error) or time.monotonic() > deadline or self.parts.stopping():
                    raise
                if not waits:  # once: it may be a while
                    log.warning("commit_waits_for_the_database", error=str(cause_of(error))[:200])
                waits = True
                self.parts.runtime.telemetry.count("delivery.database_retry")
                time.sleep(_DATABASE_RETRY_SECONDS)
            else:
                return result


def left_of(claim: ChunkClaim, aside: Mapping[str, Sequence[int]], *, is_all: bool) -> Left:
    """What is left of a chunk some of whose recipients wait for the rates of domains.

    As few of them as can be are moved: where all that is left waits for one domain the chunk does, and nothing is written
    about anybody. Those of a chunk that lists its recipients are moved only when it is closed: it would list them still.

    Args:
        claim: the chunk.
        aside: domain → ``seq`` of whoever waits for it.
        is_all: every other recipient is settled or in the retry lane.
    """
    if is_all and len(aside) <= 1:
        return Left(closed=not aside, waits_for=next(iter(aside), None))
    if is_all and claim.seqs is not None:
        return Left(closed=True, aside=aside)
    if is_all:
        most = max(aside, key=lambda group: (len(aside[group]), group))
        return Left(closed=False, waits_for=most, aside={group: aside[group] for group in aside if group != most})
    if claim.waits_for is not None:
        # Where others are found among them, rates were changed: the next look is at the whole chunk.
        return Left(closed=False, waits_for=None if aside.keys() - {claim.waits_for} else claim.waits_for)
    return Left(closed=False, aside=aside if claim.seqs is None else {})
