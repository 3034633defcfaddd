"""Threads that no single key has all of."""

import threading
from concurrent.futures import wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.limits.fair_threads import FairThreads

pytestmark = pytest.mark.req("S18", "R22", "SCL-005")


def test_whoever_waits_for_slow_ones_keeps_nobody_else_waiting() -> None:
    threads, answered, done = FairThreads(4, "test"), threading.Event(), []
    slow = [threads.submit("slow", answered.wait) for _ in range(20)]
    quick = [threads.submit(name, lambda name=name: done.append(name)) for name in ("a", "b", "a")]
    assert not wait(quick, 5).not_done
    assert (sorted(done), any(each.done() for each in slow)) == (["a", "a", "b"], False)
    answered.set()
    threads.close()
    assert all(each.done() for each in slow)


def test_what_raises_is_raised_where_it_is_looked_at_and_stops_nobody() -> None:
    threads, done = FairThreads(2, "test"), []
    bad = threads.submit("a", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    good = threads.submit("a", lambda: done.append(1))
    good.result(5)
    threads.close()
    assert (done, type(bad.exception())) == ([1], ZeroDivisionError)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(2, 4))
def test_each_is_done_once_and_those_of_a_key_in_their_order(keys: list[int], count: int) -> None:
    threads, done, lock = FairThreads(count, "test"), list[tuple[int, int]](), threading.Lock()

    def note(key: int, number: int) -> None:
        with lock:
            done.append((key, number))

    for number, key in enumerate(keys):
        threads.submit(key, lambda key=key, number=number: note(key, number))
    threads.close()
    assert sorted(number for _, number in done) == list(range(len(keys)))
    if count == 2:  # one at a time of each
        for key in set(keys):
            of_key = [number for each, number in done if each == key]
            assert of_key == sorted(of_key)
