"""The campaign's life, as a table and as a machine that random walks cannot leave."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignAction, CampaignKey, CampaignStatus
from nexus_marketing.core.definitions import STANDARD, parse_definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import TransitionRefused

pytestmark = pytest.mark.req("FR-P2-002", "US-011")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = CampaignKey("Product", "7", "spring")
DRAFT, QUEUED, ACTIVE, PAUSED, COMPLETED, CANCELLED = CampaignStatus
TABLE = {
    DRAFT: {"launch": ACTIVE, "cancel": CANCELLED},
    QUEUED: {"start": ACTIVE, "pause": PAUSED, "cancel": CANCELLED},
    ACTIVE: {"pause": PAUSED, "complete": COMPLETED, "cancel": CANCELLED},
    PAUSED: {"resume": ACTIVE, "cancel": CANCELLED},
    COMPLETED: {},
    CANCELLED: {},
}


def state(status, definition=STANDARD, **values):
    fresh = lifecycle.new_state(definition, KEY, NOW)
    return replace(fresh, status=status, stage=definition.entry(status), **values)


def take(definition, before, action, **words):
    move = Move(action, words.pop("now", NOW), **words)
    return lifecycle.decide(definition, lifecycle.prospect(definition, before, move), move).state


@pytest.mark.parametrize("action", CampaignAction)
@pytest.mark.parametrize("status", CampaignStatus)
def test_each_move_leads_where_the_table_says_or_is_refused(status, action):
    before = state(status)
    if action in TABLE[status]:
        assert take(STANDARD, before, action).status is TABLE[status][action]
        return
    with pytest.raises(TransitionRefused) as caught:
        take(STANDARD, before, action)
    assert caught.value.context["possible"] == sorted(TABLE[status])
    possible = ", ".join(sorted(TABLE[status])) or "nothing more; it has ended"
    assert caught.value.message.endswith(f"possible here: {possible}.")


@given(st.lists(st.sampled_from(list(CampaignAction))))
def test_no_walk_leaves_a_final_status_or_comes_back_to_draft(actions):
    now = state(DRAFT)
    for number, action in enumerate(actions):
        try:
            following = take(STANDARD, now, action, now=NOW + timedelta(hours=number))
        except TransitionRefused:
            continue
        assert now.status not in FINAL_STATUSES
        assert following.status is not DRAFT
        assert following.version == now.version + 1
        now = following


def test_a_campaign_has_the_requirements_six_statuses():
    assert [str(status) for status in CampaignStatus] == [
        "draft",
        "queued",
        "active",
        "paused",
        "completed",
        "cancelled",
    ]


def test_a_start_in_the_future_is_a_queue_until_then():
    queued = take(STANDARD, state(DRAFT), "launch", data={"start_date": "2026-03-08T00:00:00+02:00"})
    assert (queued.status, queued.starts_at) == (QUEUED, datetime(2026, 3, 7, 22, tzinfo=UTC))
    assert lifecycle.due(STANDARD, queued, NOW) is None
    assert lifecycle.next_look(STANDARD, queued, NOW) == queued.starts_at
    assert lifecycle.due(STANDARD, queued, queued.starts_at) == "start"


def test_a_start_on_a_day_is_the_beginning_of_that_day_in_the_definitions_zone():
    definition = parse_definition({"time_zone": "America/New_York"}, code="c")
    queued = take(definition, state(DRAFT, definition), "launch", data={"start_date": "2026-03-08"})
    assert queued.starts_at == datetime(2026, 3, 8, 5, tzinfo=UTC)


def test_a_pause_is_resumed_where_it_was():
    queued = take(STANDARD, state(DRAFT), "launch", data={"start_date": "2026-04-01"})
    paused = take(STANDARD, queued, "pause", reason="holiday")
    assert (paused.resumes_to, paused.reason) == ("queued", "holiday")
    resumed = take(STANDARD, paused, "resume")
    assert (resumed.status, resumed.resumes_to, resumed.reason) == (QUEUED, None, None)


def test_stages_of_a_definition_mean_statuses_and_drive_the_machine():
    definition = parse_definition(
        {
            "stages": ["draft", {"name": "warm-up", "status": "active"}, {"name": "full", "status": "active"}],
            "transitions": {"open_up": {"from": "warm-up", "to": "full", "condition": "data.opens >= 100"}},
        },
        code="c",
    )
    warm = take(definition, state(DRAFT, definition), "launch", data={"opens": 5})
    assert (warm.stage, warm.status) == ("warm-up", ACTIVE)
    with pytest.raises(TransitionRefused, match=r"data\.opens >= 100 does not hold"):
        take(definition, warm, "open_up")
    assert lifecycle.due(definition, replace(warm, data={"opens": 100}), NOW) == "open_up"
