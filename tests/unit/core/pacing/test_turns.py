"""Nobody starves: whatever waits, how long somebody else may be served before is bounded."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.pacing.turns import Turns, WaitingSend

pytestmark = pytest.mark.req("SCL-001", "SCL-004", "FR-P3-012")

#: How many sends each tenant has.
COUNTS = st.lists(st.integers(1, 8), min_size=1, max_size=8)


def waiting(counts, message_class="marketing", first=1):
    numbers = iter(range(first, first + sum(counts)))
    return [WaitingSend(t, next(numbers), "email", message_class) for t, n in enumerate(counts, 1) for _ in range(n)]


@given(COUNTS, st.integers(0, 50))
def test_every_tenant_gets_as_much_as_any_other(counts, before):
    turns, sends = Turns(), waiting(counts)
    for _ in range(before):
        turns.next(sends)
    rounds = 5
    served = [turns.next(sends).tenant_id for _ in range(rounds * len(counts))]
    assert {served.count(tenant) for tenant in range(1, len(counts) + 1)} == {rounds}
    for start in range(len(served) - len(counts) + 1):
        assert len(set(served[start : start + len(counts)])) == len(counts)


@given(COUNTS)
def test_no_send_waits_longer_than_a_round_for_each_of_its_tenants(counts):
    turns, sends = Turns(), waiting(counts)
    served = [turns.next(sends).send_id for _ in range(2 * len(counts) * max(counts))]
    for send in sends:
        places = [place for place, send_id in enumerate(served) if send_id == send.send_id]
        bound = len(counts) * counts[send.tenant_id - 1]
        assert places[0] < bound
        assert all(later - sooner <= bound for sooner, later in itertools.pairwise(places))


@given(COUNTS, COUNTS)
def test_what_somebody_waits_for_goes_first(counts, urgent):
    turns = Turns()
    first = waiting(urgent, "transactional", 1_000)
    both = [*waiting(counts), *first]
    served = [turns.next(both) for _ in range(len(urgent) * max(urgent))]
    assert {each.send_id for each in served} == {each.send_id for each in first}


@given(COUNTS, st.integers(1, 20))
def test_who_leaves_or_comes_changes_nothing_for_the_others(counts, leaves):
    turns, sends = Turns(), waiting(counts)
    served = []
    while sends:
        send = turns.next(sends)
        served.append(send)
        if len(served) % leaves == 0:
            sends.remove(send)
            turns.keep({each.tenant_id for each in sends})
    assert {each.send_id for each in served} == set(range(1, sum(counts) + 1))
