"""The fair lock: in order of arrival, with a way out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nexus_marketing.db.locks import FairLock

pytestmark = pytest.mark.req("SR-003")


def wait_until(condition) -> None:
    """Give other threads a turn until something holds."""
    pause = threading.Event()
    for _ in range(5000):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("never happened")


def waiting(lock: FairLock) -> int:
    return len(lock._waiting)


def test_it_is_handed_over_in_order_of_arrival():
    lock, order = FairLock(), []
    lock.acquire(5)

    def take(number: int) -> None:
        lock.acquire(30)
        order.append(number)
        lock.release()

    with ThreadPoolExecutor(20) as pool:
        for number in range(20):
            pool.submit(take, number)
            wait_until(lambda number=number: waiting(lock) == number + 1)
        lock.release()
    assert order == list(range(20))


def test_a_bulk_writer_that_comes_back_at_once_waits_behind_those_who_came_before():
    lock, order = FairLock(), []
    started = threading.Barrier(2)

    def bulk(name: str) -> None:
        started.wait()
        for _ in range(50):
            lock.acquire(30)
            order.append(name)
            lock.release()

    def small(number: int) -> None:
        lock.acquire(30)
        order.append(f"small {number}")
        lock.release()

    lock.acquire(5)
    with ThreadPoolExecutor(7) as pool:
        for name in ("a", "b"):
            pool.submit(bulk, name)
        wait_until(lambda: waiting(lock) == 2)
        for number in range(5):
            pool.submit(small, number)
            wait_until(lambda number=number: waiting(lock) == 3 + number)
        lock.release()
    # Each of the two bulk writers had one turn before the small ones; neither had a second.
    assert sorted(order[:2]) == ["a", "b"]
    assert order[2:7] == [f"small {number}" for number in range(5)]
    assert len(order) == 105


def test_only_one_holds_it():
    lock, inside, most = FairLock(), [], []

    def work() -> None:
        for _ in range(200):
            lock.acquire(30)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            lock.release()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(work)
    assert set(most) == {1}
    assert len(most) == 1600


def test_who_waits_too_long_is_told():
    lock = FairLock()
    assert lock.acquire(1)
    assert not lock.acquire(0.01)
    assert waiting(lock) == 0
    lock.release()
    assert lock.acquire(0.01)


def test_who_gave_up_is_passed_over():
    lock, order = FairLock(), []
    lock.acquire(1)

    def take(name: str, timeout_seconds: float) -> None:
        if not lock.acquire(timeout_seconds):
            order.append(f"{name} gave up")
            return
        order.append(name)
        lock.release()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(take, "impatient", 0.05)
        wait_until(lambda: waiting(lock) == 1)
        pool.submit(take, "patient", 30)
        wait_until(lambda: order == ["impatient gave up"])
        lock.release()
    assert order == ["impatient gave up", "patient"]


def test_another_thread_may_let_go():
    lock = FairLock()
    lock.acquire(1)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    lock.acquire(0.01)


@pytest.mark.parametrize("attempt", range(5))
def test_a_turn_that_comes_while_giving_up_is_not_lost(attempt):
    # The window between the time-out and its bookkeeping is tiny: many short waits find it.
    lock, held = FairLock(), []

    def work() -> None:
        for _ in range(300):
            if lock.acquire(0.00001 * (attempt + 1)):
                held.append(1)
                lock.release()

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(work)
    assert lock.acquire(0.5)
    assert held
