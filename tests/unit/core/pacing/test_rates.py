"""Send rates: no interval of a window's length ever holds more than it may, over random arrivals and a fake clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.rates import (
    Given,
    Grant,
    Own,
    RateLimit,
    applying,
    check_own_rates,
    check_rates,
    grant,
    merged,
    own_rates_of,
    rates_of,
)

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004")

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GMAIL = frozenset({"gmail.com", "googlemail.com"})
limits = st.builds(RateLimit, st.integers(1, 60), st.timedeltas(SECOND, timedelta(minutes=10)))


def ask(
    limits: list[RateLimit], given: list[Given], wanted: int, now: datetime, *, is_marketing: bool = False
) -> Grant:
    return grant(limits, given, [None] * wanted, now, is_marketing=is_marketing)


def test_what_is_left_is_granted_and_then_nothing_until_it_is_free_again():
    limit = RateLimit(10, 60 * SECOND)
    assert ask([limit], [], 4, NOW) == Grant(4, leaving={None: 4})
    given = [Given(NOW - 50 * SECOND, 4), Given(NOW - 10 * SECOND, 5)]
    assert ask([limit], given, 4, NOW) == Grant(1, leaving={None: 1})
    given += [Given(NOW, 1)]
    assert ask([limit], given, 4, NOW) == Grant(0, retry_after=11 * SECOND)
    assert ask([limit], given, 9, NOW + 11 * SECOND) == Grant(4, leaving={None: 4})


def test_marketing_leaves_a_tenth_to_those_who_wait_for_their_message():
    limit = RateLimit(20, 60 * SECOND)
    given = [Given(NOW, 18)]
    assert ask([limit], given, 5, NOW, is_marketing=True).count == 0
    assert ask([limit], given, 5, NOW).count == 2
    assert ask([RateLimit(1, SECOND)], [], 5, NOW, is_marketing=True).count == 1


def test_every_limit_must_agree_and_the_longest_wait_counts():
    both = [RateLimit(5, SECOND), RateLimit(6, timedelta(hours=1))]
    assert ask(both, [], 9, NOW).count == 5
    assert ask(both, [Given(NOW - 5 * SECOND, 5)], 9, NOW).count == 1
    full = ask(both, [Given(NOW - 5 * SECOND, 6)], 9, NOW)
    assert full == Grant(0, retry_after=timedelta(hours=1) - 4 * SECOND)


@given(
    limits,
    st.lists(st.tuples(st.timedeltas(timedelta(), 90 * SECOND), st.integers(1, 50), st.floats(0, 1)), max_size=60),
    st.booleans(),
)
def test_no_window_ever_holds_more_than_it_may(limit, arrivals, puts_together):
    """A grant is used somewhere within the slack; workers ask as they come; old grants are put together now and then."""
    now, known, left = NOW, [], []
    slack = limit.reach - limit.per
    for pause, wanted, when in arrivals:
        now += pause
        if puts_together:
            known = merged(known, [limit], now)
        found = ask([limit], known, wanted, now)
        assert 0 <= found.count <= wanted
        if found.count:
            known.append(Given(now, found.count))
            left.append((now + slack * when * 0.999, found.count))
        else:
            assert timedelta() < found.retry_after <= limit.reach
    left.sort()
    for moment, _ in left:
        assert sum(n for at, n in left if moment <= at < moment + limit.per) <= limit.count


def test_a_send_has_rates_of_its_own_of_which_nothing_is_reserved():
    own = own_rates_of(check_own_rates([{"count": 10, "per": "1 minute"}]))
    shared = RateLimit(100, SECOND)

    def found(limits: list[RateLimit], given: list[Given], own_given: list[Given]) -> Grant:
        return grant(limits, given, [None] * 20, NOW, is_marketing=True, own=Own(own, own_given))

    assert found([shared], [], []).count == 10
    assert found([], [], []).count == 10
    ended = found([shared], [], [Given(NOW - 20 * SECOND, 10)])
    assert (ended.count, ended.retry_after, ended.is_own) == (0, 41 * SECOND, True)
    full = [Given(NOW, 90)]
    assert not found([shared], full, []).is_own
    assert found([shared], full, [Given(NOW, 10)]).is_own
    with pytest.raises(ValidationError) as refused:
        check_own_rates([{"count": 10, "per": "1 minute"}, {"count": 5, "per": "1 hour", "sender": "a@b.example"}])
    assert [(each.path, each.code) for each in refused.value.problems] == [("[1].sender", "unknown_key")]
    assert own_rates_of(None) == ()


@given(limits, st.lists(st.tuples(st.timedeltas(timedelta(), 20 * SECOND), st.integers(1, 50)), max_size=30))
def test_who_comes_back_when_told_gets_something_unless_others_were_first(limit, arrivals):
    now, known = NOW, []
    for pause, wanted in arrivals:
        now += pause
        found = ask([limit], known, wanted, now)
        if not found.count:
            now += found.retry_after
            found = ask([limit], known, wanted, now)
            assert found.count > 0
        known.append(Given(now, found.count))


def test_a_domain_without_room_keeps_only_its_own_waiting():
    limit = RateLimit(2, 60 * SECOND, domains=GMAIL)
    wanted = [None, "gmail.com", "googlemail.com", None, "gmail.com", None]
    found = grant([limit], [Given(NOW - 20 * SECOND, 1, None, "gmail.com")], wanted, NOW, is_marketing=False)
    assert (found.looked, found.count) == (6, 4)
    assert {at: each.wait for at, each in found.waiting.items()} == {2: 41 * SECOND, 4: 41 * SECOND}
    assert found.leaving == {None: 3, "gmail.com": 1}


def test_who_waits_for_a_domain_takes_nobodys_place_in_the_common_rate():
    limits = [RateLimit(3, 60 * SECOND), RateLimit(1, 60 * SECOND, domains=GMAIL)]
    wanted = ["gmail.com", "gmail.com", "gmail.com", None, None, None]
    found = grant(limits, [], wanted, NOW, is_marketing=False)
    assert (found.looked, found.count, sorted(found.waiting)) == (5, 3, [1, 2])
    again = grant(limits, [Given(NOW, 1, None, "gmail.com"), Given(NOW, 2)], wanted[5:], NOW, is_marketing=False)
    assert (again.looked, again.retry_after) == (0, 61 * SECOND)


def test_a_sender_and_a_domain_have_their_own_windows():
    written = [
        {"count": 5, "per": "1 minute", "sender": "News@Acme.example"},
        {"count": 9, "per": "1 minute", "domains": ["GMail.com"], "channel": "email"},
    ]
    all_of_them = rates_of({"send_rates": check_rates(written)}, "email")
    assert [each.sender for each in all_of_them] == ["news@acme.example", None]
    own = applying(all_of_them, "news@acme.example")
    given = [Given(NOW, 4, "news@acme.example"), Given(NOW, 8, "other@acme.example", "gmail.com")]
    found = grant(own, given, ["gmail.com", "gmail.com", None], NOW, is_marketing=False)
    assert (found.leaving, found.looked) == ({"gmail.com": 1}, 1)
    others = grant(applying(all_of_them, "other@acme.example"), given, ["gmail.com"] * 3, NOW, is_marketing=False)
    assert (others.leaving, len(others.waiting)) == ({"gmail.com": 1}, 2)


@given(
    st.lists(
        st.tuples(limits, st.sampled_from([frozenset(), GMAIL, frozenset({"gmail.com"})])), min_size=1, max_size=3
    ),
    st.lists(
        st.tuples(
            st.timedeltas(timedelta(), 90 * SECOND),
            st.lists(st.sampled_from([None, "gmail.com", "googlemail.com"]), max_size=20),
        ),
        max_size=30,
    ),
)
def test_no_window_of_any_domain_holds_more_than_it_may(drawn, arrivals):
    all_of_them = [RateLimit(limit.count, limit.per, domains=domains) for limit, domains in drawn]
    now, known = NOW, []
    for pause, wanted in arrivals:
        now += pause
        found = grant(all_of_them, known, wanted, now, is_marketing=False)
        assert sum(found.leaving.values()) == found.count
        assert all(wanted[at] in each.limit.domains for at, each in found.waiting.items())
        assert found.looked == len(wanted) or any(not limit.domains for limit in all_of_them)
        known += [Given(now, count, None, domain) for domain, count in found.leaving.items()]
    for limit in all_of_them:
        concerned = [each for each in known if limit.counts(None, each.domain)]
        for first in concerned:
            inside = [each.count for each in concerned if first.at <= each.at < first.at + limit.reach]
            assert sum(inside) <= limit.count


@pytest.mark.parametrize(
    ("value", "place", "code"),
    [
        ("14", "", "not_a_list"),
        ([{"per": "1 second"}], "[0].count", "not_a_count"),
        ([{"count": 0, "per": "1 second"}], "[0].count", "not_a_count"),
        ([{"count": 14}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "second"}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "90 days"}], "[0].per", "not_a_span"),
        ([{"count": 14, "every": "1 second"}], "[0].every", "unknown_key"),
        ([{"count": 14, "per": "999999999 weeks"}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "1 second"}] * 21, "", "too_many"),
        ([{"count": 14, "per": "1 second", "sender": "news"}], "[0].sender", "not_an_address"),
        ([{"count": 14, "per": "1 second", "domains": "gmail.com"}], "[0].domains", "not_domains"),
        ([{"count": 14, "per": "1 second", "domains": []}], "[0].domains", "not_domains"),
        ([{"count": 14, "per": "1 second", "domains": ["@gmail.com"]}], "[0].domains", "not_a_domain"),
    ],
)
def test_what_is_no_rate_is_refused_with_its_place(value, place, code):
    with pytest.raises(ValidationError) as caught:
        check_rates(value)
    assert [(each.path, each.code) for each in caught.value.problems] == [(place, code)]


def test_a_channel_has_its_own():
    written = [{"count": 14, "per": "1 second", "channel": "email"}, {"count": 1000, "per": "1 day"}]
    settings = {"send_rates": check_rates(written)}
    assert rates_of(settings, "email") == (RateLimit(14, SECOND, "email"), RateLimit(1000, timedelta(days=1)))
    assert rates_of(settings, "sms") == (RateLimit(1000, timedelta(days=1)),)
    assert rates_of({}, "sms") == ()
