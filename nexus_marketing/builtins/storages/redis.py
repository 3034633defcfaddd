"""Campaigns in Redis or Valkey.

What Redis promises is what its configuration says, and its defaults promise little. Campaigns need
``appendonly yes``; with ``appendfsync everysec`` a crash of the machine may take back the last second, with
``always`` nothing. ``maxmemory-policy`` must be ``noeviction``, or campaigns disappear when memory runs out.
Replication is asynchronous: after a failover the last commits may be gone. Whoever cannot live with that
keeps campaigns in the database.

Keys, of which all of a tenant share one hash slot of a cluster::

    PREFIX:{TENANT}:campaign:ID     hash: version, state (JSON), token of the last commit
    PREFIX:{TENANT}:history:ID      sorted set: lines (JSON) by version
    PREFIX:{TENANT}:all             sorted set: every campaign, ordered by its key
    PREFIX:{TENANT}:status:STATUS   sorted set: the campaigns of a status, ordered the same way
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from redis import Redis, exceptions
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from nexus_marketing.builtins.storages.documents import entry_from, entry_text, state_from, state_text, tenant_name
from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    CampaignStatus,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.errors import ConfigurationError, Unavailable
from nexus_marketing.core.inline import stale

#: Every script gets the same keys: campaign, history, all, and the six statuses in this order.
_STATUSES: Final = tuple(CampaignStatus)
_WRITTEN: Final = -1
#: A script runs alone and its effects reach the append-only file as one: all of it or nothing.
_WRITE: Final = """
local function write(version, token, state, status, member)
  redis.call('HSET', KEYS[1], 'version', version, 'token', token, 'state', state)
  redis.call('ZADD', KEYS[3], 0, member)
  for each = 4, #KEYS do
    if each == 3 + tonumber(status) then
      redis.call('ZADD', KEYS[each], 0, member)
    else
      redis.call('ZREM', KEYS[each], member)
    end
  end
end
"""
# The token tells a commit that is sent again, because its answer was lost on the way, from another's.
_COMMIT: Final = f"""{_WRITE}
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if current ~= tonumber(ARGV[1]) then
  if redis.call('HGET', KEYS[1], 'token') == ARGV[3] then return {_WRITTEN} end
  return current
end
write(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[7])
return {_WRITTEN}
"""
_ADOPT: Final = f"""{_WRITE}
local state = redis.call('HGET', KEYS[1], 'state')
if state then return state end
write(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
for each = 6, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[each], ARGV[each + 1]) end
return ARGV[3]
"""
_AWAY: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)
_REFUSED: Final = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_RETRIES: Final = 2
#: How many campaigns are asked for at once.
_PIECE: Final = 500
_ID_CHARACTERS: Final = 32


class RedisStorage:
    """Campaigns of one tenant in Redis; the module says what to configure there.

    Args:
        client: of redis-py, for one server, Sentinel or a cluster. Its time limits are the storage's.
        tenant: whose campaigns; letters, digits, ``-``, ``_`` and ``.``.
        prefix: of every key.
    """

    def __init__(self, client: Any, tenant: str = "default", prefix: str = "nexus") -> None:
        self._client = client
        self._prefix = f"{prefix}:{{{tenant_name(tenant)}}}"
        self._commit = client.register_script(_COMMIT)
        self._adopt = client.register_script(_ADOPT)

    @classmethod
    def from_url(
        cls, url: str, tenant: str = "default", prefix: str = "nexus", *, timeout_seconds: float = 2.0
    ) -> Self:
        """A storage on the server of ``redis://…``, ``rediss://…`` or ``unix://…``.

        Args:
            url: as redis-py reads it.
            tenant: whose campaigns.
            prefix: of every key.
            timeout_seconds: to connect, and to wait for an answer; a command is tried three times.
        """
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), _RETRIES)
        limits: dict[str, Any] = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        return cls(Redis.from_url(url, retry=retry, **limits), tenant, prefix)

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign as it is now, or nothing."""
        with _answering("nothing was changed"):
            text = self._client.hget(self._name("campaign", key.id), "state")
        return None if text is None else state_from(text)

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision, all of it or nothing.

        Raises:
            StaleVersion: another call was first.
            Unavailable: the server did not answer, three times. The decision may have been written all the
                same: a repeat is refused as stale then, and never writes a second line.
        """
        state = decision.state
        arguments = [expected_version, state.version, *self._arguments(key, state), entry_text(decision.entry)]
        with _answering("look at the campaign before you try again: it may have been changed all the same"):
            current = int(self._commit(keys=self._keys(key), args=arguments))
        if current != _WRITTEN:
            raise stale(key, current, expected_version)
        return state

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the campaign's history, oldest first."""
        with _answering("nothing was changed"):
            lines = self._client.zrangebyscore(
                self._name("history", key.id), f"({page.after}", "+inf", start=0, num=page.limit
            )
        return [entry_from(line) for line in lines]

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """Campaigns, in the order of their keys."""
        with _answering("nothing was changed"):
            found: list[CampaignState] = []
            for state in self._walk(wanted):
                if len(found) == wanted.limit:
                    break
                found.append(state)
            return found

    def adopt(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None = None,
        attended: frozenset[str] = frozenset(),
    ) -> CampaignState:
        """Take over a campaign as it is; one that is already here stays as it is here."""
        del program, attended  # nobody but the program itself moves campaigns that are kept here
        lines = [each for line in history for each in (line.version, entry_text(line))]
        arguments = [state.version, *self._arguments(state.key, state), *lines]
        with _answering("nothing is lost by trying again"):
            return state_from(self._adopt(keys=self._keys(state.key), args=arguments))

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _walk(self, wanted: CampaignFilter) -> Iterator[CampaignState]:
        """The campaigns meant, piece by piece: their places from the indexes, then their states."""
        indexes = [self._name("status", status) for status in _STATUSES if status in wanted.statuses]
        low, high = _range(wanted)
        piece = min(wanted.limit, _PIECE)
        while members := self._members(indexes or [self._name("all")], low, high, piece):
            with self._client.pipeline(transaction=False) as pipe:
                for member in members:
                    pipe.hget(self._name("campaign", member[-_ID_CHARACTERS:].decode()), "state")
                states = [state_from(text) for text in pipe.execute() if text is not None]
            yield from (state for state in states if wanted.admits(state))
            low = b"(" + members[-1]

    def _members(self, indexes: list[str], low: bytes, high: bytes, count: int) -> list[bytes]:
        """The next campaigns of all indexes together, read at one moment: what changes its status is in one of them."""
        with self._client.pipeline(transaction=True) as pipe:
            for index in indexes:
                pipe.zrangebylex(index, low, high, start=0, num=count)
            found = {_bytes(member) for members in pipe.execute() for member in members}
        return sorted(found)[:count]

    def _arguments(self, key: CampaignKey, state: CampaignState) -> list[Any]:
        member = b"\0".join(part.encode() for part in (key.subject_type, key.subject_id, key.name, key.id))
        return [secrets.token_hex(8), state_text(state), 1 + _STATUSES.index(state.status), member]

    def _keys(self, key: CampaignKey) -> list[str]:
        statuses = [self._name("status", status) for status in _STATUSES]
        return [self._name("campaign", key.id), self._name("history", key.id), self._name("all"), *statuses]

    def _name(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _range(wanted: CampaignFilter) -> tuple[bytes, bytes]:
    """Where the campaigns meant lie in an index, as far as its order tells."""
    if wanted.subject_type is None:
        return b"-", b"+"
    parts = [wanted.subject_type] if wanted.subject_id is None else [wanted.subject_type, wanted.subject_id]
    start = b"\0".join(part.encode() for part in parts)
    return b"[" + start + b"\0", b"(" + start + b"\1"


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


@contextmanager
def _answering(consequence: str) -> Iterator[None]:
    """Errors of the client in our words: what to do, and what it means for the campaign."""
    try:
        yield
    except _REFUSED as error:
        raise ConfigurationError(f"Redis refuses this login ({error}): correct the user and password.") from error
    except _AWAY as error:
        raise Unavailable(
            f"Redis does not answer as it should ({error}): start it, or correct its address; {consequence}."
        ) from error
