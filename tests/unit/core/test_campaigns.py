"""The campaign's life, as a table and as a machine that random walks cannot leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignAction, CampaignStatus, move
from nexus_marketing.core.errors import TransitionRefused

pytestmark = pytest.mark.req("FR-P2-002", "US-011")

DRAFT, QUEUED, ACTIVE, PAUSED, COMPLETED, CANCELLED = CampaignStatus
TABLE = {
    DRAFT: {"launch": ACTIVE, "cancel": CANCELLED},
    QUEUED: {"launch": ACTIVE, "pause": PAUSED, "cancel": CANCELLED},
    ACTIVE: {"pause": PAUSED, "complete": COMPLETED, "cancel": CANCELLED},
    PAUSED: {"resume": ACTIVE, "cancel": CANCELLED},
    COMPLETED: {},
    CANCELLED: {},
}


@pytest.mark.parametrize("action", CampaignAction)
@pytest.mark.parametrize("status", CampaignStatus)
def test_each_move_leads_where_the_table_says_or_is_refused(status, action):
    if action in TABLE[status]:
        assert move(status, action) is TABLE[status][action]
        return
    with pytest.raises(TransitionRefused) as caught:
        move(status, action)
    assert caught.value.context == {"status": status, "action": action}
    possible = ", ".join(sorted(TABLE[status])) or "nothing more"
    assert caught.value.message.endswith(f"possible here: {possible}.")


@given(st.lists(st.sampled_from(list(CampaignAction))))
def test_no_walk_leaves_a_final_status_or_comes_back_to_draft(actions):
    status = DRAFT
    for action in actions:
        try:
            following = move(status, action)
        except TransitionRefused:
            continue
        assert status not in FINAL_STATUSES
        assert following is not DRAFT
        status = following


def test_the_final_statuses_are_those_without_a_move():
    assert {status for status in CampaignStatus if not TABLE[status]} == FINAL_STATUSES


def test_a_campaign_has_the_requirements_six_statuses():
    assert [str(status) for status in CampaignStatus] == [
        "draft",
        "queued",
        "active",
        "paused",
        "completed",
        "cancelled",
    ]
