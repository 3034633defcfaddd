"""Scores follow what people do and are: once per cause, whoever computes them, and however often."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.events import LeadScored, ScoreThresholdCrossed
from nexus_marketing.core.scoring import Ledger, fold
from nexus_marketing.db.models import (
    Hit,
    Lead,
    Score,
    ScoreContribution,
    ScoreCrossing,
    ScoreMark,
    ScoreRecompute,
    ScoreValue,
    Timer,
)
from nexus_marketing.db.queries.scoring import scoring_work
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.hits import judge_hits
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.scores.looking import known_of
from nexus_marketing.services.scores.recomputing import advance_recompute, finish_recompute
from nexus_marketing.services.scores.records import create_score, publish_score, remove_score, update_score
from nexus_marketing.services.scores.scoring import score_marked
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.scores.sheets import published_sheets
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.loops import tend_scores
from nexus_marketing.tasks.timers import TIMERS
from tests.common.factories import make_campaign, make_leads, make_send, make_template, make_tenant
from tests.common.segments import create, members, settle
from tests.common.servers import PostgresCluster

pytestmark = pytest.mark.req("FR-P2-010", "US-012")

VISIT = {"key": "visit", "event": "page_visited", "points": 5}
DEMO = {"key": "demo", "event": "form_submitted", "where": "metadata.form == 'demo'", "points": 30, "counts": "once"}
ORDER = {"key": "order", "event": "order_placed", "where": "properties.total >= 100", "points": 50}
FROM_US = {"key": "us", "when": "country == 'US'", "points": 10}


def publish(runtime: Runtime, tenant: int, draft: dict[str, Any], name: str = "score", **options: Any) -> int:
    """A score with these rules in force; answers its id. Nothing is recomputed yet."""
    with runtime.work(tenant) as ctx:
        known = ctx.session.scalars(select(Score).where(Score.name == name)).one_or_none()
        score = known or create_score(ctx, {"name": name})
        update_score(ctx, score.id, {"draft": draft})
        publish_score(ctx, score.id, **options)
        return score.id


def settle_scores(runtime: Runtime) -> None:
    """What workers do until nothing waits; time stands still."""
    for _ in range(1_000):
        if not tend_scores(runtime) + fire_due(runtime, TIMERS) and not waits(runtime):
            return
    raise AssertionError("scoring never comes to an end")


def waits(runtime: Runtime) -> bool:
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        return bool(scoring_work(session))


def track(runtime: Runtime, tenant: int, lead: int, *types: str, **values: Any) -> None:
    rows = [{"type": type_, "lead_id": str(lead), **values} for type_ in types]
    with runtime.work(tenant, SYSTEM) as ctx:
        answers = record_engagements(ctx, rows)
    assert [each["status"] for each in answers] == ["accepted"] * len(types), answers


def rows(runtime: Runtime, tenant: int, model: Any, **where: Any) -> list[Any]:
    with runtime.work(tenant, mode="read") as ctx:
        wanted = [getattr(model, name) == value for name, value in where.items()]
        found = list(ctx.session.scalars(select(model).where(*wanted)))
        ctx.session.expunge_all()
        return found


def shown(runtime: Runtime, tenant: int, lead: int) -> float:
    (found,) = rows(runtime, tenant, Lead, id=lead)
    return found.score


def values(runtime: Runtime, tenant: int, lead: int) -> list[float]:
    return [each.value for each in rows(runtime, tenant, ScoreValue, lead_id=lead)]


@pytest.fixture
def lead(runtime: Runtime, tenant: int) -> int:
    return make_leads(runtime, tenant, score=0.0, country="DE")[0]


@pytest.fixture
def hub(runtime: Runtime) -> Iterable[list[Any]]:
    heard: list[Any] = []
    stop = runtime.hub.subscribe(LeadScored, heard.append)
    yield heard
    stop()


def crossings(heard: Sequence[Any]) -> list[tuple[str, float, float]]:
    return [(each.direction, each.before, each.after) for each in heard if isinstance(each, ScoreThresholdCrossed)]


def test_what_a_lead_does_gives_points_once(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [VISIT, DEMO]})
    settle_scores(runtime)
    track(runtime, tenant, lead, "page_visited", "page_visited")
    track(runtime, tenant, lead, "form_submitted", "form_submitted", metadata={"form": "demo"})
    track(runtime, tenant, lead, "form_submitted", metadata={"form": "newsletter"})
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 40.0
    with runtime.work(tenant) as ctx:  # a mark that comes twice changes nothing
        ctx.session.add(ScoreMark(lead_id=lead, since=ctx.now - timedelta(days=1), until=ctx.now))
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 40.0
    assert len(rows(runtime, tenant, ScoreContribution)) == 4


def test_custom_events_and_their_properties(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [ORDER, {"key": "any", "event": "custom", "points": 1}]})
    settle_scores(runtime)
    for total in (99, 100):
        track(runtime, tenant, lead, "custom", name="order_placed", properties={"total": total})
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 52.0


def test_machines_give_no_points(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [VISIT]})
    settle_scores(runtime)
    track(runtime, tenant, lead, "page_visited", user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)")
    settle_scores(runtime)
    assert (shown(runtime, tenant, lead), rows(runtime, tenant, ScoreContribution)) == (0.0, [])


def test_what_a_leads_fields_say_counts_as_long_as_they_say_so(runtime: Runtime, tenant: int) -> None:
    publish(runtime, tenant, {"rules": [FROM_US]}, name="fit")
    settle_scores(runtime)
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "ann@example.org", "country": "US"}).id
    settle_scores(runtime)
    assert values(runtime, tenant, lead) == [10.0]
    for country, points in (("DE", 0.0), ("US", 10.0)):
        with runtime.work(tenant) as ctx:
            update_lead(ctx, lead, {"country": country})
        settle_scores(runtime)
        assert values(runtime, tenant, lead) == [points]
    ledger = rows(runtime, tenant, ScoreContribution)
    assert [(each.turn, each.points) for each in sorted(ledger, key=lambda each: each.turn)] == [
        (0, 10.0),
        (1, -10.0),
        (2, 10.0),
    ]
    assert shown(runtime, tenant, lead) == 0.0  # another score than the lead's own


def test_a_change_that_no_rule_asks_about_wakes_nobody(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [VISIT, FROM_US]})
    settle_scores(runtime)
    with runtime.work(tenant) as ctx:
        update_lead(ctx, lead, {"first_name": "Eve"})
    track(runtime, tenant, lead, "conversion")
    assert rows(runtime, tenant, ScoreMark) == []


def test_late_events_count_by_their_own_time(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [{**VISIT, "points": 40}], "decay": {"half_life": "10 days"}})
    settle_scores(runtime)
    then = (runtime.clock.now() - timedelta(days=10)).isoformat()
    track(runtime, tenant, lead, "page_visited", tracked_at=then)
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 20.0


def test_a_threshold_is_told_once_with_both_scores(runtime: Runtime, tenant: int, lead: int, hub: list[Any]) -> None:
    publish(runtime, tenant, {"rules": [{**VISIT, "points": 40}], "thresholds": [{"key": "hot", "up": 80, "down": 75}]})
    settle_scores(runtime)
    for _ in range(3):
        track(runtime, tenant, lead, "page_visited")
        settle_scores(runtime)
    assert crossings(hub) == [("up", 40.0, 80.0)]
    (kept,) = rows(runtime, tenant, ScoreCrossing)
    assert (kept.threshold, kept.direction, kept.before, kept.after) == ("hot", "up", 40.0, 80.0)
    assert [(each.before, each.after) for each in hub if type(each) is LeadScored] == [(0, 40), (40, 80), (80, 120)]


def test_time_alone_lowers_a_score_and_crosses_thresholds(
    runtime: Runtime, tenant: int, lead: int, hub: list[Any]
) -> None:
    draft = {
        "rules": [{**VISIT, "points": 80}],
        "decay": {"half_life": "10 days"},
        "thresholds": [{"key": "hot", "up": 80, "down": 75}],
    }
    publish(runtime, tenant, draft)
    settle_scores(runtime)
    track(runtime, tenant, lead, "page_visited")
    settle_scores(runtime)
    for days in range(1, 21):
        runtime.clock.advance(days=1)  # type: ignore[attr-defined]
        settle_scores(runtime)
        assert abs(shown(runtime, tenant, lead) - 80 * 0.5 ** (days / 10)) <= 0.5
    assert [each[0] for each in crossings(hub)] == ["up", "down"]
    assert len(rows(runtime, tenant, Timer)) == 1


def test_steps_expire_at_their_moment(runtime: Runtime, tenant: int, lead: int) -> None:
    publish(runtime, tenant, {"rules": [VISIT], "decay": {"steps": [{"after": "30 days", "keep": 0}]}})
    settle_scores(runtime)
    track(runtime, tenant, lead, "page_visited")
    settle_scores(runtime)
    (timer,) = rows(runtime, tenant, Timer)
    assert timer.trigger_at == runtime.clock.now() + timedelta(days=30)
    runtime.clock.advance(days=30)  # type: ignore[attr-defined]
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 0.0
    assert rows(runtime, tenant, Timer) == []


def test_fields_that_the_clock_decides_are_looked_at_again(runtime: Runtime, tenant: int) -> None:
    publish(runtime, tenant, {"rules": [{"key": "new", "when": "created_at >= now() - 7 days", "points": 9}]}, "fit")
    settle_scores(runtime)
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "ann@example.org"}).id
    settle_scores(runtime)
    assert values(runtime, tenant, lead) == [9.0]
    runtime.clock.advance(days=7, seconds=1)  # type: ignore[attr-defined]
    settle_scores(runtime)
    assert values(runtime, tenant, lead) == [0.0]


class TestRecomputing:
    def test_new_rules_count_what_was_before_them_and_tell_nothing_of_it(
        self, runtime: Runtime, tenant: int, lead: int, hub: list[Any]
    ) -> None:
        track(runtime, tenant, lead, *["page_visited"] * 3)
        draft = {"rules": [VISIT, FROM_US], "thresholds": [{"key": "warm", "up": 10}]}
        publish(runtime, tenant, draft)
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 15.0
        assert crossings(hub) == []
        track(runtime, tenant, lead, "page_visited")
        settle_scores(runtime)
        assert crossings(hub) == []  # it was above already
        publish(runtime, tenant, {**draft, "rules": [{**VISIT, "points": 1}]})
        settle_scores(runtime)
        assert (shown(runtime, tenant, lead), crossings(hub)) == (4.0, [])

    def test_thresholds_tell_of_the_past_where_that_is_asked_for(
        self, runtime: Runtime, tenant: int, lead: int, hub: list[Any]
    ) -> None:
        track(runtime, tenant, lead, *["page_visited"] * 3)
        draft = {"rules": [VISIT], "thresholds": [{"key": "warm", "up": 10}]}
        publish(runtime, tenant, draft, fire_on_recompute=True)
        settle_scores(runtime)
        assert crossings(hub) == [("up", 0.0, 15.0)]

    def test_what_happens_meanwhile_is_told_and_counted_once(
        self, runtime: Runtime, tenant: int, lead: int, hub: list[Any]
    ) -> None:
        track(runtime, tenant, lead, "page_visited")
        publish(runtime, tenant, {"rules": [VISIT], "thresholds": [{"key": "warm", "up": 10}]})
        runtime.clock.advance(seconds=1)  # type: ignore[attr-defined]
        track(runtime, tenant, lead, "page_visited")
        score_marked(runtime, tenant)  # before the recompute has come to this lead
        assert (shown(runtime, tenant, lead), crossings(hub)) == (10.0, [("up", 5.0, 10.0)])
        settle_scores(runtime)
        assert (shown(runtime, tenant, lead), len(crossings(hub))) == (10.0, 1)

    def test_it_goes_on_where_a_worker_died(self, runtime: Runtime, tenant: int, monkeypatch: Any) -> None:
        leads = make_leads(runtime, tenant, 25, score=0.0)
        for each in leads:
            track(runtime, tenant, each, "page_visited")
        monkeypatch.setattr("nexus_marketing.services.scores.recomputing.BATCH", 10)
        publish(runtime, tenant, {"rules": [VISIT]})
        advance_recompute(runtime, tenant)  # sets the fence
        assert advance_recompute(runtime, tenant) == 10

        def dies(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("nexus_marketing.services.scores.scoring.queries.write_values", dies)
            with pytest.raises(KeyboardInterrupt):
                advance_recompute(runtime, tenant)
        (row,) = rows(runtime, tenant, ScoreRecompute)
        assert (row.leads, row.reached, row.finished_at) == (10, leads[9], None)
        finish_recompute(runtime, tenant, row.id)
        assert {shown(runtime, tenant, each) for each in leads} == {5.0}
        (row,) = rows(runtime, tenant, ScoreRecompute)
        assert (row.leads, row.changed) == (25, 25)

    def test_rules_that_stay_as_they_are_keep_their_points(self, runtime: Runtime, tenant: int, lead: int) -> None:
        publish(runtime, tenant, {"rules": [VISIT, DEMO]})
        settle_scores(runtime)
        track(runtime, tenant, lead, "page_visited")
        settle_scores(runtime)
        publish(runtime, tenant, {"rules": [VISIT], "max": 3})
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 3.0
        (kept,) = rows(runtime, tenant, ScoreContribution)
        assert kept.version == 1

    def test_a_transaction_that_began_under_the_old_rules_is_waited_for(self, postgres_only_runtime: Runtime) -> None:
        runtime = postgres_only_runtime
        tenant = make_tenant(runtime)
        (lead,) = make_leads(runtime, tenant, score=0.0)
        with runtime.work(tenant, SYSTEM) as late:
            record_engagements(late, [{"type": "page_visited", "lead_id": str(lead)}])
            publish(runtime, tenant, {"rules": [VISIT]})
            for _ in range(5):
                tend_scores(runtime)
            (row,) = rows(runtime, tenant, ScoreRecompute)
            assert (row.leads, row.finished_at) == (0, None)
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 5.0

    def test_a_transaction_of_another_database_is_not(
        self, postgres_only_runtime: Runtime, cluster: PostgresCluster
    ) -> None:
        runtime = postgres_only_runtime
        tenant = make_tenant(runtime)
        (lead,) = make_leads(runtime, tenant, score=0.0)
        track(runtime, tenant, lead, "page_visited")
        with cluster.connect() as elsewhere, elsewhere.transaction():
            elsewhere.execute("CREATE TEMPORARY TABLE busy (id int) ON COMMIT DROP")
            publish(runtime, tenant, {"rules": [VISIT]})
            settle_scores(runtime)
            assert shown(runtime, tenant, lead) == 5.0


class TestTheLeadsOwnScore:
    def test_a_number_from_elsewhere_is_carried_over(self, runtime: Runtime, tenant: int) -> None:
        (lead,) = make_leads(runtime, tenant, score=42.0)
        track(runtime, tenant, lead, "page_visited")
        publish(runtime, tenant, {"rules": [VISIT]})
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 47.0
        kinds = {each.kind: each.points for each in rows(runtime, tenant, ScoreContribution)}
        assert kinds == {"event": 5.0, "carried": 42.0}

    def test_setting_it_appends_the_difference(self, runtime: Runtime, tenant: int, lead: int, hub: list[Any]) -> None:
        draft = {"rules": [VISIT], "max": 100, "thresholds": [{"key": "hot", "up": 80}]}
        publish(runtime, tenant, draft)
        settle_scores(runtime)
        track(runtime, tenant, lead, "page_visited")
        settle_scores(runtime)
        with runtime.work(tenant) as ctx:
            assert set_score(ctx, lead, 90, "spoke on the phone").score == 90.0
        (given,) = rows(runtime, tenant, ScoreContribution, kind="manual")
        assert (given.points, given.actor, given.reason) == (85.0, "system", "spoke on the phone")
        assert crossings(hub) == [("up", 5.0, 90.0)]
        track(runtime, tenant, lead, "page_visited")
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 95.0
        with runtime.work(tenant) as ctx, pytest.raises(ValidationError, match="which allow"):
            set_score(ctx, lead, 101, "x")

    def test_without_rules_the_difference_is_kept_as_well(self, runtime: Runtime, tenant: int) -> None:
        (lead,) = make_leads(runtime, tenant, score=7.0)
        for number in (10, 3):
            with runtime.work(tenant) as ctx:
                assert set_score(ctx, lead, number, "x").score == number
        found = {each.kind: 0.0 for each in rows(runtime, tenant, ScoreContribution)}
        for each in rows(runtime, tenant, ScoreContribution):
            found[each.kind] += each.points
        assert found == {"carried": 7.0, "manual": -4.0}
        publish(runtime, tenant, {"rules": [VISIT]})
        settle_scores(runtime)
        assert shown(runtime, tenant, lead) == 3.0

    def test_it_cannot_be_removed(self, runtime: Runtime, tenant: int) -> None:
        score = publish(runtime, tenant, {"rules": [VISIT]})
        with runtime.work(tenant) as ctx, pytest.raises(Conflict):
            remove_score(ctx, score)


def test_a_removed_score_goes_in_pieces_with_all_it_counted(runtime: Runtime, tenant: int, lead: int) -> None:
    fit = publish(runtime, tenant, {"rules": [VISIT, FROM_US]}, "fit")
    settle_scores(runtime)
    track(runtime, tenant, lead, *["page_visited"] * 3)
    settle_scores(runtime)
    with runtime.work(tenant) as ctx:
        remove_score(ctx, fit)
    publish(runtime, tenant, {"rules": [VISIT]}, "fit")  # the name is free at once
    settle_scores(runtime)
    assert rows(runtime, tenant, Score, id=fit) == []
    assert rows(runtime, tenant, ScoreContribution, score_id=fit) == []
    assert values(runtime, tenant, lead) == [15.0]


def test_tenants_do_not_see_each_others_rules(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    publish(runtime, other_tenant, {"rules": [VISIT]})
    settle_scores(runtime)
    (lead,) = make_leads(runtime, tenant, score=0.0)
    track(runtime, tenant, lead, "page_visited")
    settle_scores(runtime)
    assert (shown(runtime, tenant, lead), rows(runtime, tenant, ScoreMark)) == (0.0, [])


class TestMerging:
    def merge(self, runtime: Runtime, tenant: int, winner: int, loser: int) -> None:
        with runtime.work(tenant) as ctx:
            merge_leads(ctx, winner, loser)
        finish_removals(runtime)

    def test_the_score_follows_from_what_both_did(self, runtime: Runtime, tenant: int) -> None:
        winner, loser = make_leads(runtime, tenant, 2, score=0.0, country="US")
        publish(runtime, tenant, {"rules": [VISIT, DEMO, FROM_US]})
        settle_scores(runtime)
        for lead in (winner, loser):
            track(runtime, tenant, lead, "page_visited")
            track(runtime, tenant, lead, "form_submitted", metadata={"form": "demo"})
        with runtime.work(tenant) as ctx:
            set_score(ctx, loser, 100, "by hand")  # 100 more than the 10 it has: the rest is not looked at yet
        settle_scores(runtime)
        assert [shown(runtime, tenant, lead) for lead in (winner, loser)] == [45.0, 135.0]
        self.merge(runtime, tenant, winner, loser)
        settle_scores(runtime)
        # Two visits, one demo although both asked for one, one country, and what was given by hand.
        assert shown(runtime, tenant, winner) == 10 + 30 + 10 + 90
        assert rows(runtime, tenant, ScoreValue, lead_id=loser) == []

    def test_what_the_loser_did_just_before_counts_once(self, runtime: Runtime, tenant: int) -> None:
        winner, loser = make_leads(runtime, tenant, 2, score=0.0)
        publish(runtime, tenant, {"rules": [VISIT]})
        settle_scores(runtime)
        track(runtime, tenant, loser, "page_visited")
        settle_scores(runtime)
        track(runtime, tenant, loser, "page_visited")
        self.merge(runtime, tenant, winner, loser)  # a mark of the loser still waits
        settle_scores(runtime)
        assert shown(runtime, tenant, winner) == 10.0
        assert len(rows(runtime, tenant, ScoreContribution)) == 2

    def test_without_rules_the_policy_says_what_the_score_is(self, runtime: Runtime, tenant: int) -> None:
        winner, loser = make_leads(runtime, tenant, 2, score=0.0)
        with runtime.work(tenant) as ctx:
            set_score(ctx, winner, 10, "x")
            set_score(ctx, loser, 40, "x")
        self.merge(runtime, tenant, winner, loser)
        assert shown(runtime, tenant, winner) == 40.0
        publish(runtime, tenant, {"rules": [VISIT]})
        settle_scores(runtime)
        assert shown(runtime, tenant, winner) == 40.0


def test_erasing_a_lead_leaves_nothing_of_its_scores(runtime: Runtime, tenant: int) -> None:
    winner, loser = make_leads(runtime, tenant, 2, score=0.0, country="US")
    draft = {"rules": [VISIT, FROM_US], "decay": {"half_life": "1 day"}, "thresholds": [{"key": "warm", "up": 1}]}
    publish(runtime, tenant, draft)
    settle_scores(runtime)
    for lead in (winner, loser):
        track(runtime, tenant, lead, "page_visited")
    settle_scores(runtime)
    with runtime.work(tenant) as ctx:
        set_score(ctx, winner, 90, "likes sailing")
        merge_leads(ctx, winner, loser)
    track(runtime, tenant, winner, "page_visited")
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, winner)
    finish_removals(runtime)
    for model in (ScoreContribution, ScoreCrossing, ScoreMark, ScoreValue):
        assert rows(runtime, tenant, model) == []
    runtime.clock.advance(days=40)  # type: ignore[attr-defined]
    settle_scores(runtime)
    assert rows(runtime, tenant, ScoreValue) == []


@pytest.mark.req("US-016")
def test_a_click_that_turns_out_to_be_a_machines_loses_its_points(runtime: Runtime, tenant: int) -> None:
    publish(runtime, tenant, {"rules": [{"key": "click", "event": "email_clicked", "points": 7}]})
    settle_scores(runtime)
    (lead,) = make_leads(runtime, tenant, score=0.0)
    send = make_send(runtime, tenant, make_campaign(runtime, tenant), make_template(runtime, tenant), [lead])
    settled = runtime.clock.now()

    def click(link: int, milliseconds: int) -> None:
        with runtime.work(tenant) as ctx:
            at = settled + timedelta(milliseconds=milliseconds)
            ctx.session.add(Hit(at=at, type="email_clicked", send_id=send, seq=1, lead_id=lead, link=link))

    click(0, 0)
    judge_hits(runtime, tenant)
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 7.0
    for link in (1, 2, 3):
        click(link, 100 * link)
    judge_hits(runtime, tenant)
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) == 0.0
    assert sum(each.points for each in rows(runtime, tenant, ScoreContribution)) == 0.0


@given(st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replaying_gives_what_came_about_step_by_step(runtime: Runtime, data: st.DataObject) -> None:
    """Events late and early, fields that change, numbers set by hand, time that passes, new rules meanwhile."""
    tenant = make_tenant(runtime, f"t{next(NUMBERS)}")
    (lead,) = make_leads(runtime, tenant, score=0.0)
    rules = [
        {**VISIT, "cap": {"points": 12, "period": "1 day"}},
        {**DEMO, "decay": {"steps": [{"after": "3 days", "keep": 0.5}]}},
        FROM_US,
    ]
    draft = {"rules": rules, "decay": {"half_life": "5 days"}, "max": 60, "thresholds": [{"key": "w", "up": 20}]}
    publish(runtime, tenant, draft)
    settle_scores(runtime)
    steps = data.draw(st.lists(st.sampled_from(STEPS), max_size=8))
    for step in steps:
        if step == "visit":
            at = runtime.clock.now() - timedelta(hours=data.draw(st.integers(0, 200)))
            track(runtime, tenant, lead, "page_visited", tracked_at=at.isoformat())
        elif step == "demo":
            track(runtime, tenant, lead, "form_submitted", metadata={"form": "demo"})
        elif step == "move":
            with runtime.work(tenant) as ctx:
                update_lead(ctx, lead, {"country": data.draw(st.sampled_from(["US", "DE"]))})
        elif step == "set":
            settle_scores(runtime)
            with runtime.work(tenant) as ctx:
                set_score(ctx, lead, data.draw(st.integers(0, 60)), "x")
        elif step == "wait":
            settle_scores(runtime)
            runtime.clock.advance(hours=data.draw(st.integers(1, 60)))  # type: ignore[attr-defined]
        elif step == "publish":
            publish(
                runtime, tenant, {**draft, "rules": [{**VISIT, "points": data.draw(st.integers(1, 9))}, *rules[1:]]}
            )
        if data.draw(st.booleans()):
            settle_scores(runtime)
    settle_scores(runtime)
    with runtime.work(tenant, mode="read") as ctx:
        (sheet,) = published_sheets(ctx)
        known, _ = known_of(ctx, sheet, lead)
        replayed = fold(sheet.scorer.rules, Ledger(known.contributions).standing(), runtime.clock.now())
    assert shown(runtime, tenant, lead) == known.value == replayed.value
    told = rows(runtime, tenant, ScoreCrossing)
    assert all(each.direction == ("up" if each.after >= 20 else "down") for each in told)
    # New rules may take a score over its threshold and tell nobody: then it may fall, or rise, twice.
    assert "publish" in steps or all(first.direction != second.direction for first, second in pairwise(told))


def test_a_fall_is_told_although_new_rules_had_raised_the_score_in_silence(
    runtime: Runtime, tenant: int, lead: int
) -> None:
    draft = {"rules": [{**VISIT, "points": 1}], "thresholds": [{"key": "warm", "up": 20}]}
    publish(runtime, tenant, draft)
    track(runtime, tenant, lead, *["page_visited"] * 10)
    settle_scores(runtime)
    publish(runtime, tenant, {**draft, "rules": [{**VISIT, "points": 3}]})
    settle_scores(runtime)
    assert shown(runtime, tenant, lead) >= 20
    assert rows(runtime, tenant, ScoreCrossing) == []
    with runtime.work(tenant) as ctx:
        set_score(ctx, lead, 5, "spoke to them")
    (told,) = rows(runtime, tenant, ScoreCrossing)
    assert (told.direction, told.after) == ("down", 5)


STEPS = ("visit", "visit", "demo", "move", "set", "wait", "publish")
NUMBERS = count()


@pytest.mark.req("FR-P2-012", "BR-013")
def test_segments_follow_a_named_score(runtime: Runtime, tenant: int, lead: int) -> None:
    score = publish(runtime, tenant, {"rules": [VISIT]}, name="fit")
    hot = create(runtime, tenant, name="hot", conditions="score('fit') >= 10")
    cold = create(runtime, tenant, name="cold", conditions={"score": "fit", "operator": "<", "value": 10})
    settle_scores(runtime)
    settle(runtime)
    assert (members(runtime, tenant, hot), members(runtime, tenant, cold)) == (set(), {lead})
    track(runtime, tenant, lead, "page_visited", "page_visited")
    settle_scores(runtime)
    settle(runtime)
    assert (members(runtime, tenant, hot), members(runtime, tenant, cold)) == ({lead}, set())
    publish(runtime, tenant, {"rules": [VISIT | {"points": 1}]}, name="fit")
    settle_scores(runtime)
    settle(runtime)
    assert members(runtime, tenant, hot) == set()
    with pytest.raises(Conflict, match="segment 'hot', segment 'cold' read it"), runtime.work(tenant) as ctx:
        remove_score(ctx, score)
    with pytest.raises(ValidationError, match="there is no score 'fitt'; did you mean fit"):
        create(runtime, tenant, name="x", conditions="score('fitt') > 1")
