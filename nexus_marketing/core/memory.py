"""Campaigns in the memory of this process: for tests, simulations and programs without a database."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.inline import stale


class MemoryStorage:
    """The storage contract on two dictionaries; gone with the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._states: dict[CampaignKey, CampaignState] = {}
        self._histories: dict[CampaignKey, tuple[HistoryEntry, ...]] = {}

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign, or nothing."""
        return self._states.get(key)

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision.

        Raises:
            StaleVersion: another thread was first.
        """
        with self._lock:
            current = self._states.get(key)
            version = 0 if current is None else current.version
            if version != expected_version:
                raise stale(key, version, expected_version)
            self._states[key] = decision.state
            self._histories[key] = (*self._histories.get(key, ()), decision.entry)
        return decision.state

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the history, oldest first."""
        return [each for each in self._histories.get(key, ()) if each.version > page.after][: page.limit]

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """Campaigns in the order of their keys."""
        with self._lock:
            states = sorted(self._states.items(), key=lambda each: _order(each[0]))
        return [state for _, state in states if wanted.admits(state)][: wanted.limit]

    def adopt(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None = None,
        attended: frozenset[str] = frozenset(),
    ) -> CampaignState:
        """Take over a campaign as it is; one that is already here stays as it is here."""
        del program, attended
        with self._lock:
            if state.key not in self._states:
                self._histories[state.key] = tuple(history)
                self._states[state.key] = state
            return self._states[state.key]


def _order(key: CampaignKey) -> tuple[str, str, str]:
    return key.subject_type, key.subject_id, key.name
