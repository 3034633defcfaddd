"""SQL of the windows of a hand-over: what is known settled, what may leave written down (BEHAVIOUR.md 5.2).

On PostgreSQL all of a commit is one statement: a window holds a hundred messages at full speed and a dozen on a busy
machine, and then round trips cost more than the messages.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from psycopg import Error as DriverError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.deliveries import RELEASE, ChunkClaim, is_held, release_chunk
from nexus_marketing.db.queries.privacy import suppressed_hashes, suppressing
from nexus_marketing.db.queries.retries import put_aside
from nexus_marketing.db.queries.settling import Settlement, settle, settling
from nexus_marketing.db.retry import DATABASE_ERRORS
from nexus_marketing.db.tenancy import find, open_session, run, run_alone
from nexus_marketing.db.underway import DurableStatement

#: Lowest and highest ``seq`` that may be on the wire; twice ``None`` where nothing is.
Range = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Window:
    """What is committed before the next messages leave.

    ``intended`` may be on the wire from the commit on, provided the send is running; otherwise only ``on_wire``,
    what left before. ``hashes`` are the addresses to look up among the suppressions.
    """

    intended: Range
    on_wire: Range
    known: Sequence[Settlement]
    hashes: Sequence[bytes]
    channel: str
    message_class: MessageClass
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """Whether the intended messages may leave, and which addresses among them may not."""

    running: bool
    suppressed: Collection[bytes]


_INTENT = """
UPDATE marketing_delivery_chunks
SET intent_lo = CASE WHEN {running} THEN CAST(:lo AS bigint) ELSE CAST(:wire_lo AS bigint) END,
    intent_hi = CASE WHEN {running} THEN CAST(:hi AS bigint) ELSE CAST(:wire_hi AS bigint) END,
    lease_until = nexus_after(:lease_seconds)
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence AND closed_at IS NULL
RETURNING {running} AS running
""".format(
    running="(SELECT s.status = 'running' FROM marketing_sends s WHERE s.tenant_id = :tenant_id AND s.id = :send_id)"
)
_WINDOW_PG = """
WITH held AS ({intent}), settled AS ({settle} AND EXISTS (SELECT 1 FROM held))
SELECT running, ARRAY({suppressed}) AS suppressed FROM held
"""
_CLOSE_PG = """
WITH held AS ({release}), settled AS ({settle} AND EXISTS (SELECT 1 FROM held))
SELECT chunk_no FROM held
"""
_SETTLE_NOTHING = "SELECT WHERE false"


class PendingWindow:
    """A window whose commit is under way; a context that ends before the next one begins.

    On SQLite nothing is under way: all of it happens when the answer is asked for.
    """

    def __init__(self, engine: Engine, claim: ChunkClaim, window: Window) -> None:
        self._engine = engine
        self._claim = claim
        self._window = window
        self._statement: DurableStatement | None = None
        if engine.dialect.name == "postgresql":
            statement, values = _statement(claim, window)
            with suppress(DriverError, *DATABASE_ERRORS):
                self._statement = DurableStatement(engine, statement, values, tenant_id=claim.tenant_id)

    def __enter__(self) -> Self:
        """Nothing to do: it is under way."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See through what nobody waited for."""
        if self._statement is not None:
            self._statement.__exit__(kind, error, trace)

    @property
    def is_waiting(self) -> bool:
        """Whether the commit is under way still, so that there is time for something else."""
        return self._statement is not None and not self._statement.is_answered

    def answer(self) -> WindowAnswer | None:
        """As of ``commit_window``; asked again after an error it commits once more, which changes nothing twice."""
        statement, self._statement = self._statement, None
        if statement is not None:
            # What went wrong shows again, or is over: absolute values under the fence may be written twice.
            with suppress(DriverError):
                return _answer(statement.rows())
        return commit_window(self._engine, self._claim, self._window)


def commit_window(engine: Engine, claim: ChunkClaim, window: Window) -> WindowAnswer | None:
    """Settle, write down the intent, renew the lease, look for new suppressions: one durable transaction.

    Returns:
        ``None`` when the lease is lost: nothing was changed, nothing may be sent or settled.
    """
    if engine.dialect.name == "postgresql":
        statement, values = _statement(claim, window)
        return _answer(run_alone(engine, statement, values, tenant_id=claim.tenant_id, mode="durable"))
    with open_session(engine, tenant_id=claim.tenant_id, mode="durable") as session, session.begin():
        return _step_by_step(session, claim, window)


class Left(NamedTuple):
    """What a worker leaves of a chunk that it gives back."""

    #: All recipients are settled, in the retry lane or in a chunk of their own.
    closed: bool
    #: For the rate of which domain all that is left of it waits.
    waits_for: str | None = None
    #: Who gets a chunk of their own, by the domain that they wait for.
    aside: Mapping[str, Sequence[int]] = MappingProxyType({})


def commit_close(engine: Engine, claim: ChunkClaim, known: Sequence[Settlement], left: Left) -> bool:
    """Settle the rest, clear the intent and give the chunk back: one durable transaction.

    Returns:
        Whether the lease held; otherwise nothing was changed.
    """
    if engine.dialect.name == "postgresql" and not left.aside:
        statement, values = _closing(claim, known, left)
        return bool(run_alone(engine, statement, values, tenant_id=claim.tenant_id, mode="durable"))
    with open_session(engine, tenant_id=claim.tenant_id, mode="durable") as session, session.begin():
        if left.aside:
            find(session, Send, claim.send_id, lock=True)  # by whoever numbers chunks of a send
            if (was_held := is_held(session, claim)) is not True:
                return was_held is False  # it is written already: a chunk that was moved once is not moved twice
        held = release_chunk(session, claim, closed=left.closed, waits_for=left.waits_for)
        if held:
            settle(session, claim.send_id, known)
            put_aside(session, claim.send_id, left.aside)
        return held


class PendingClose:
    """The last transaction of a chunk, which is under way; see :func:`commit_close`.

    On SQLite, and where recipients are moved, nothing is under way: all of it happens when the answer is asked for.
    """

    def __init__(self, engine: Engine, claim: ChunkClaim, known: Sequence[Settlement], left: Left) -> None:
        self._again = partial(commit_close, engine, claim, known, left)
        self._statement: DurableStatement | None = None
        if engine.dialect.name == "postgresql" and not left.aside:
            statement, values = _closing(claim, known, left)
            with suppress(DriverError, *DATABASE_ERRORS):
                self._statement = DurableStatement(engine, statement, values, tenant_id=claim.tenant_id)

    @property
    def is_under_way(self) -> bool:
        """Whether there is time for something else before the answer."""
        return self._statement is not None

    def answer(self) -> bool:
        """Whether the lease held; asked again after an error it commits once more, which changes nothing twice."""
        statement, self._statement = self._statement, None
        if statement is not None:
            # What went wrong shows again, in the ordinary way, or is over.
            with suppress(DriverError):
                return bool(statement.rows())
        return self._again()


def _closing(claim: ChunkClaim, known: Sequence[Settlement], left: Left) -> tuple[str, Mapping[str, Any]]:
    settle_sql, settle_values = _settling(known)
    statement = _CLOSE_PG.format(release=RELEASE, settle=settle_sql)
    return statement, {**settle_values, **claim.key, "closed": left.closed, "waits_for": left.waits_for}


def _settling(known: Sequence[Settlement]) -> tuple[str, Mapping[str, Any]]:
    return settling(known) if known else (_SETTLE_NOTHING, {})


def _statement(claim: ChunkClaim, window: Window) -> tuple[str, Mapping[str, Any]]:
    settle_sql, settle_values = _settling(window.known)
    suppress_sql, suppress_values = suppressing(window.hashes, window.channel, window.message_class)
    statement = _WINDOW_PG.format(intent=_INTENT, settle=settle_sql, suppressed=suppress_sql)
    return statement, {**_intent_values(claim, window), **settle_values, **suppress_values}


def _answer(rows: Sequence[Sequence[Any]]) -> WindowAnswer | None:
    if not rows:
        return None
    running, suppressed = rows[0]
    return WindowAnswer(running, frozenset(map(bytes, suppressed)))


def _step_by_step(session: Session, claim: ChunkClaim, window: Window) -> WindowAnswer | None:
    held = run(session, _INTENT, _intent_values(claim, window), writes=True).first()
    if held is None:
        return None
    settle(session, claim.send_id, window.known)
    suppressed = suppressed_hashes(session, window.hashes, window.channel, window.message_class)
    return WindowAnswer(bool(held.running), suppressed)


def _intent_values(claim: ChunkClaim, window: Window) -> dict[str, object]:
    (lo, hi), (wire_lo, wire_hi) = window.intended, window.on_wire
    wires = {"wire_lo": wire_lo, "wire_hi": wire_hi}
    return {**claim.key, "lo": lo, "hi": hi, **wires, "lease_seconds": window.lease_seconds}
