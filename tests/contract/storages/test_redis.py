"""What is Redis's own: tenants side by side, lost answers, a server that is away."""

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from redis.crc import key_slot

from nexus_marketing.builtins.storages.redis import RedisStorage
from nexus_marketing.core.campaigns import CampaignAction, CampaignFilter, CampaignKey, CampaignStatus, HistoryPage
from nexus_marketing.core.errors import ConfigurationError, StaleVersion, Unavailable
from nexus_marketing.plugin.testing.lives import draft, launched, moved
from tests.common.wires import Wire, wire_to

pytestmark = pytest.mark.req("FR-EXT-005", "REL-001", "REL-003", "REL-006")

KEY = CampaignKey("Product", "7", "spring")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def storage(client: redis.Redis) -> RedisStorage:
    return RedisStorage(client, "acme")


@pytest.fixture
def wire(redis_url: str) -> Iterator[Wire]:
    with wire_to(urlsplit(redis_url).port or 0) as wire:
        yield wire


def through(wire: Wire, redis_url: str) -> RedisStorage:
    """A storage behind the wire."""
    parts = urlsplit(redis_url)
    login = parts.netloc.rpartition("@")[0]
    url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{wire.port}"))
    return RedisStorage.from_url(url, "acme", timeout_seconds=1)


def test_tenants_do_not_see_each_other(client, storage):
    launched(storage, KEY)
    other = RedisStorage(client, "acme2")
    assert other.load(KEY) is None
    assert list(other.find(CampaignFilter())) == []
    assert launched(other, KEY).version == 1
    assert len(storage.history(KEY, HistoryPage())) == len(other.history(KEY, HistoryPage())) == 1


def test_a_tenant_that_would_change_the_meaning_of_keys_is_refused(client):
    for tenant in ("", "a}b", "a:b", "a b", "a*", "ü", "a" * 64):
        with pytest.raises(ConfigurationError, match="is no tenant"):
            RedisStorage(client, tenant)


def test_everything_of_a_tenant_lies_in_one_slot_of_a_cluster(client, storage):
    state = launched(storage, KEY)
    storage.commit(KEY, 1, moved(state, CampaignAction.PAUSE))
    launched(storage, CampaignKey("Order", "1", "welcome"))
    keys = client.keys()
    assert len(keys) == 7
    assert len({key_slot(key) for key in keys}) == 1


def test_a_commit_whose_answer_was_lost_is_written_once_and_reported_as_written(redis_url, storage, wire):
    broken = through(wire, redis_url)
    state = launched(broken, KEY)
    wire.cut_after, wire.cuts = b"EVALSHA", 1
    paused = broken.commit(KEY, 1, moved(state, CampaignAction.PAUSE))
    assert wire.cuts == 0
    assert paused.status is CampaignStatus.PAUSED
    assert [line.event for line in storage.history(KEY, HistoryPage())] == ["launch", "pause"]


def test_a_commit_whose_answer_never_comes_is_stale_when_it_is_repeated(redis_url, storage, wire):
    broken = through(wire, redis_url)
    state = launched(broken, KEY)
    wire.cut_after, wire.cuts = b"EVALSHA", 99
    pause = moved(state, CampaignAction.PAUSE)
    with pytest.raises(Unavailable, match="look at the campaign"):
        broken.commit(KEY, 1, pause)
    with pytest.raises(StaleVersion):
        storage.commit(KEY, 1, pause)
    assert [line.event for line in storage.history(KEY, HistoryPage())] == ["launch", "pause"]


def test_two_programs_that_decide_the_very_same_do_not_both_succeed(client, storage):
    decision = moved(draft(KEY), CampaignAction.LAUNCH)
    storage.commit(KEY, 0, decision)
    with pytest.raises(StaleVersion):
        RedisStorage(client, "acme").commit(KEY, 0, decision)


def test_finding_a_subject_reads_nothing_of_others(redis_url, storage, wire):
    for number in range(40):
        launched(storage, CampaignKey("Product", str(number), "spring"))
    found = through(wire, redis_url).find(CampaignFilter("Product", "7"))
    assert [state.key for state in found] == [KEY]
    assert b"SCAN" not in wire.asked
    assert b"KEYS" not in wire.asked
    assert wire.asked.count(b"HGET") == 1


def test_more_campaigns_than_are_asked_for_at_once_are_found(storage):
    keys = [CampaignKey("Product", f"{number:04}", "spring") for number in range(1_100)]
    for key in keys:
        launched(storage, key)
    assert [state.key for state in storage.find(CampaignFilter())] == keys
    assert [state.key for state in storage.find(CampaignFilter(limit=1_050))] == keys[:1_050]
    wanted = CampaignFilter(subject_id="0999", statuses=frozenset({CampaignStatus.ACTIVE}))
    assert [state.key for state in storage.find(wanted)] == [keys[999]]


def test_a_server_that_is_away_is_told_with_the_remedy(free_port):
    storage = RedisStorage.from_url(f"redis://127.0.0.1:{free_port}/0", timeout_seconds=0.2)
    for call in (lambda: storage.load(KEY), lambda: storage.find(CampaignFilter()), lambda: launched(storage, KEY)):
        with pytest.raises(Unavailable, match="start it, or correct its address"):
            call()
    storage.close()


def test_a_wrong_password_is_told_and_not_shown(redis_url):
    parts = urlsplit(redis_url)
    storage = RedisStorage.from_url(urlunsplit(parts._replace(netloc=f":wrong-secret@127.0.0.1:{parts.port}")))
    with pytest.raises(ConfigurationError, match="correct the user and password") as caught:
        storage.load(KEY)
    assert "wrong-secret" not in str(caught.value)
    storage.close()


def test_a_client_that_decodes_its_answers_is_as_good(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        storage = RedisStorage(client, "acme")
        state = launched(storage, KEY, {"text": "Zürich"})
        assert list(storage.find(CampaignFilter("Product"))) == [state]
        assert storage.adopt(state, []) == state
        assert storage.history(KEY, HistoryPage())[0].event == "launch"
