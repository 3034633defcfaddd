"""Who opened and clicked: people, machines, or nobody can say."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fake_useragent
import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.engagements import (
    EVENT_SCHEMA,
    EngagementType,
    HitFact,
    MachineHint,
    Verdict,
    judge,
    machine_hint,
    query_words,
    read_event,
    reported,
    search_words,
)
from nexus_marketing.core.engagements.verdicts import bursts
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.schemas import Form
from nexus_marketing.core.values import canonical, parse_datetime

pytestmark = pytest.mark.req("FR-P2-007")

SENT = datetime(2026, 3, 2, 10, tzinfo=UTC)


def hit(number: int, seconds: float, link: int | None = None, hint: MachineHint | None = None) -> HitFact:
    type_ = EngagementType.EMAIL_OPENED if link is None else EngagementType.EMAIL_CLICKED
    return HitFact(number, type_, SENT + timedelta(seconds=seconds), link, hint)


@pytest.mark.parametrize(
    ("agent", "hint"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", None),
        ("Mozilla/5.0 (via ggpht.com GoogleImageProxy)", MachineHint.PROXY),
        ("Barracuda Sentinel (EE)", MachineHint.SCANNER),
        ("python-requests/2.32", MachineHint.SCANNER),
        ("", MachineHint.SCANNER),
    ],
)
def test_agents_give_themselves_away(agent: str, hint: MachineHint | None) -> None:
    assert machine_hint(agent) is hint


def test_a_person_reads_after_a_while() -> None:
    assert judge([hit(1, 60), hit(2, 75, link=0)], SENT) == {1: Verdict.HUMAN, 2: Verdict.HUMAN}


def test_all_links_within_seconds_is_a_scanner_and_a_later_click_is_not() -> None:
    verdicts = judge([hit(1, 30, 0), hit(2, 30.4, 1), hit(3, 30.9, 2), hit(4, 600, 1)], SENT)
    assert verdicts == {1: Verdict.MACHINE, 2: Verdict.MACHINE, 3: Verdict.MACHINE, 4: Verdict.HUMAN}


def test_a_proxy_open_proves_nothing() -> None:
    assert judge([hit(1, 60, hint=MachineHint.PROXY)], SENT) == {1: Verdict.UNKNOWN}


def test_an_open_at_the_moment_of_delivery_proves_nothing() -> None:
    assert judge([hit(1, 0.5)], SENT) == {1: Verdict.UNKNOWN}


def test_what_came_shortly_before_a_burst_was_part_of_the_scan() -> None:
    facts = [hit(1, 10), hit(2, 20, 0), hit(3, 60, 0), hit(4, 60.2, 1), hit(5, 60.4, 2), hit(6, 600, 0)]
    assert judge(facts[:2], SENT) == {1: Verdict.HUMAN, 2: Verdict.HUMAN}
    verdicts = judge(facts, SENT)
    assert [verdicts[number] for number in range(1, 7)] == [Verdict.MACHINE] * 5 + [Verdict.HUMAN]


def test_one_link_many_times_is_an_impatient_person() -> None:
    assert set(judge([hit(n, 60 + n / 10, 0) for n in range(1, 9)], SENT).values()) == {Verdict.HUMAN}


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4)), max_size=20), st.randoms(use_true_random=False))
def test_verdicts_do_not_depend_on_the_order_in_which_hits_are_told(clicks: list[tuple[int, int]], rng: Any) -> None:
    facts = [hit(number, seconds / 10, link) for number, (seconds, link) in enumerate(clicks)]
    shuffled = list(facts)
    rng.shuffle(shuffled)
    assert judge(facts, SENT) == judge(shuffled, SENT)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4)), max_size=20))
def test_bursts_are_those_that_comparing_all_with_all_finds(clicks: list[tuple[int, int]]) -> None:
    facts = [hit(number, seconds / 10, link) for number, (seconds, link) in enumerate(clicks)]
    is_burst = any(
        len({other.link for other in facts if timedelta(0) <= other.at - each.at < timedelta(seconds=2)}) >= 3
        for each in facts
    )
    assert bool(bursts(facts)) == is_burst


@pytest.mark.req("D09")
def test_bots_of_public_lists_are_flagged_and_people_are_not() -> None:
    bots = [agent for entry in CRAWLER_USER_AGENTS_DATA for agent in entry["instances"]]
    lines = (Path(fake_useragent.__file__).parent / "data" / "browsers.jsonl").read_text().splitlines()
    people = [json.loads(line)["useragent"] for line in lines]
    assert len(bots) > 1500
    assert len(people) > 5000
    flagged = sum(machine_hint(agent) is not None for agent in bots)
    mistaken = [agent for agent in people if machine_hint(agent) is not None]
    assert flagged >= 0.95 * len(bots)
    assert len(mistaken) <= 0.01 * len(people)


ROWS = st.dictionaries(
    st.sampled_from([*EVENT_SCHEMA, "nonsense"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["7", "custom", "conversion", "²"])
    | st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2),
)  # fmt: skip


@given(ROWS)
def test_the_quick_look_at_a_row_lets_nothing_through_that_the_schema_refuses(row: dict[str, Any]) -> None:
    if reported._is_plain(row):
        assert Form(EVENT_SCHEMA).faults(row) == []


@given(ROWS)
def test_any_row_is_an_event_or_a_told_fault(row: dict[str, Any]) -> None:
    try:
        event = read_event(row, SENT)
    except ValidationError as error:
        assert error.problems  # noqa: PT017 - acceptance is fine too
        return
    assert canonical(event.values["metadata"]) == event.values["metadata"]
    assert parse_datetime(event.values["tracked_at"]) == parse_datetime(str(row.get("tracked_at") or SENT.isoformat()))


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_stored_is_found_by_its_own_words(notes: str, value: str) -> None:
    words = (search_words(notes, {"a": value}) or "").split()
    for text in (notes, value):
        with suppress(ValidationError):
            assert set(query_words(text)) <= set(words)


USUAL = {
    "type": "conversion",
    "lead_id": "7",
    "event_id": "e1",
    "campaign_id": "12",
    "tracked_at": "2026-03-02T09:00:00Z",
    "metadata": {"url": "/shop/1", "n": 2},
}
ODD_TEXTS = ("0", "007", "custom", "page_visited", "", "é", "e\u0301", "x\x00", "9" * 19)
ODD_MOMENTS = ("2026-03-02T09:00:00.120Z", "2026-02-30T09:00:00Z", "2020-01-01T00:00:00Z")
ODD_VALUES = (12, None, True, [], {}, {"a": "\x00"}, {"a": {"b": ["Deep Word"]}})
ODD = st.sampled_from([*ODD_TEXTS, *ODD_MOMENTS, *ODD_VALUES])


@given(st.dictionaries(st.sampled_from(sorted(USUAL)), ODD, max_size=2))
def test_a_row_of_the_usual_shape_is_read_like_any_other(changes: dict[str, Any]) -> None:
    def read(row: dict[str, Any]) -> Any:
        try:
            return read_event(row, SENT)
        except ValidationError as error:
            return error.problems

    row = USUAL | changes
    assert read(row) == read({**row, "notes": None})
