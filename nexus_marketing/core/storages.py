"""What a storage of campaigns is, and the other places where things are kept, said once, for our own and for a stranger's.

The product knows them only by these types (DESIGN.md §6).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)


class Storage(Protocol):
    """Where campaigns and their histories are kept (campaign lifecycle only; FR-EXT-005).

    ``nexus_marketing.plugin.testing`` holds an implementation against what is said here. A storage may
    also be a :class:`DefinitionSource`, an :class:`AdoptingStorage` or a :class:`DeferringStorage`.
    """

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign as it is now, or nothing where it was never stored."""
        ...

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision, all of it or nothing, and answer the state as it is stored.

        Raises:
            StaleVersion: the campaign is not at ``expected_version`` (0: never stored) any more.
        """
        ...

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the campaign's history, oldest first; empty where it was never stored."""
        ...

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """Campaigns, in the order of their keys."""
        ...


class BlobStore(Protocol):
    """Where the bytes of attachments and uploads lie. Keys are ``tenant/hexadecimal``, made by us and never used
    twice. Every process needs the same store.
    """

    def put(self, key: str, content: bytes | BinaryIO) -> None:
        """Store durably before returning; a file is read from where it stands."""
        ...

    def get(self, key: str) -> bytes | None:
        """What was stored, or nothing."""
        ...

    def local(self, key: str) -> AbstractContextManager[Path | None]:
        """What was stored as a file of this machine, to be read while the context is open; or nothing."""
        ...

    def delete(self, key: str) -> None:
        """Remove it; what is gone already is no fault."""
        ...


class Cache(Protocol):
    """Where values are kept for a while that can be computed again; may forget any of them at any time."""

    def get(self, tenant_id: int, key: str) -> bytes | None:
        """What was put there, or nothing. Never raises for a cache that is away."""
        ...

    def put(self, tenant_id: int, key: str, value: bytes, lifetime: timedelta) -> None:
        """Keep a value for at most so long."""
        ...


class DefinitionSource(Protocol):
    """A storage that also keeps definitions: they come before those of the program."""

    def definition(self, code: str, reference: str | None) -> Any:
        """The ``Definition`` in force under a code, or the one a running campaign is pinned to; or nothing."""
        ...


class AdoptingStorage(Protocol):
    """A storage that takes over what an object has kept itself (promotion); a second time changes nothing."""

    def adopt(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None = None,
        attended: frozenset[str] = frozenset(),
    ) -> CampaignState:
        """Store a campaign as it is, its id and every line of its history included.

        ``program`` and ``attended`` as in :class:`nexus_marketing.core.campaigns.Decision`.
        """
        ...


class DeferringStorage(Protocol):
    """A storage inside somebody else's transaction: what follows a commit waits for theirs."""

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once the transaction is durable, and not at all if it is not."""
        ...
