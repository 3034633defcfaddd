"""What a worker remembers of limits without room, and what is left of a chunk some of whom wait for them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.pacing.rates import Full, RateLimit
from nexus_marketing.db.queries.deliveries import ChunkClaim
from nexus_marketing.db.queries.rates import Asker
from nexus_marketing.delivery.handover import left_of
from nexus_marketing.delivery.patience import LONGEST_SECONDS, Patience

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004")

MINUTE = timedelta(minutes=1)
ANY = RateLimit(10, MINUTE)
GMAIL = RateLimit(5, MINUTE, domains=frozenset({"gmail.com"}))
OF_1 = RateLimit(5, MINUTE, domains=frozenset({"gmail.com"}), account=1)
ALL = [ANY, GMAIL, OF_1]
FIRST, SECOND = (Asker(1, "email", "a@x.example", False, account, 7) for account in (1, 2))


def wait(patience: Patience, asker: Asker, group: str | None, now: float = 0.0) -> float:
    return patience.wait(asker, ALL, [ANY], group, now)


def test_a_domain_without_room_holds_up_nobody_else() -> None:
    patience = Patience()
    patience.learn(FIRST, [Full(GMAIL, timedelta(seconds=20))], 0.0)
    assert [wait(patience, FIRST, group) for group in ("gmail.com", "else.example", None)] == [20.0, 0.0, 0.0]
    assert patience.full_groups(FIRST, ALL, ["gmail.com", "else.example"], 19.0) == {"gmail.com"}
    assert patience.full_groups(FIRST, ALL, ["gmail.com", "else.example"], 20.0) == set()


def test_an_account_without_room_holds_up_no_other() -> None:
    patience = Patience()
    patience.learn(FIRST, [Full(OF_1, timedelta(seconds=20))], 0.0)
    assert (wait(patience, FIRST, "gmail.com"), wait(patience, SECOND, "gmail.com")) == (20.0, 0.0)


def test_a_rate_of_a_send_is_no_others() -> None:
    patience = Patience()
    patience.learn(FIRST, [Full(ANY, timedelta(seconds=20), is_own=True)], 0.0)
    assert wait(patience, FIRST, None) == 20.0
    assert wait(patience, FIRST._replace(send_id=8), None) == 0.0
    assert patience.everybody_waits((1, "email"), 0.0, is_marketing=False) == 0.0


def test_what_all_share_holds_up_all_of_its_kind() -> None:
    patience = Patience()
    patience.learn(FIRST, [Full(ANY, timedelta(seconds=20))], 0.0)
    assert wait(patience, SECOND, "gmail.com", 5.0) == 15.0
    assert patience.everybody_waits((1, "email"), 5.0, is_marketing=False) == 15.0
    assert patience.everybody_waits((1, "email"), 5.0, is_marketing=True) == 0.0
    assert wait(patience, SECOND._replace(is_marketing=True), None) == 0.0


def test_it_is_looked_at_again_by_half_a_minute_and_not_for_each_place() -> None:
    patience = Patience()
    patience.learn(FIRST, [Full(GMAIL, timedelta(0))], 0.0)
    assert wait(patience, FIRST, "gmail.com") == pytest.approx(1.22)
    assert patience.was_full(FIRST, ALL, [], "gmail.com", 2.0)
    assert not patience.was_full(FIRST, ALL, [], None, 2.0)
    patience.learn(SECOND, [Full(ANY, timedelta(days=1))], 2.0)
    assert not patience.was_full(FIRST, ALL, [], "gmail.com", 2.0)
    assert wait(patience, FIRST, None, 2.0) == LONGEST_SECONDS


waiting = st.dictionaries(
    st.sampled_from(["a.example", "b.example", "c.example"]), st.lists(st.integers(1, 500), min_size=1, max_size=5)
)


@given(waiting, st.booleans(), st.booleans(), st.none() | st.sampled_from(["a.example", "z.example"]))
def test_whoever_waits_stays_open_in_one_chunk(aside, is_list, is_all, waits_for) -> None:
    seqs = tuple(range(1, 501)) if is_list else None
    left = left_of(ChunkClaim(1, 2, 3, 1, 500, seqs, 4, waits_for=waits_for), aside, is_all=is_all)
    stay = aside.keys() - left.aside.keys()
    # Nobody is in a closed chunk, or in two; nor is anybody moved out of a chunk that lists them and stays open.
    assert not (left.closed and stay)
    assert left.closed or not (is_list and left.aside)
    assert left.closed <= is_all
    # One that waits for a domain has nobody else who is known to wait for another.
    assert left.waits_for is None or stay <= {left.waits_for}
    # Who was not looked at is not said to wait, unless it was so before.
    assert is_all or left.waits_for in (None, waits_for)
    assert left.aside == {group: aside[group] for group in left.aside}
