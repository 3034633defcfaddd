"""MongoDB as a storage; the head of the output says whether a real server answered or a stand-in."""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from nexus_marketing.builtins.storages.mongo import MongoStorage
from nexus_marketing.core.campaigns import CampaignAction, CampaignFilter, CampaignKey, CampaignStatus, HistoryPage
from nexus_marketing.core.errors import ConfigurationError, StaleVersion, Unavailable
from nexus_marketing.plugin.testing import StorageConformance
from nexus_marketing.plugin.testing.lives import draft, launched, lived, moved, recorded, whole_history
from tests.common.servers.mongo import MongoServer
from tests.functional.test_upgrade_path import run_on

pytestmark = pytest.mark.req("FR-EXT-005", "REL-001", "REL-003", "REL-006", "BR-002", "BR-007")

KEY = CampaignKey("Product", "7", "spring")


@pytest.fixture
def storage(mongo_server: MongoServer, mongo_database: str) -> Iterator[MongoStorage]:
    storage = MongoStorage.from_url(mongo_server.url, "acme", mongo_database, timeout_seconds=10)
    yield storage
    storage.close()


class TestMongoStorage(StorageConformance):
    @pytest.fixture
    def storage(self, storage: MongoStorage) -> MongoStorage:
        return storage

    def again(self, storage: MongoStorage) -> MongoStorage:
        return MongoStorage(storage._client, "acme", storage._campaigns.database.name)


class Fails:
    """A collection whose next ``call`` does not get through; ``done`` says whether the server still did it."""

    def __init__(self, collection: Any, call: str, *, done: bool = False) -> None:
        self._collection, self._call, self._done = collection, call, done

    def __getattr__(self, name: str) -> Any:
        if name != self._call:
            return getattr(self._collection, name)

        def fail(*arguments: Any, **options: Any) -> None:
            if self._done:
                getattr(self._collection, name)(*arguments, **options)
            raise AutoReconnect("connection closed")

        return fail


def broken(storage: MongoStorage, part: str, call: str, *, done: bool = False) -> MongoStorage:
    """Another instance, which loses its connection in one of the steps of a commit."""
    again = MongoStorage(storage._client, "acme", storage._campaigns.database.name)
    setattr(again, part, Fails(getattr(again, part), call, done=done))
    return again


@pytest.mark.parametrize(
    ("part", "call", "done"),
    [
        ("_lines", "insert_one", False),
        ("_lines", "insert_one", True),
        ("_campaigns", "update_one", False),
        ("_campaigns", "update_one", True),
    ],
)
def test_a_commit_that_dies_in_any_step_is_whole_or_has_not_happened(storage, part, call, done):
    state = launched(storage, KEY)
    state = storage.commit(KEY, 1, recorded(state, "email_sent"))
    pause = moved(state, CampaignAction.PAUSE)
    with pytest.raises(Unavailable, match="look at the campaign"):
        broken(storage, part, call, done=done).commit(KEY, 2, pause)
    happened = part == "_campaigns" and done
    if happened:
        with pytest.raises(StaleVersion):
            storage.commit(KEY, 2, pause)
    else:
        assert [line.event for line in whole_history(storage, KEY)] == ["launch", "email_sent"]
        storage.commit(KEY, 2, pause)
    assert storage.load(KEY) == pause.state
    assert [line.event for line in whole_history(storage, KEY, limit=1)] == ["launch", "email_sent", "pause"]
    storage.commit(KEY, 3, moved(pause.state, CampaignAction.RESUME))
    assert [line.version for line in whole_history(storage, KEY)] == [1, 2, 3, 4]


@pytest.mark.parametrize("call", ["insert_one", "create_indexes"])
def test_taking_over_that_dies_half_way_can_be_tried_again(storage, call):
    other, lines = lived(KEY, 5)
    with pytest.raises(Unavailable):
        broken(storage, "_campaigns", call).adopt(other, lines)
    assert storage.load(KEY) is None
    assert list(storage.history(KEY, HistoryPage())) == []
    first = launched(storage, KEY)
    storage.commit(KEY, 1, moved(first, CampaignAction.CANCEL))
    assert [line.event for line in whole_history(storage, KEY)] == ["launch", "cancel"]


def test_whoever_takes_over_second_leaves_no_lines_behind(storage):
    state, lines = lived(KEY, 5)
    storage.adopt(state, lines)
    late = MongoStorage(storage._client, "acme", storage._campaigns.database.name)
    answers = [None, state]  # it looked a moment before the first was done
    late.load = lambda _key: answers.pop(0)
    assert late.adopt(state, lines) == state
    assert storage._lines.count_documents({}) == 4


def test_tenants_do_not_see_each_other(storage):
    launched(storage, KEY)
    other = MongoStorage(storage._client, "acme2", storage._campaigns.database.name)
    assert other.load(KEY) is None
    assert list(other.find(CampaignFilter())) == []
    assert launched(other, KEY).version == 1
    assert [line.event for line in storage.history(KEY, HistoryPage())] == ["launch"]
    with pytest.raises(ConfigurationError, match="is no tenant"):
        MongoStorage(storage._client, "a:b")


def test_a_campaign_stays_small_however_long_its_history_is(storage):
    state = launched(storage, KEY)
    for number in range(50):
        decision = recorded(state, "email_sent", metadata={"number": number, "text": "x" * 1_000})
        state = storage.commit(KEY, state.version, decision)
    document = storage._campaigns.find_one({})
    assert len(str(document)) < 3_000
    assert len(whole_history(storage, KEY, limit=7)) == 51


def test_looking_for_campaigns_uses_an_index(storage):
    launched(storage, KEY)
    names = [each["name"] for each in storage._campaigns.list_indexes()]
    assert sorted(names) == ["_id_", "status", "subject"]


def test_a_server_that_is_away_is_told_with_the_remedy(free_port):
    storage = MongoStorage.from_url(f"mongodb://127.0.0.1:{free_port}/", timeout_seconds=0.2)
    for call in (lambda: storage.load(KEY), lambda: storage.find(CampaignFilter()), lambda: launched(storage, KEY)):
        with pytest.raises(Unavailable, match="start it, or correct its address"):
            call()
    storage.close()


def test_what_is_kept_survives_a_new_connection(mongo_server, mongo_database, storage):
    launched(storage, KEY)
    fresh = MongoStorage.from_url(mongo_server.url, "acme", mongo_database)
    state = fresh.load(KEY)
    assert state is not None
    assert state.status is CampaignStatus.ACTIVE
    assert fresh.find(CampaignFilter())[0] == state
    with pytest.raises(StaleVersion):
        fresh.commit(KEY, 0, moved(draft(KEY), CampaignAction.LAUNCH))
    fresh.close()


@pytest.mark.req("BR-006", "US-010")
def test_the_program_of_the_first_week_runs_on_it_unchanged(storage):
    assert run_on(storage) == run_on(None)
