"""Sliding windows are exact."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.limits.windows import SlidingWindows

pytestmark = pytest.mark.req("SR-003")


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# Eighths of a second are exact in binary: what is tested is the window, not rounding.
steps = st.lists(st.tuples(st.integers(0, 240).map(lambda eighths: eighths / 8), st.sampled_from("ab")), max_size=120)


@given(limit=st.integers(1, 6), steps=steps)
def test_no_window_of_a_minute_ever_holds_more_than_the_limit_nor_refuses_below_it(
    limit: int, steps: list[tuple[float, str]]
) -> None:
    clock = Seconds()
    windows = SlidingWindows(limit, 60.0, clock)
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for wait, key in steps:
        clock.now += wait
        recent = [moment for moment in taken[key] if moment > clock.now - 60.0]
        verdict = windows.take(key)
        assert verdict.allowed == (len(recent) < limit)
        if verdict.allowed:
            taken[key].append(clock.now)
            recent.append(clock.now)
        assert verdict.remaining == limit - len(recent)


@given(limit=st.integers(1, 6), steps=steps)
def test_whoever_waits_as_told_is_let_in_and_not_a_moment_earlier(limit: int, steps: list[tuple[float, str]]) -> None:
    clock = Seconds()
    windows = SlidingWindows(limit, 60.0, clock)
    for wait, key in steps:
        clock.now += wait
        verdict = windows.take(key)
        if not verdict.allowed:
            assert 0 < verdict.retry_after_seconds <= 60.0
            clock.now += verdict.retry_after_seconds - 1 / 16
            assert not windows.look(key).allowed
            clock.now += 1 / 16
            assert windows.take(key).allowed


def test_a_burst_over_the_full_minute_is_not_let_through_twice() -> None:
    clock = Seconds()
    windows = SlidingWindows(100, 60.0, clock)
    clock.now = 59.0
    assert sum(windows.take("a").allowed for _ in range(200)) == 100
    clock.now = 61.0
    assert not windows.take("a").allowed
    clock.now = 119.0
    assert windows.take("a").allowed


def test_looking_takes_nothing() -> None:
    windows = SlidingWindows(1, 60.0, Seconds())
    assert [windows.look("a").allowed for _ in range(5)] == [True] * 5
    assert windows.take("a").allowed
    assert windows.look("a").remaining == 0


def test_only_so_many_keys_are_remembered() -> None:
    windows = SlidingWindows(1, 60.0, Seconds(), max_keys=3)
    for key in range(4):
        windows.take(key)
    assert windows.take(0).allowed
    assert not windows.take(3).allowed


def test_threads_together_get_no_more_than_the_limit() -> None:
    windows = SlidingWindows(500, 60.0, Seconds())
    allowed: list[bool] = []

    def hammer() -> None:
        for _ in range(200):
            allowed.append(windows.take("a").allowed)  # noqa: PERF401 - threads in turn

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 500


def test_who_was_quiet_for_a_window_takes_no_room() -> None:
    clock = Seconds()
    windows = SlidingWindows(3, 60.0, clock)
    for number in range(5_000):
        clock.now += 1.0
        windows.take(number)
    assert len(windows._moments) <= 60
