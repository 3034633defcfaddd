"""What every storage must do, as tests that anybody can run on their own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from threading import Event, Thread
from typing import Any, ClassVar

import pytest

from nexus_marketing.core.campaigns import (
    CampaignAction,
    CampaignFilter,
    CampaignKey,
    CampaignState,
    CampaignStatus,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.errors import StaleVersion
from nexus_marketing.core.storages import Storage
from nexus_marketing.plugin.testing.lives import (
    draft,
    kept,
    launched,
    lived,
    moved,
    race,
    recorded,
    whole_history,
)

#: Values that storages are known to change: each must come back as it went in, type included.
DATA = {
    "text": 'Zürich, 東京, مرحبا, 🎉, "quoted", back\\slash, it\'s, %s, {}',
    "control": "a\ttab, a\nline, a\u2028separator, a\u007f",
    "empty": {"text": "", "list": [], "mapping": {}, "nothing": None},
    "numbers": [0, -1, 2**53 - 1, -(2**53) + 1, 0.1, -1.5e-7, 4503599627370495.5],
    "flags": [True, False],
    "number as text": "0012.50",
    "$set": {"a.b": 1, "$gt": 2, "": 3, "__proto__": 4},
    "deep": {"er": {"and": {"deeper": [[[[{"end": "here"}]]]]}}},
    "moment": "2026-03-29T01:30:00.000001Z",
}
ODD = (
    "plain",
    "Plain",
    "with:colon",
    "with/slash",
    "with\\backslash",
    "with space",
    " with space",
    "with\nline",
    "with'quote\"s",
    "with{brace}[bracket]*?",
    "with%percent$dollar.dot",
    "ünïcödé",
    "\N{PARTY POPPER}",
    "\U0010ffff",
    "0",
    "long" * 200,
    "long" * 200 + "er",
)


class StorageConformance:
    """Holds a storage against :class:`nexus_marketing.plugin.Storage`.

    Make a subclass whose name begins with ``Test`` and give it a fixture ``storage``, which answers a new,
    empty storage for each test::

        class TestMyStorage(StorageConformance):
            @pytest.fixture
            def storage(self, tmp_path):
                return MyStorage(tmp_path)

    Keys hold any text but the character U+0000, up to about a thousand bytes. What a storage offers beyond
    the four methods is tested where it offers it: ``adopt``.
    """

    #: Whether it keeps the campaigns of one object only, which is :attr:`subject` then.
    one_subject: ClassVar[bool] = False
    subject: ClassVar[tuple[str, str]] = ("Product", "7")
    #: How many lines a long history has. A campaign that runs for years may have more.
    long_history: ClassVar[int] = 10_000
    #: How many threads write at the same moment.
    writers: ClassVar[int] = 8

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage under test, empty."""
        pytest.fail(f"{type(self).__name__} needs a fixture named storage that answers an empty storage")

    def again(self, storage: Any) -> Storage:
        """Another instance on the same campaigns, as another process would have; itself where that cannot be."""
        same: Storage = storage
        return same

    def key(self, name: str = "spring", subject_id: str | None = None) -> CampaignKey:
        """The key of a campaign of :attr:`subject`, or of another subject of that type."""
        kind, id_ = self.subject
        return CampaignKey(kind, id_ if subject_id is None else subject_id, name)

    def needs_many_subjects(self) -> None:
        """Leave a test out where there is one subject only."""
        if self.one_subject:
            pytest.skip("keeps the campaigns of one object")

    def adopting(self, storage: Any) -> Callable[..., CampaignState]:
        """The storage's ``adopt``; a test is left out where it has none."""
        adopt: Callable[..., CampaignState] | None = getattr(storage, "adopt", None)
        if adopt is None:
            pytest.skip("takes nothing over")
        return adopt

    def test_what_was_never_stored_is_nothing(self, storage: Storage) -> None:
        assert storage.load(self.key()) is None
        assert list(storage.history(self.key(), HistoryPage())) == []
        assert list(storage.find(CampaignFilter())) == []

    def test_a_commit_is_read_back(self, storage: Storage) -> None:
        decision = moved(draft(self.key()), CampaignAction.LAUNCH, actor="user:3", metadata={"source": "import"})
        answer = storage.commit(self.key(), 0, decision)
        assert kept(answer) == decision.state
        for each in (storage, self.again(storage)):
            assert each.load(self.key()) == decision.state
            assert list(each.history(self.key(), HistoryPage())) == [decision.entry]
            assert list(each.find(CampaignFilter())) == [decision.state]

    def test_data_come_back_as_they_went_in(self, storage: Storage) -> None:
        state = launched(storage, self.key(), DATA)
        decision = recorded(state, "email.opened $1 🎉", metadata=DATA)
        storage.commit(self.key(), state.version, decision)
        found = self.again(storage).load(self.key())
        assert found is not None
        assert (found.data, found.counters) == (DATA, {"email.opened $1 🎉": 1})
        assert _types(found.data) == _types(DATA)
        assert whole_history(self.again(storage), self.key())[1].metadata == DATA

    def test_moments_come_back_to_the_microsecond(self, storage: Storage) -> None:
        launch = moved(draft(self.key()), CampaignAction.LAUNCH, {"start_date": "2031-12-31T23:59:59.999999Z"})
        waiting = storage.commit(self.key(), 0, launch)
        assert waiting.status is CampaignStatus.QUEUED
        cancelled = storage.commit(self.key(), 1, moved(waiting, CampaignAction.CANCEL, reason="it rains"))
        found = self.again(storage).load(self.key())
        assert found is not None
        assert found == kept(cancelled)
        moments = (found.starts_at, found.created_at, found.updated_at, found.completed_at)
        assert [each.microsecond for each in moments if each is not None] == [999_999, 123_457, 123_457, 123_457]
        assert all(each is not None and each.utcoffset() is not None for each in moments)

    def test_every_change_is_one_line_of_history(self, storage: Storage) -> None:
        lines, state = self._long_way(storage)
        assert state.status is CampaignStatus.COMPLETED
        assert list(storage.history(self.key(), HistoryPage())) == lines
        assert [line.version for line in lines] == list(range(1, len(lines) + 1))
        assert [line.before for line in lines[1:]] == [line.after for line in lines[:-1]]
        assert whole_history(self.again(storage), self.key()) == lines

    def test_a_history_is_read_in_pages(self, storage: Storage) -> None:
        lines, _ = self._long_way(storage)
        assert list(storage.history(self.key(), HistoryPage(limit=2))) == lines[:2]
        assert list(storage.history(self.key(), HistoryPage(after=2, limit=3))) == lines[2:5]
        assert list(storage.history(self.key(), HistoryPage(after=len(lines) - 1))) == lines[-1:]
        assert list(storage.history(self.key(), HistoryPage(after=len(lines)))) == []
        assert whole_history(storage, self.key(), limit=1) == lines

    @pytest.mark.parametrize("expected", [0, 1, 3, 1_000])
    def test_another_version_than_the_stored_one_is_refused(self, storage: Storage, expected: int) -> None:
        state = launched(storage, self.key())
        state = storage.commit(self.key(), 1, moved(state, CampaignAction.PAUSE))
        before = (kept(state), whole_history(storage, self.key()), list(storage.find(CampaignFilter())))
        with pytest.raises(StaleVersion) as caught:
            storage.commit(self.key(), expected, moved(state, CampaignAction.RESUME))
        assert caught.value.context["current"] == state.version
        after = (storage.load(self.key()), whole_history(storage, self.key()), list(storage.find(CampaignFilter())))
        assert after == before

    def test_a_version_of_what_was_never_stored_is_refused(self, storage: Storage) -> None:
        state = moved(draft(self.key()), CampaignAction.LAUNCH).state
        with pytest.raises(StaleVersion):
            storage.commit(self.key(), 1, moved(state, CampaignAction.PAUSE))
        assert storage.load(self.key()) is None
        assert list(storage.history(self.key(), HistoryPage())) == []
        assert list(storage.find(CampaignFilter())) == []

    def test_a_repeated_commit_is_refused_and_writes_no_second_line(self, storage: Storage) -> None:
        decision = moved(draft(self.key()), CampaignAction.LAUNCH)
        storage.commit(self.key(), 0, decision)
        with pytest.raises(StaleVersion):
            self.again(storage).commit(self.key(), 0, decision)
        assert whole_history(storage, self.key()) == [decision.entry]

    def test_of_many_first_commits_one_succeeds(self, storage: Storage) -> None:
        launch = moved(draft(self.key()), CampaignAction.LAUNCH)
        for number in range(5):
            key = self.key(f"race {number}")
            decisions = [moved(draft(key), CampaignAction.LAUNCH, actor=f"user:{n}") for n in range(self.writers)]
            winners, losers = race([partial(self.again(storage).commit, key, 0, each) for each in decisions])
            assert (len(winners), len(losers)) == (1, self.writers - 1)
            assert storage.load(key) == kept(winners[0])
            assert len(whole_history(storage, key)) == 1
        assert storage.load(self.key()) is None
        assert kept(storage.commit(self.key(), 0, launch)) == launch.state

    def test_of_many_moves_from_one_version_one_succeeds(self, storage: Storage) -> None:
        state = launched(storage, self.key())
        for number in range(5):
            events = [recorded(state, "email_sent", actor=f"user:{n}") for n in range(self.writers)]
            attempts = [partial(self.again(storage).commit, self.key(), state.version, each) for each in events]
            winners, losers = race(attempts)
            assert (len(winners), len(losers)) == (1, self.writers - 1)
            assert all(each.context["current"] == state.version + 1 for each in losers)
            state = winners[0]
            assert (state.version, len(whole_history(storage, self.key()))) == (number + 2, number + 2)

    def test_writers_that_try_again_lose_nothing(self, storage: Storage) -> None:
        launched(storage, self.key())
        _, losers = race([partial(self._count, self.again(storage), f"user:{n}") for n in range(4)])
        assert losers == []
        state = storage.load(self.key())
        assert state is not None
        assert (state.version, dict(state.counters)) == (21, {"email_sent": 20})
        lines = whole_history(storage, self.key())
        assert [line.version for line in lines] == list(range(1, 22))
        assert sorted(line.actor for line in lines[1:]) == sorted(f"user:{n}" for n in range(4) for _ in range(5))

    def test_a_reader_sees_all_of_a_change_or_nothing(self, storage: Storage) -> None:
        state = launched(storage, self.key())
        done = Event()
        seen: list[tuple[int, int, int]] = []
        reader = Thread(target=self._watch, args=(self.again(storage), done, seen))
        reader.start()
        for _ in range(30):
            state = storage.commit(self.key(), state.version, recorded(state, "email_sent"))
        done.set()
        reader.join()
        assert seen
        assert [each for each in seen if not each[0] <= each[1] <= each[2]] == []
        assert [each for each in pairwise(seen) if each[0][2] > each[1][0]] == []

    def test_a_long_history_is_kept_whole(self, storage: Storage) -> None:
        state, lines = lived(self.key(), self.long_history)
        adopt = getattr(storage, "adopt", None)
        if adopt is None:
            for line in lines:
                storage.commit(self.key(), line.version - 1, _decision(state, line))
        else:
            adopt(state, lines)
        assert whole_history(self.again(storage), self.key()) == lines
        state = storage.commit(self.key(), state.version, moved(state, CampaignAction.COMPLETE))
        last = storage.history(self.key(), HistoryPage(after=self.long_history - 1))
        assert [line.event for line in last] == ["email_opened", "complete"]
        assert storage.load(self.key()) == kept(state)

    @pytest.mark.parametrize("part", ["subject_type", "subject_id", "name"])
    def test_keys_are_any_text(self, storage: Storage, part: str) -> None:
        if part != "name":
            self.needs_many_subjects()
        kind, id_ = self.subject
        keys = [CampaignKey(**{"subject_type": kind, "subject_id": id_, "name": "spring", part: odd}) for odd in ODD]
        states = {key: launched(storage, key, {"odd": key.name}) for key in keys}
        assert len({state.id for state in states.values()}) == len(keys)
        for key, state in states.items():
            assert self.again(storage).load(key) == kept(state)
            assert len(storage.history(key, HistoryPage())) == 1
        found = [state.key for state in storage.find(CampaignFilter())]
        assert found == sorted(keys, key=_order)

    def test_parts_of_a_key_are_not_run_together(self, storage: Storage) -> None:
        self.needs_many_subjects()
        keys = [
            CampaignKey("a", "b:c", "d"),
            CampaignKey("a:b", "c", "d"),
            CampaignKey("a", "b", "c:d"),
            CampaignKey("a b", "c", "d"),
            CampaignKey("a", "b c", "d"),
            CampaignKey("a", "", "d"),
        ]
        for key in keys:
            launched(storage, key)
        assert [state.key for state in storage.find(CampaignFilter())] == sorted(keys, key=_order)
        assert [state.key for state in storage.find(CampaignFilter("a", "b"))] == [keys[2]]
        assert [state.key for state in storage.find(CampaignFilter("a", ""))] == [keys[5]]

    def test_campaigns_of_the_subject_are_found_in_the_order_of_their_names(self, storage: Storage) -> None:
        for name in ("b", "a", "c", "B"):
            launched(storage, self.key(name))
        states = storage.find(CampaignFilter(*self.subject))
        assert [state.key.name for state in states] == ["B", "a", "b", "c"]
        assert list(states) == [storage.load(state.key) for state in states]
        assert [state.key.name for state in storage.find(CampaignFilter(*self.subject, limit=2))] == ["B", "a"]

    def test_campaigns_are_found_by_where_they_stand(self, storage: Storage) -> None:
        for name in ("a", "b", "c"):
            launched(storage, self.key(name))
        state = storage.load(self.key("b"))
        assert state is not None
        state = storage.commit(self.key("b"), 1, moved(state, CampaignAction.PAUSE))
        active, paused = frozenset({CampaignStatus.ACTIVE}), frozenset({CampaignStatus.PAUSED})
        assert self._names(storage, statuses=active) == ["a", "c"]
        assert self._names(storage, statuses=paused) == ["b"]
        assert self._names(storage, statuses=active | paused) == ["a", "b", "c"]
        assert self._names(storage, statuses=active | paused, limit=2) == ["a", "b"]
        assert self._names(storage, statuses=frozenset({CampaignStatus.DRAFT})) == []
        storage.commit(self.key("b"), 2, moved(state, CampaignAction.RESUME))
        assert self._names(storage, statuses=active) == ["a", "b", "c"]
        assert self._names(storage, statuses=paused) == []

    def test_campaigns_are_found_by_subject(self, storage: Storage) -> None:
        self.needs_many_subjects()
        keys = [CampaignKey(kind, id_, name) for kind in ("Order", "Product") for id_ in ("1", "10") for name in "ab"]
        for key in reversed(keys):
            launched(storage, key)
        assert [state.key for state in storage.find(CampaignFilter())] == keys
        assert [state.key for state in storage.find(CampaignFilter("Order"))] == keys[:4]
        assert [state.key for state in storage.find(CampaignFilter("Order", "1"))] == keys[:2]
        assert [state.key for state in storage.find(CampaignFilter(subject_id="10"))] == keys[2:4] + keys[6:]
        assert [state.key for state in storage.find(CampaignFilter(subject_id="10", limit=3))] == [*keys[2:4], keys[6]]
        assert list(storage.find(CampaignFilter("Orde"))) == []

    def test_what_an_object_kept_is_taken_over_as_it_is(self, storage: Storage) -> None:
        adopt = self.adopting(storage)
        state, lines = lived(self.key(), 20)
        assert kept(adopt(state, lines)) == state
        assert self.again(storage).load(self.key()) == state
        assert whole_history(storage, self.key()) == lines
        assert list(storage.find(CampaignFilter())) == [state]

    def test_taking_over_a_second_time_changes_nothing(self, storage: Storage) -> None:
        adopt = self.adopting(storage)
        state, lines = lived(self.key(), 3)
        adopt(state, lines)
        ahead = storage.commit(self.key(), 3, moved(state, CampaignAction.PAUSE))
        later, more = lived(self.key(), 30)
        for each in ((state, lines), (later, more)):
            assert kept(adopt(*each)) == kept(ahead)
        assert storage.load(self.key()) == kept(ahead)
        assert [line.event for line in whole_history(storage, self.key())] == [*(line.event for line in lines), "pause"]

    def test_many_that_take_over_at_once_take_over_once(self, storage: Storage) -> None:
        self.adopting(storage)
        state, lines = lived(self.key(), 10)
        winners, losers = race([partial(self._adopt, self.again(storage), state, lines) for _ in range(self.writers)])
        assert losers == []
        assert [kept(each) for each in winners] == [state] * self.writers
        assert whole_history(storage, self.key()) == lines

    def _long_way(self, storage: Storage) -> tuple[list[HistoryEntry], CampaignState]:
        """A campaign that sees most of what there is; answers its lines and its end."""
        decision = moved(draft(self.key()), CampaignAction.LAUNCH, {"budget": 5000}, actor="user:3")
        lines, state = [decision.entry], storage.commit(self.key(), 0, decision)
        for action in ("email_sent", "pause", "email_opened", "resume", "email_sent", "complete"):
            decision = recorded(state, action) if "_" in action else moved(state, action, reason=f"to {action}")
            state = storage.commit(self.key(), state.version, decision)
            lines.append(decision.entry)
        return lines, state

    def _count(self, storage: Storage, actor: str) -> None:
        """Five events, each tried until it is written."""
        for _ in range(5):
            for _ in range(1_000):
                state = storage.load(self.key())
                assert state is not None
                try:
                    storage.commit(self.key(), state.version, recorded(state, "email_sent", actor=actor))
                    break
                except StaleVersion:
                    continue
            else:
                pytest.fail("one of the writers never gets its turn")

    def _watch(self, storage: Storage, done: Event, seen: list[tuple[int, int, int]]) -> None:
        """Versions as a reader sees them: of the state, of the last line, of the state again."""
        while not done.is_set():
            first = storage.load(self.key())
            lines = storage.history(self.key(), HistoryPage())
            second = storage.load(self.key())
            if first is not None and second is not None:
                seen.append((first.version, lines[-1].version, second.version))

    def _names(self, storage: Storage, **wanted: Any) -> list[str]:
        return [state.key.name for state in storage.find(CampaignFilter(*self.subject, **wanted))]

    @staticmethod
    def _adopt(storage: Any, state: CampaignState, lines: Sequence[HistoryEntry]) -> CampaignState:
        adopted: CampaignState = storage.adopt(state, lines)
        return adopted


def _order(key: CampaignKey) -> tuple[str, str, str]:
    return key.subject_type, key.subject_id, key.name


def _types(value: Any) -> Any:
    """A value's types, all the way down: ``1``, ``1.0`` and ``True`` are equal and not the same."""
    if isinstance(value, dict):
        return {name: _types(each) for name, each in value.items()}
    return [_types(each) for each in value] if isinstance(value, list) else type(value)


def _decision(state: CampaignState, line: HistoryEntry) -> Decision:
    """The decision that made a line of a campaign's history, for storages that take nothing over."""
    at_that_time = replace(state, version=line.version, updated_at=line.at)
    return Decision(line.event, at_that_time, line, moves=line.event == CampaignAction.LAUNCH)
