"""Who a key belongs to: remembered for a second at most, looked up otherwise, throttled when bad.

The memory is what makes a request cheap; its second is how long a revoked key may still work on
another process (S16). Bad keys cost one indexed look-up until their prefix or address is throttled.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.api_keys import parse_key
from nexus_marketing.core.errors import AuthenticationFailed, RateLimited
from nexus_marketing.core.permissions import parse_scopes
from nexus_marketing.db.queries.api_keys import KeyRow, find_api_key
from nexus_marketing.limits.addresses import network_of
from nexus_marketing.limits.memories import ShortMemory
from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.runtime import Runtime

#: How long an answer about a key may be used again.
MEMORY_SECONDS = 1.0
#: Wrong keys a minute before a prefix or an address has to wait.
_BAD_PER_PREFIX = 20
_BAD_PER_ADDRESS = 60
#: Compared with when there is no such key, so that an unknown id takes as long as a wrong secret.
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is let in: by a live key, or without one (``key_row_id`` is nothing) by the session of the application around us.

    The latter is ambient: a browser sends it along whichever page asks.
    """

    tenant_id: int
    key_row_id: int | None
    actor: Actor

    @property
    def is_ambient(self) -> bool:
        """Whether a page of somebody else could make a browser act so."""
        return self.key_row_id is None


class KeyRing:
    """Answers keys of requests with credentials."""

    def __init__(self, runtime: Runtime, now_seconds: Callable[[], float]) -> None:
        self._runtime = runtime
        self._known: ShortMemory[bytes, Credentials] = ShortMemory(MEMORY_SECONDS, now_seconds)
        self._bad_prefixes = SlidingWindows(_BAD_PER_PREFIX, 60.0, now_seconds)
        self._bad_addresses = SlidingWindows(_BAD_PER_ADDRESS, 60.0, now_seconds)

    def identify(self, text: str, address: str) -> Credentials:
        """Whose key this is.

        Args:
            text: the key as sent.
            address: where the request came from, for throttling.

        Raises:
            AuthenticationFailed: it is malformed, unknown, expired or revoked, or its tenant is
                suspended; the answer does not tell which.
            RateLimited: too many wrong keys under this prefix or from this address.
        """
        digest = sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._known.fresh(digest)
        if known is not None:
            return known
        parsed = parse_key(text)
        key_id, address = parsed.key_id if parsed else None, network_of(address)
        if self._known.last(digest) is None:  # a key that was good before is looked up again whatever others try
            self._refuse_throttled(key_id, address)
        credentials = self._look_up(key_id, digest)
        if credentials is None:
            self._note_failure(key_id, address, digest)
            raise AuthenticationFailed
        self._known.note(digest, credentials)
        return credentials

    def _look_up(self, key_id: str | None, digest: bytes) -> Credentials | None:
        row = find_api_key(self._runtime.engines.app, key_id) if key_id else None
        same = hmac.compare_digest(row.secret_hash if row else _NOBODY, digest)
        if row is None or not same or not row.is_live(self._runtime.clock.now()):
            return None
        return _credentials(row)

    def _refuse_throttled(self, key_id: str | None, address: str) -> None:
        for windows, key in ((self._bad_addresses, address), (self._bad_prefixes, key_id)):
            verdict = windows.look(key)
            if key is not None and not verdict.allowed:
                raise RateLimited("Too many wrong keys: wait.", retry_after_seconds=verdict.retry_after_seconds)

    def _note_failure(self, key_id: str | None, address: str, digest: bytes) -> None:
        self._known.forget(digest)
        self._bad_addresses.take(address)
        if key_id is not None:
            self._bad_prefixes.take(key_id)
        self._runtime.telemetry.count("security.authentication_failed")


def _credentials(row: KeyRow) -> Credentials:
    actor = Actor(f"key:{row.id}", parse_scopes(row.scopes), row.member_id)
    return Credentials(row.tenant_id, row.id, actor)
