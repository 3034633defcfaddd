"""Domains that ask for patience, against a clock of numbers."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.pacing.cooling import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOKED_AT,
    TOO_MANY,
    TRIAL,
    Cooling,
)

pytestmark = pytest.mark.req("FR-P3-012", "REL-002")


def slowed(cooling: Cooling, now: float = 0.0, domain: str = "slow.example") -> None:
    for _ in range(TOO_MANY):
        cooling.saw(domain, now, throttled=True)


def test_a_domain_is_slowed_within_ten_answers_and_others_are_not():
    cooling = Cooling()
    for number in range(LOOKED_AT):
        cooling.saw("slow.example", 0.0, throttled=number % 3 == 0)
        cooling.saw("fast.example", 0.0, throttled=False)
    assert cooling.wait("slow.example", 0.0) == FIRST_PAUSE_SECONDS
    assert cooling.wait("fast.example", 0.0) == 0.0
    assert cooling.slow == 1


def test_one_refusal_slows_nobody_and_is_forgotten():
    cooling = Cooling()
    cooling.saw("grey.example", 0.0, throttled=True)
    assert cooling.wait("grey.example", 0.0) == 0.0
    for _ in range(LOOKED_AT):
        cooling.saw("grey.example", 0.0, throttled=False)
    assert cooling.is_idle


def test_after_the_pause_a_few_leave_and_more_with_each_round_that_is_taken():
    cooling, now, rounds = Cooling(), FIRST_PAUSE_SECONDS, []
    slowed(cooling)
    while not cooling.is_idle:
        leaving = 0
        while not cooling.wait("slow.example", now) and leaving < 2_000:
            leaving += 1
        rounds.append(leaving)
        for _ in range(leaving):
            cooling.saw("slow.example", now, throttled=False)
        now += 1
    assert rounds == [5, 10, 20, 40, 80, 160, 320, 640]


def test_a_trial_that_is_refused_doubles_the_pause_up_to_the_longest():
    cooling, now, pauses = Cooling(), 0.0, []
    slowed(cooling)
    for _ in range(8):
        pauses.append(cooling.wait("slow.example", now))
        now += pauses[-1]
        assert cooling.wait("slow.example", now) == 0.0
        cooling.saw("slow.example", now, throttled=True)
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, LONGEST_PAUSE_SECONDS]


def test_what_was_on_the_wire_when_the_pause_began_makes_it_no_longer():
    cooling = Cooling()
    slowed(cooling)
    for _ in range(200):
        cooling.saw("slow.example", 1.0, throttled=True)
        cooling.saw("slow.example", 1.0, throttled=False)
    assert cooling.wait("slow.example", 1.0) == FIRST_PAUSE_SECONDS - 1.0


def test_a_provider_that_names_its_time_gets_it():
    cooling = Cooling()
    for _ in range(TOO_MANY):
        cooling.saw("slow.example", 0.0, throttled=True, retry_after_seconds=600.0)
    assert cooling.wait("slow.example", 0.0) == 600.0


def test_a_trial_whose_answers_never_come_is_tried_again():
    cooling, now = Cooling(), FIRST_PAUSE_SECONDS
    slowed(cooling)
    assert [cooling.wait("slow.example", now) for _ in range(TRIAL)] == [0.0] * TRIAL
    assert cooling.wait("slow.example", now) > 0
    assert cooling.wait("slow.example", now + 61) == 0.0


@given(st.lists(st.tuples(st.floats(0, 120), st.booleans(), st.sampled_from(["a.example", "b.example"])), max_size=80))
def test_nobody_is_left_alone_for_ever(answers):
    cooling, now = Cooling(), 0.0
    for pause, throttled, domain in answers:
        now += pause
        cooling.wait(domain, now)
        cooling.saw(domain, now, throttled=throttled)
        for each in ("a.example", "b.example"):
            assert deepcopy(cooling).wait(each, now + LONGEST_PAUSE_SECONDS + 61) == 0.0
