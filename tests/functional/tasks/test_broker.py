"""The doorbell on a real Redis: heard at once, never waited for, and deaf to nothing that others put into its queue."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from nexus_marketing.tasks.broker import QUEUE, DramatiqDoorbell
from tests.common.servers import Run, start_redis

pytestmark = pytest.mark.req("REL-003", "SCL-005")


@pytest.fixture
def heard(redis_url: str) -> Iterator[DramatiqDoorbell]:
    bell = DramatiqDoorbell(redis_url)
    stop = bell.listen()
    yield bell
    stop()


def rings(redis_url: str, heard: DramatiqDoorbell) -> bool:
    bell = DramatiqDoorbell(redis_url)
    bell.ring(1, "sends")
    bell.close()
    return heard.wait(2.0)


def ring(**changed: Any) -> bytes:
    message = {
        "queue_name": QUEUE,
        "actor_name": "ring",
        "args": [1, "sends"],
        "kwargs": {},
        "options": {"redis_message_id": str(uuid4())},
        "message_id": str(uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps({**message, **changed}).encode()


def test_another_process_is_heard(redis_url: str, heard: DramatiqDoorbell) -> None:
    assert rings(redis_url, heard)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff\x00\xfe",
        b"[1]",
        b'{"hello": "world"}',
        ring(queue_name="elsewhere"),
        ring(actor_name="nobody"),
        ring(args=[1]),
        ring(options={}),
        ring(options={"redis_message_id": "x", "eta": 2**62}),
    ],
)
def test_what_is_no_ring_makes_it_deaf_for_no_moment(redis_url: str, heard: DramatiqDoorbell, rubbish: bytes) -> None:
    assert rings(redis_url, heard)
    with Redis.from_url(redis_url) as client:
        key = str(uuid4())
        client.hset(f"dramatiq:{QUEUE}.msgs", key, rubbish)
        client.rpush(f"dramatiq:{QUEUE}", key)
        deadline = time.monotonic() + 5
        while client.llen(f"dramatiq:{QUEUE}") and time.monotonic() < deadline:
            time.sleep(0.01)
    assert rings(redis_url, heard)


@pytest.fixture
def frozen() -> Iterator[tuple[str, Callable[[], None]]]:
    """A Redis of its own that is frozen, and what thaws it."""
    with Run.open() as run:
        server = start_redis(run)
        if server.folder is None:
            pytest.skip("the Redis of the tests is not ours to freeze")
        pid = server.server_pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        yield server.url, lambda: os.kill(pid, signal.SIGCONT)


def test_nobody_waits_for_a_redis_that_is_frozen(frozen: tuple[str, Callable[[], None]]) -> None:
    url, thaw = frozen
    now = [0.0]
    bell = DramatiqDoorbell(url, lambda: now[0])
    begun = time.monotonic()
    for _ in range(20):
        bell.ring(1, "sends")
    assert time.monotonic() - begun < 2.0
    assert bell.wait(0)
    thaw()
    now[0] = 6.0
    bell.ring(1, "sends")
    with Redis.from_url(url) as client:
        assert client.llen(f"dramatiq:{QUEUE}") >= 1
    bell.close()
