"""Segments kept true change by change: the rules of BEHAVIOUR.md 5.3, one by one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from nexus_marketing.core.errors import ConditionError, Conflict, ValidationError
from nexus_marketing.core.events import SegmentChanged
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Hit, Lead, Segment, SegmentMark, Tenant, Timer
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.queries.upkeep import try_upkeep
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.hits import judge_hits
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.privacy import record_consent
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.segments import refresh as segment_refresh
from nexus_marketing.services.segments import upkeep as segment_upkeep
from nexus_marketing.services.segments.clock import TYPE
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.segments.records import (
    change_members,
    delete_segment,
    references,
    request_recalculation,
    update_segment,
)
from nexus_marketing.services.segments.refresh import recalculate_requested, refresh
from nexus_marketing.services.segments.rules import Rule
from nexus_marketing.services.segments.upkeep import keep_segments
from tests.common.factories import make_campaign, make_leads, make_send, make_template, make_tenant
from tests.common.segments import changes, create, declare, members, settle

pytestmark = pytest.mark.req("FR-P2-012", "US-012", "BR-013", "PR-007")


def set_scores(runtime: Runtime, tenant_id: int, scores: dict[int, float]) -> None:
    with runtime.work(tenant_id) as ctx:
        for lead_id, score in scores.items():
            set_score(ctx, lead_id, score, "test")


def change_metadata(runtime: Runtime, tenant_id: int, lead_id: int, **values: str) -> None:
    with runtime.work(tenant_id) as ctx:
        update_lead(ctx, lead_id, {"metadata": values})


def marks(runtime: Runtime, tenant_id: int) -> int:
    with runtime.work(tenant_id, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(SegmentMark)) or 0


def timers(runtime: Runtime, tenant_id: int) -> list[datetime]:
    with runtime.work(tenant_id, mode="read") as ctx:
        return list(ctx.session.scalars(select(Timer.trigger_at).where(Timer.type == TYPE)))


@pytest.fixture
def built(runtime: Runtime, tenant: int) -> tuple[int, list[int]]:
    """A segment of those with a score of 50 and more, computed; ten leads, of whom nobody has."""
    ids = make_leads(runtime, tenant, 10)
    segment_id = create(runtime, tenant, conditions="score >= 50")
    settle(runtime)
    return segment_id, ids


class TestChanges:
    def test_a_change_is_seen_without_computing_the_segment(self, runtime, tenant, built):
        segment_id, ids = built
        set_scores(runtime, tenant, {ids[0]: 80, ids[1]: 50})
        assert keep_segments(runtime) == 2
        assert members(runtime, tenant, segment_id) == {ids[0], ids[1]}
        with runtime.work(tenant, mode="read") as ctx:
            segment = ctx.session.get(Segment, (tenant, segment_id))
            assert (segment.lead_count, segment.generation) == (2, 1)
        set_scores(runtime, tenant, {ids[0]: 10})
        settle(runtime)
        assert changes(runtime, tenant, segment_id) == [
            (ids[0], "entered", "change"),
            (ids[1], "entered", "change"),
            (ids[0], "left", "change"),
        ]

    def test_what_no_rule_reads_evaluates_nobody(self, runtime, tenant, built, monkeypatch):
        evaluated = []
        predicate = Rule.predicate.func

        def counted(rule):
            found = predicate(rule)
            return lambda record, evaluation: evaluated.append(record["id"]) or found(record, evaluation)

        monkeypatch.setattr(Rule, "predicate", property(counted))
        change_metadata(runtime, tenant, built[1][0], colour="red")
        assert keep_segments(runtime) == 1
        assert evaluated == []
        set_scores(runtime, tenant, {built[1][0]: 3})
        keep_segments(runtime)
        assert evaluated == [built[1][0]]

    def test_a_change_that_is_taken_back_marks_nobody(self, runtime, tenant, built):
        with pytest.raises(RuntimeError), runtime.work(tenant) as ctx:
            set_score(ctx, built[1][0], 90, "test")
            raise RuntimeError
        assert marks(runtime, tenant) == 0

    def test_a_crash_between_evaluating_and_writing_loses_nothing(self, runtime, tenant, built):
        segment_id, ids = built
        set_scores(runtime, tenant, {ids[0]: 80})

        def crash(_connection, _cursor, statement, *_rest):
            if statement.startswith("DELETE FROM marketing_segment_marks"):
                raise RuntimeError

        event.listen(runtime.engines.worker, "before_cursor_execute", crash)
        with pytest.raises(RuntimeError):
            keep_segments(runtime)
        event.remove(runtime.engines.worker, "before_cursor_execute", crash)
        assert members(runtime, tenant, segment_id) == set()
        assert marks(runtime, tenant) == 1
        settle(runtime)
        assert changes(runtime, tenant, segment_id) == [(ids[0], "entered", "change")]

    def test_a_change_while_the_segment_is_computed_is_looked_at_afterwards(self, runtime, tenant, built, monkeypatch):
        segment_id, ids = built
        join, waiting = queries.refresh_by_diff, []

        def after_reading():
            set_scores(runtime, tenant, {ids[3]: 77})
            waiting.append(keep_segments(runtime))

        difference = segment_refresh._Pieces._difference

        def read_then_change(self, *given):
            found = difference(self, *given)
            after_reading()
            return found

        def write_then_change(*given):
            found = join(*given)
            after_reading()
            return found

        monkeypatch.setattr(segment_refresh._Pieces, "_difference", read_then_change)
        monkeypatch.setattr(queries, "refresh_by_diff", write_then_change)
        assert refresh(runtime, tenant, segment_id) == 0
        assert waiting == [0]
        assert marks(runtime, tenant) == 1
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {ids[3]}

    def test_one_worker_at_a_time_keeps_a_tenants_segments(self, postgres_only_runtime):
        runtime = postgres_only_runtime
        tenant_id = make_tenant(runtime)
        (lead,) = make_leads(runtime, tenant_id, 1)
        set_scores(runtime, tenant_id, {lead: 4})
        with runtime.work(tenant_id) as ctx:
            assert try_upkeep(ctx.session)
            assert keep_segments(runtime) == 0
        assert keep_segments(runtime) == 1

    def test_many_changes_are_one_computation(self, runtime, tenant, built, monkeypatch):
        segment_id, ids = built
        monkeypatch.setattr(segment_upkeep, "SET_MODE_FROM", 5)
        set_scores(runtime, tenant, {lead_id: 60 + lead_id for lead_id in ids})
        assert keep_segments(runtime) == 10
        assert members(runtime, tenant, segment_id) == set()
        assert recalculate_requested(runtime) == 1
        assert members(runtime, tenant, segment_id) == set(ids)
        assert {cause for _, _, cause in changes(runtime, tenant, segment_id)} == {"refresh"}

    def test_a_rule_that_fits_no_longer_is_told_and_holds_nothing_up(self, runtime, tenant, built):
        segment_id, ids = built
        with runtime.work(None, role="owner") as ctx:
            ctx.session.get(Tenant, tenant).settings = {"fields": {"seats": "number"}}
        broken = create(runtime, tenant, name="broken", conditions="seats > 5 AND score > 1")
        settle(runtime)
        with runtime.work(None, role="owner") as ctx:
            ctx.session.get(Tenant, tenant).settings = {}
        set_scores(runtime, tenant, {ids[0]: 80})
        assert keep_segments(runtime) == 1
        assert members(runtime, tenant, segment_id) == {ids[0]}
        assert recalculate_requested(runtime) == 1
        with runtime.work(tenant, mode="read") as ctx:
            assert "seats" in ctx.session.get(Segment, (tenant, broken)).error

    def test_large_marks_are_dealt_with_in_pieces(self, runtime, tenant, built, monkeypatch):
        segment_id, ids = built
        with runtime.work(tenant, role="owner") as ctx:
            ctx.session.execute(update(Lead).where(Lead.tenant_id == tenant).values(score=70))
        with runtime.work(tenant) as ctx:
            mark_leads(ctx, ids, ["score"])
        monkeypatch.setitem(segment_upkeep.LEADS_AT_ONCE, runtime.engines.dialect, 4)
        assert [keep_segments(runtime) for _ in range(4)] == [4, 4, 2, 0]
        assert members(runtime, tenant, segment_id) == set(ids)


class TestCauses:
    def test_the_first_computation_tells_of_nobody(self, runtime, tenant):
        make_leads(runtime, tenant, 3)
        segment_id = create(runtime, tenant, conditions="score >= 0")
        settle(runtime)
        assert changes(runtime, tenant, segment_id) == []

    def test_an_edit_of_the_rule_says_so(self, runtime, tenant, built):
        segment_id, ids = built
        with runtime.work(tenant) as ctx:
            update_segment(ctx, segment_id, {"conditions": "score == 3"})
        set_scores(runtime, tenant, {ids[9]: 3})
        keep_segments(runtime)
        assert members(runtime, tenant, segment_id) == set()
        settle(runtime)
        assert changes(runtime, tenant, segment_id) == [(ids[2], "entered", "rule"), (ids[9], "entered", "rule")]

    def test_what_people_do_says_so(self, runtime, tenant):
        ids = make_leads(runtime, tenant, 2)
        segment_id = create(runtime, tenant, kind="static", lead_ids=[str(ids[0])])
        with runtime.work(tenant) as ctx:
            change_members(ctx, segment_id, add=[ids[1]], remove=[ids[0]])
        assert changes(runtime, tenant, segment_id) == [
            (ids[0], "entered", "hand"),
            (ids[0], "left", "hand"),
            (ids[1], "entered", "hand"),
        ]

    def test_a_snapshot_is_taken_once(self, runtime, tenant):
        ids = make_leads(runtime, tenant, 3)
        segment_id = create(runtime, tenant, kind="snapshot", conditions="score >= 2")
        settle(runtime)
        set_scores(runtime, tenant, {ids[0]: 9, ids[2]: 0})
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set(ids[1:])
        assert refresh(runtime, tenant, segment_id) == 2
        with pytest.raises(Conflict, match="stays as it was taken"), runtime.work(tenant) as ctx:
            request_recalculation(ctx, segment_id)
        with pytest.raises(Conflict, match="take another one"), runtime.work(tenant) as ctx:
            update_segment(ctx, segment_id, {"conditions": "score > 7"})

    def test_what_a_snapshot_was_taken_of_may_be_deleted(self, runtime, tenant):
        ids = make_leads(runtime, tenant, 3)
        source = create(runtime, tenant, name="source", conditions="score >= 2")
        snapshot = create(runtime, tenant, name="taken", kind="snapshot", conditions="in_segment('source')")
        with pytest.raises(Conflict, match="taken"), runtime.work(tenant) as ctx:
            delete_segment(ctx, source)
        settle(runtime)
        with runtime.work(tenant) as ctx:
            assert references(ctx, source) == []
            delete_segment(ctx, source)
        settle(runtime)
        assert members(runtime, tenant, snapshot) == set(ids[1:])

    def test_whoever_listens_hears_how_many_came_and_went(self, runtime, tenant, built):
        heard = []
        runtime.hub.subscribe(SegmentChanged, heard.append)
        set_scores(runtime, tenant, dict.fromkeys(built[1][:3], 99))
        settle(runtime)
        assert [(each.segment_id, each.entered, each.left) for each in heard] == [(built[0], 3, 0)]


class TestClock:
    @pytest.fixture
    def lead(self, runtime, tenant):
        declare(runtime, tenant)
        return make_leads(runtime, tenant, 1)[0]

    @pytest.mark.parametrize(("operator", "at_the_boundary"), [(">", False), (">=", True), ("<", False), ("<=", True)])
    def test_a_value_passes_the_boundary_to_the_microsecond(
        self, runtime, tenant, lead, clock, operator, at_the_boundary
    ):
        seen = canonical_datetime(clock.now() - timedelta(hours=47))
        change_metadata(runtime, tenant, lead, seen=seen)
        segment_id = create(runtime, tenant, conditions=f"seen {operator} now() - 2 days")
        settle(runtime)
        inside = []
        for step in (timedelta(hours=1) - timedelta(microseconds=1), *[timedelta(microseconds=1)] * 2):
            clock.advance(microseconds=step / timedelta(microseconds=1))
            settle(runtime)
            inside.append(lead in members(runtime, tenant, segment_id))
        before = operator in {">", ">="}
        assert inside == [before, at_the_boundary, not before]

    def test_one_timer_stands_for_all_leads(self, runtime, tenant, lead, clock):
        ids = [lead, *make_leads(runtime, tenant, 20, first=100)]
        for number, each in enumerate(ids):
            change_metadata(runtime, tenant, each, seen=canonical_datetime(clock.now() - timedelta(hours=number)))
        segment_id = create(runtime, tenant, conditions="seen > now() - 30 hours")
        settle(runtime)
        assert timers(runtime, tenant) == [clock.now() + timedelta(hours=10)]
        clock.advance(hours=15)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set(ids[:15])

    def test_a_lead_that_will_pass_sooner_brings_the_timer_forward(self, runtime, tenant, lead, clock):
        segment_id = create(runtime, tenant, conditions="seen > now() - 30 hours")
        settle(runtime)
        assert timers(runtime, tenant) == []
        for hours in (5, 25):
            change_metadata(runtime, tenant, lead, seen=canonical_datetime(clock.now() - timedelta(hours=hours)))
            settle(runtime)
            assert timers(runtime, tenant) == [clock.now() + timedelta(hours=30 - hours)]
        clock.advance(hours=6)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set()
        assert timers(runtime, tenant) == []

    def test_today_changes_where_the_lead_lives(self, runtime, tenant, lead, clock):
        east, west = make_leads(runtime, tenant, 2, first=50)
        for each, zone in ((east, "Pacific/Auckland"), (west, "America/Los_Angeles")):
            with runtime.work(tenant) as ctx:
                update_lead(ctx, each, {"time_zone": zone, "metadata": {"signup": "2026-03-04"}})
        segment_id = create(runtime, tenant, conditions="signup <= local_today()")
        settle(runtime)
        assert clock.now() == datetime(2026, 3, 2, 10, tzinfo=UTC)
        inside = []
        for hours in (25, 1, 20, 1):
            clock.advance(hours=hours - 0.5)
            settle(runtime)
            inside.append(members(runtime, tenant, segment_id))
            clock.advance(hours=0.5)
        assert inside == [set(), {east}, {east}, {east, west}]


def record(runtime: Runtime, tenant_id: int, lead_id: int, name: str, at: datetime, **properties: Any) -> None:
    row = {"type": "custom", "name": name, "lead_id": str(lead_id), "tracked_at": canonical_datetime(at)}
    with runtime.work(tenant_id) as ctx:
        (answer,) = record_engagements(ctx, [row | {"properties": properties}])
    assert answer["status"] == "accepted"


class TestEvents:
    def test_an_event_counts_until_it_leaves_the_window_to_the_microsecond(self, runtime, tenant, clock):
        (lead,) = make_leads(runtime, tenant, 1)
        segment_id = create(runtime, tenant, conditions="count(purchase) >= 2 within 3 days")
        settle(runtime)
        for hours in (71, 20):
            record(runtime, tenant, lead, "purchase", clock.now() - timedelta(hours=hours))
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {lead}
        assert timers(runtime, tenant) == [clock.now() + timedelta(hours=1)]
        clock.advance(microseconds=3_600_000_000 - 1)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {lead}
        clock.advance(microseconds=1)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set()
        assert changes(runtime, tenant, segment_id) == [(lead, "entered", "change"), (lead, "left", "change")]

    def test_a_late_event_counts_by_its_own_time(self, runtime, tenant, clock):
        ids = make_leads(runtime, tenant, 2)
        segment_id = create(runtime, tenant, conditions="count(purchase where amount > 5) >= 1 within 2 days")
        settle(runtime)
        record(runtime, tenant, ids[0], "purchase", clock.now() - timedelta(days=1), amount=9)
        record(runtime, tenant, ids[1], "purchase", clock.now() - timedelta(days=3), amount=9)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {ids[0]}

    def test_whoever_did_not_do_something_for_a_while_enters(self, runtime, tenant, clock):
        (lead,) = make_leads(runtime, tenant, 1)
        segment_id = create(runtime, tenant, conditions="count(log.in) == 0 within 7 days")
        settle(runtime)
        record(runtime, tenant, lead, "log.in", clock.now())
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set()
        clock.advance(days=7)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {lead}

    def test_an_event_that_no_rule_asks_for_evaluates_nobody(self, runtime, tenant, built, monkeypatch):
        monkeypatch.setattr(Rule, "predicate", property(lambda _: pytest.fail("nobody reads events")))
        record(runtime, tenant, built[1][0], "purchase", runtime.clock.now())
        assert keep_segments(runtime) == 1

    def test_a_click_that_turns_out_to_be_a_scanners_counts_no_more(self, runtime, tenant, clock):
        (lead,) = make_leads(runtime, tenant, 1)
        segment_id = create(runtime, tenant, conditions="count(email_clicked) >= 1")
        send = make_send(runtime, tenant, make_campaign(runtime, tenant), make_template(runtime, tenant), [lead])
        sent = clock.now()
        clock.advance(hours=1)

        def clicked(*seconds: float) -> set[int]:
            with runtime.work(tenant) as ctx:
                for link, second in enumerate(seconds):
                    about = {"type": "email_clicked", "send_id": send, "seq": 1, "lead_id": lead, "link": link}
                    ctx.session.add(Hit(at=sent + timedelta(seconds=second), **about))
            judge_hits(runtime, tenant)
            settle(runtime)
            return members(runtime, tenant, segment_id)

        assert clicked(20) == {lead}
        assert clicked(60, 60.3, 60.6) == set()

    def test_consent_runs_out_by_itself(self, runtime, tenant, clock):
        (lead,) = make_leads(runtime, tenant, 1)
        segment_id = create(runtime, tenant, conditions="consent('email') == 'granted'")
        settle(runtime)
        with runtime.work(tenant) as ctx:
            record_consent(ctx, lead, granted=True, source="form", expires_at=clock.now() + timedelta(days=1))
        settle(runtime)
        assert members(runtime, tenant, segment_id) == {lead}
        clock.advance(days=1)
        settle(runtime)
        assert members(runtime, tenant, segment_id) == set()


class TestComposites:
    @pytest.fixture
    def parts(self, runtime, tenant):
        """Those above and below a score, and those of the first who are not of the second."""
        ids = make_leads(runtime, tenant, 3)
        one = create(runtime, tenant, name="one", conditions="score >= 10")
        two = create(runtime, tenant, name="two", conditions="score >= 50")
        both = create(
            runtime, tenant, name="both", kind="composite", conditions="in_segment('one') AND NOT in_segment('two')"
        )
        settle(runtime)
        return ids, one, two, both

    def test_a_composite_never_flickers(self, runtime, tenant, parts):
        ids, one, two, both = parts
        set_scores(runtime, tenant, {ids[0]: 20, ids[1]: 90})
        assert keep_segments(runtime) == 2
        assert members(runtime, tenant, both) == {ids[0]}
        set_scores(runtime, tenant, {ids[0]: 95})
        settle(runtime)
        assert changes(runtime, tenant, both) == [(ids[0], "entered", "change"), (ids[0], "left", "change")]
        assert members(runtime, tenant, one) == members(runtime, tenant, two) == {ids[0], ids[1]}

    def test_rules_on_events_see_the_membership_that_was_just_found(self, runtime, tenant, parts):
        ids = parts[0]
        conditions = "in_segment('one') AND count(purchase) == 0"
        quiet = create(runtime, tenant, name="quiet", conditions=conditions)
        settle(runtime)
        set_scores(runtime, tenant, {ids[0]: 20})
        assert keep_segments(runtime) == 1
        assert members(runtime, tenant, quiet) == {ids[0]}
        assert marks(runtime, tenant) == 0

    def test_it_follows_an_edit_of_its_parts(self, runtime, tenant, parts):
        ids, _, two, both = parts
        set_scores(runtime, tenant, dict.fromkeys(ids, 60))
        settle(runtime)
        assert members(runtime, tenant, both) == set()
        with runtime.work(tenant) as ctx:
            update_segment(ctx, two, {"conditions": "score >= 70"})
        settle(runtime)
        assert members(runtime, tenant, both) == set(ids)

    def test_names_are_kept_as_ids(self, runtime, tenant, parts):
        _, one, two, both = parts
        with runtime.work(tenant) as ctx:
            update_segment(ctx, one, {"name": "renamed"})
        with runtime.work(tenant, mode="read") as ctx:
            found = ctx.session.get(Segment, (tenant, both))
            assert found.depends_on == sorted([f"segment:{one}", f"segment:{two}"])

    def test_circles_layers_and_strangers_are_refused(self, runtime, tenant, other_tenant, parts):
        _, one, _, both = parts
        with pytest.raises(ValidationError, match="circle"), runtime.work(tenant) as ctx:
            update_segment(ctx, one, {"conditions": "in_segment('both')"})
        with pytest.raises(ConditionError, match="did you mean one"):
            create(runtime, tenant, name="x", conditions="in_segment('onee')")
        with pytest.raises(ConditionError, match="there is no segment"):
            create(runtime, other_tenant, name="x", conditions=f"in_segment({one})")
        with pytest.raises(ValidationError, match="in_segment"):
            create(runtime, tenant, name="x", kind="composite", conditions="in_segment('one') AND score > 1")
        for number in range(3):
            both = create(runtime, tenant, name=f"layer {number}", conditions=f"in_segment({both})")
        with pytest.raises(ValidationError, match="layers"):
            create(runtime, tenant, name="one too many", conditions=f"in_segment({both})")

    def test_what_others_read_is_not_deleted(self, runtime, tenant, parts):
        _, one, _, both = parts
        with pytest.raises(Conflict, match="'both'"), runtime.work(tenant) as ctx:
            delete_segment(ctx, one)
        with runtime.work(tenant) as ctx:
            assert references(ctx, one) == [{"type": "segment", "id": str(both), "name": "both"}]
            delete_segment(ctx, both)
            delete_segment(ctx, one)


class TestReferences:
    def test_a_rule_that_reads_the_clock_no_more_needs_no_timer(self, runtime, tenant, clock):
        declare(runtime, tenant)
        (lead,) = make_leads(runtime, tenant, 1)
        change_metadata(runtime, tenant, lead, seen=canonical_datetime(clock.now()))
        segment_id = create(runtime, tenant, conditions="seen > now() - 1 day")
        settle(runtime)
        assert len(timers(runtime, tenant)) == 1
        with runtime.work(tenant) as ctx:
            update_segment(ctx, segment_id, {"conditions": "score > 5"})
        settle(runtime)
        assert timers(runtime, tenant) == []
