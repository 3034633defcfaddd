"""Whose turn it is among a tenant's accounts, and what is never said of their secrets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.accounts import (
    REFUSED_SECONDS,
    Account,
    Rota,
    account_mark,
    marked_account,
    serving,
    unspoken,
)
from nexus_marketing.core.pacing.rates import account_limits, applying

pytestmark = pytest.mark.req("US-018", "FR-P2-009")


def account(id_: int, weight: int = 1, **config: str) -> Account:
    return Account(id_, "email", config, None, weight, (), "unknown", 1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_turns_are_in_the_proportion_of_the_weights(weights):
    accounts = [account(number, weight) for number, weight in enumerate(weights)]
    rota = Rota()
    turns = Counter(rota.pick(accounts, 0.0).id for _ in range(3 * sum(weights)))
    assert turns == Counter({each.id: 3 * each.weight for each in accounts})


def test_nobody_waits_for_all_the_turns_of_a_heavy_one():
    rota, accounts = Rota(), [account(1, 5), account(2), account(3)]
    assert [rota.pick(accounts, 0.0).id for _ in range(7)] == [1, 1, 2, 1, 3, 1, 1]


def test_who_cannot_be_reached_rests_longer_each_time():
    rota, accounts = Rota(), [account(1), account(2)]
    rota.unreachable(accounts[0], 0.0)
    assert {rota.pick(accounts, 4.9).id for _ in range(4)} == {2}
    assert {rota.pick(accounts, 5.0).id for _ in range(4)} == {1, 2}
    rota.unreachable(accounts[0], 5.0)
    assert {rota.pick(accounts, 14.9).id for _ in range(4)} == {2}
    rota.answered(accounts[0])
    assert {rota.pick(accounts, 14.9).id for _ in range(4)} == {1, 2}


def test_all_of_them_resting_means_waiting_for_the_first():
    rota, accounts = Rota(), [account(1), account(2)]
    rota.unreachable(accounts[0], 0.0)
    assert rota.pick(accounts, 1.0, lambda each: each.id != 2) is None
    assert (rota.wait(accounts[0], 1.0), rota.wait(accounts[1], 1.0)) == (4.0, 0.0)
    assert rota.pick(accounts, 5.0, lambda each: each.id != 2).id == 1


def test_one_that_was_refused_is_tried_where_there_is_no_other():
    rota, accounts = Rota(), [account(1), account(2)]
    rota.refused(accounts[0], 0.0)
    assert {rota.pick(accounts, 1.0).id for _ in range(4)} == {2}
    assert not rota.has_other(accounts, accounts[1], 1.0)
    rota.refused(accounts[1], 1.0)
    assert rota.pick(accounts, 2.0).id == 1
    assert {rota.pick(accounts, 2 * REFUSED_SECONDS).id for _ in range(4)} == {1, 2}


def test_one_of_no_weight_stands_by():
    rota, accounts = Rota(), [account(1, 0), account(2, 1)]
    assert {rota.pick(accounts, 0.0).id for _ in range(4)} == {2}
    rota.refused(accounts[1], 0.0)
    assert rota.pick(accounts, 0.0).id == 1


def test_an_account_for_another_sender_carries_none_of_ours():
    ours, theirs, anybody = account(1, from_email="a@x.example"), account(2, from_email="b@x.example"), account(3)
    found = serving([ours, theirs, anybody], ["from_email"], {"from_email": "a@x.example"})
    assert [each.id for each in found] == [1, 3]
    assert [each.id for each in serving([ours, theirs], [], {})] == [1, 2]


@pytest.mark.parametrize(
    "text", ["c4n4rybird", "it is 'c4n4ry…'", "YzRuNHJ5YmlyZA==", "begins with n4rybi", "'c4n4rybird' is too short"]
)
def test_what_repeats_a_part_of_a_secret_is_not_shown(text):
    assert "holds a secret" in unspoken(text, ["c4n4rybird"])
    assert "holds a secret" in unspoken(text, [{"deep": ["c4n4rybird"]}])


def test_what_says_nothing_of_it_is():
    assert unspoken("535 5.7.8 refused", ["c4n4rybird", None, "", True]) == "535 5.7.8 refused"


def test_marks_read_back():
    assert marked_account(account_mark(12)) == 12
    assert [marked_account(each) for each in (None, "", "12", "account:", "account:x")] == [None] * 5
    assert account_mark(None) is None


def test_limits_of_an_account_are_its_own():
    (ours,) = account_limits([{"count": 5, "per": "1 hour"}], 1)
    assert applying([ours], None, 1) == [ours]
    assert applying([ours], None, 2) == applying([ours], None) == []
    assert ours.counts("a@b.example", None, 1)
    assert not ours.counts("a@b.example", None)
