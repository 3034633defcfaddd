"""What every cache must do, held against ours: one in memory, one on a real Redis."""

import socket
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from nexus_marketing.builtins.caches.memory import MemoryCache
from nexus_marketing.builtins.caches.redis import RedisCache
from nexus_marketing.config import make_runtime
from nexus_marketing.core.storages import Cache

pytestmark = pytest.mark.req("SCL-006")

HOUR = timedelta(hours=1)


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Cache:
    return (
        MemoryCache(time.monotonic) if request.param == "memory" else RedisCache(request.getfixturevalue("redis_url"))
    )


def test_a_value_is_kept_for_its_tenant(cache: Cache) -> None:
    assert cache.get(1, "a") is None
    cache.put(1, "a", b"\x00\xff", HOUR)
    assert (cache.get(1, "a"), cache.get(2, "a"), cache.get(1, "b")) == (b"\x00\xff", None, None)
    cache.put(1, "a", b"new", HOUR)
    assert cache.get(1, "a") == b"new"


def test_in_memory_a_value_has_its_time_and_the_least_used_goes_first() -> None:
    now = [0.0]
    cache = MemoryCache(lambda: now[0], most=2)
    cache.put(1, "a", b"a", timedelta(seconds=10))
    now[0] = 9.9
    assert cache.get(1, "a") == b"a"
    now[0] = 10.0
    assert cache.get(1, "a") is None
    for key in "abc":
        cache.put(1, key, key.encode(), HOUR)
        cache.get(1, "a")
    assert [cache.get(1, key) for key in "abc"] == [b"a", None, b"c"]


def test_in_redis_every_value_ends(redis_url: str) -> None:
    RedisCache(redis_url).put(7, "a", b"x", timedelta(minutes=5))
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        assert 299_000 < client.pttl(key) <= 300_000


def test_a_redis_that_is_away_is_an_empty_cache_and_is_not_asked_each_time() -> None:
    now, tried = [0.0], 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = RedisCache(f"redis://127.0.0.1:{silent.getsockname()[1]}", lambda: now[0])
        begun = time.monotonic()
        for _ in range(50):
            cache.put(1, "a", b"x", HOUR)
            assert cache.get(1, "a") is None
        assert time.monotonic() - begun < 5  # not fifty times the time limit
        silent.setblocking(False)
        while True:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            tried += 1
    assert 0 < tried < 10


def test_what_was_flushed_is_put_again(redis_url: str) -> None:
    cache = RedisCache(redis_url)
    cache.put(1, "a", b"x", HOUR)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert cache.get(1, "a") is None
    cache.put(1, "a", b"y", HOUR)
    assert cache.get(1, "a") == b"y"


@pytest.mark.parametrize(("redis_setting", "kind"), [("", MemoryCache), ("redis://127.0.0.1:1", RedisCache)])
def test_a_deployment_with_redis_shares_it(tmp_path: object, redis_setting: str, kind: Callable[..., Cache]) -> None:
    settings = {"nexus.database_url": f"sqlite:///{tmp_path}/a.db", "nexus.state_dir": str(tmp_path)}
    runtime = make_runtime({**settings, "nexus.redis_url": redis_setting})
    assert isinstance(runtime.cache, kind)  # type: ignore[arg-type]
    runtime.close()
