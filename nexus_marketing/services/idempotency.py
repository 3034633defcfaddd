"""Answers kept under an ``Idempotency-Key``, in the transaction of the effect (DATABASE.md).

A second call with the same key gets the stored answer, or hears at once that the first is still
running. A failure rolls everything back and keeps nothing, so that a retry runs again.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from threading import Lock

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.db.models import IdempotencyKey
from nexus_marketing.db.queries.idempotency import answers_before, forget_answers_of
from nexus_marketing.db.queries.locks import try_lock
from nexus_marketing.db.tenancy import open_session, tenant_of
from nexus_marketing.runtime import Context, Runtime

#: How long a repeat is recognised.
KEPT = timedelta(hours=48)
MAX_KEY_CHARACTERS = 255
#: Longer answers are kept by reference to their resource.
MAX_BODY_BYTES = 65_536


class KeyInFlight(Conflict):
    """A request with this Idempotency-Key is still running: ask again in a moment."""

    code = "idempotency_key_in_flight"


class KeyReused(ValidationError):
    """This Idempotency-Key came with another request before: use a new key for a new request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was, or is to be, answered."""

    status: int
    body: bytes


class KeysInFlight:
    """The keys being worked on in this process: SQLite's stand-in for advisory locks."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: set[tuple[int, str]] = set()

    def enter(self, tenant_id: int, key: str) -> Callable[[], None]:
        """Claim a key; the answer lets it go.

        Raises:
            KeyInFlight: somebody has it.
        """
        with self._lock:
            if (tenant_id, key) in self._keys:
                raise KeyInFlight(retry_after_seconds=1)
            self._keys.add((tenant_id, key))
        return lambda: self._leave((tenant_id, key))

    def _leave(self, item: tuple[int, str]) -> None:
        with self._lock:
            self._keys.discard(item)


def recall(ctx: Context, key: str, fingerprint: bytes) -> Answer | None:
    """The answer kept under a key, or ``None`` and the key is ours until the transaction ends.

    Must come before anything else of the transaction: a unique index alone would make the second
    call wait for the first instead of answering.

    Raises:
        KeyInFlight: the first call is still running.
        KeyReused: the key was used for a request with another fingerprint.
    """
    _lock(ctx, key)
    row = ctx.session.get(IdempotencyKey, (ctx.tenant_id, key))
    if row is None:
        return None
    if row.created_at < ctx.now - KEPT:
        ctx.session.delete(row)
        ctx.session.flush()
        return None
    if row.fingerprint != fingerprint:
        raise KeyReused
    return Answer(row.status, row.body)


def keep(ctx: Context, key: str, fingerprint: bytes, answer: Answer) -> None:
    """Keep the answer with the effect: both are committed or neither."""
    ctx.session.add(
        IdempotencyKey(key=key, fingerprint=fingerprint, status=answer.status, body=answer.body, created_at=ctx.now)
    )
    ctx.session.flush()


def forget_answers(runtime: Runtime) -> int:
    """Let go of answers that have had their time; answers how many. The workers' work, a piece a turn."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        old = answers_before(session, runtime.clock.now() - KEPT)
    keys: dict[int, list[str]] = defaultdict(list)
    for row in old:
        keys[row.tenant_id].append(row.key)
    for tenant_id, of_tenant in keys.items():
        with runtime.work(tenant_id) as ctx:
            forget_answers_of(ctx.session, of_tenant)
    return len(old)


def _lock(ctx: Context, key: str) -> None:
    if ctx.runtime.engines.dialect != "postgresql":
        return  # KeysInFlight and the single writer
    digest = blake2b(b"idempotency:%d:" % tenant_of(ctx.session) + key.encode(), digest_size=8).digest()
    if not try_lock(ctx.session, int.from_bytes(digest, signed=True)):
        raise KeyInFlight(retry_after_seconds=1)
