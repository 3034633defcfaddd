"""Nobody waits for a broker longer than is good for a web request."""

import threading
import time
from collections.abc import Iterator

import pytest

from nexus_marketing.tasks.publisher import Publisher

pytestmark = pytest.mark.req("SCL-001")

PATIENCE_SECONDS = 0.05


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher(lambda: None, idle_seconds=60, patience_seconds=PATIENCE_SECONDS)
    yield publisher
    publisher.close()


@pytest.fixture
def held_up(publisher: Publisher) -> Iterator[threading.Event]:
    release = threading.Event()
    with pytest.raises(TimeoutError):
        publisher.run(release.wait)
    yield release
    release.set()


def test_what_is_done_or_fails_is_told(publisher: Publisher) -> None:
    assert publisher.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        publisher.run(lambda: 1 / 0)
    assert publisher.run(lambda: 8) == 8


def test_all_of_it_is_done_in_one_thread(publisher: Publisher) -> None:
    threads = {publisher.run(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_while_one_is_held_up_others_do_not_even_wait(publisher: Publisher, held_up: threading.Event) -> None:
    done: list[int] = []
    with pytest.raises(TimeoutError, match="an earlier message"):
        publisher.run(lambda: done.append(1))
    held_up.set()
    assert done == []


def test_it_goes_on_when_the_broker_does(publisher: Publisher, held_up: threading.Event) -> None:
    held_up.set()
    deadline = time.monotonic() + 10
    while publisher._is_held_up():
        assert time.monotonic() < deadline
    assert publisher.run(lambda: 9) == 9


def test_whoever_gave_up_does_not_come_back_later(publisher: Publisher) -> None:
    begun, release, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        release.wait()

    def give_up() -> None:
        with pytest.raises(TimeoutError):
            publisher.run(hold)

    first = threading.Thread(target=give_up)
    first.start()
    begun.wait()
    with pytest.raises(TimeoutError):
        publisher.run(lambda: done.append(1))
    first.join()
    release.set()
    publisher.close()
    assert done == []


def test_a_connection_is_cared_for_while_nobody_has_anything_to_say() -> None:
    idle = threading.Event()
    publisher = Publisher(idle.set, idle_seconds=0.001)
    publisher.run(lambda: None)
    assert idle.wait(10)
    publisher.close()


def test_a_closed_one_starts_again(publisher: Publisher) -> None:
    before = publisher.run(threading.current_thread)
    publisher.close()
    assert not before.is_alive()
    assert publisher.run(threading.current_thread).is_alive()
