"""The suite itself: a storage that breaks the contract does not pass it."""

import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest

from nexus_marketing.core.inline import stale
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin.testing import StorageConformance

pytestmark = pytest.mark.req("FR-EXT-005", "MAINT-004")


class Overwrites(MemoryStorage):
    """Does not look at the expected version."""

    def commit(self, key, expected_version, decision):
        current = self.load(key)
        return super().commit(key, 0 if current is None else current.version, decision)


class Tears(MemoryStorage):
    """Writes the line before it looks at the version."""

    def commit(self, key, expected_version, decision):
        self._histories[key] = (*self._histories.get(key, ()), decision.entry)
        current = self._states.get(key)
        version = 0 if current is None else current.version
        if version != expected_version:
            raise stale(key, version, expected_version)
        self._states[key] = decision.state
        return decision.state


class Forgets(MemoryStorage):
    """Keeps the last thousand lines."""

    def history(self, key, page):
        known = self._histories.get(key, ())[-1_000:]
        return [line for line in known if line.version > page.after][: page.limit]


class Rounds(MemoryStorage):
    """Keeps moments to the second."""

    def commit(self, key, expected_version, decision):
        rounded = replace(decision.state, updated_at=decision.state.updated_at.replace(microsecond=0))
        return super().commit(key, expected_version, replace(decision, state=rounded))


class Shuffles(MemoryStorage):
    """Finds campaigns in no order."""

    def find(self, wanted):
        return list(reversed(super().find(wanted)))


class TakesOverAgain(MemoryStorage):
    """Takes over what it has already."""

    def adopt(self, state, history, program=None, attended=frozenset()):
        self._states.pop(state.key, None)
        return super().adopt(state, history, program, attended)


def failures(make: Callable[[], MemoryStorage]) -> set[str]:
    """The tests that a storage fails, of those that need nothing but a storage."""
    failed = set()
    for name, test in inspect.getmembers(StorageConformance, inspect.isfunction):
        if name.startswith("test_") and list(inspect.signature(test).parameters) == ["self", "storage"]:
            suite = StorageConformance()
            try:
                test(suite, make())
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed


def test_a_storage_that_keeps_the_contract_passes():
    assert failures(MemoryStorage) == set()


@pytest.mark.parametrize(
    ("broken", "seen_by"),
    [
        (Overwrites, "test_of_many_moves_from_one_version_one_succeeds"),
        (Tears, "test_a_repeated_commit_is_refused_and_writes_no_second_line"),
        (Forgets, "test_a_long_history_is_kept_whole"),
        (Rounds, "test_moments_come_back_to_the_microsecond"),
        (Shuffles, "test_campaigns_are_found_by_subject"),
        (TakesOverAgain, "test_taking_over_a_second_time_changes_nothing"),
    ],
)
def test_a_storage_that_breaks_it_fails(broken, seen_by):
    assert seen_by in failures(broken)
