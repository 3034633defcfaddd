"""A plugin's word in the language of conditions, wherever it is spoken: the same on both databases, and nothing lost without it."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import ConditionError, ConditionUnavailable, ValidationError
from nexus_marketing.db.models import JourneyRun, Lead, Score, Segment, TakenAction
from nexus_marketing.plugin import Capability
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.journeys.entries import enter_leads
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.plugins.conditions import TRY_AGAIN
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from nexus_marketing.services.scores.records import create_score, publish_score, update_score
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.segments.estimates import estimate_size
from nexus_marketing.services.segments.records import update_segment
from nexus_marketing.services.segments.refresh import refresh
from nexus_marketing.services.segments.upkeep import keep_segments
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.loops import tend_scores
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.common.plugins import Deed, Multiple, Warm, manifest, with_plugins, words_plugin
from tests.common.sandboxes import needs_namespaces
from tests.common.segments import changes, create, members, settle

pytestmark = pytest.mark.req("FR-EXT-002", "FR-P2-003", "US-018", "BR-013")

WORDS = "nexus-words"
#: What is no more SQL than the tests that run on both.
once = pytest.mark.parametrize("dialect", ["sqlite"])


@dataclass
class Place:
    """A process with the plugin, a tenant that has it on, and ten leads with scores from 1 to 10."""

    runtime: Runtime
    tenant: int
    word: Multiple
    leads: list[int]
    database_time: DatabaseTime

    def without(self) -> Runtime:
        """The process as it is after the plugin was uninstalled."""
        return with_plugins(self.runtime)

    def switch(self, *, on: bool) -> None:
        with self.runtime.work(self.tenant) as ctx:
            _ = switch_on(ctx, WORDS) if on else switch_off(ctx, WORDS)

    def scores(self, **scores: float) -> None:
        with self.runtime.work(self.tenant) as ctx:
            for number, score in scores.items():
                set_score(ctx, self.leads[int(number[1:]) - 1], score, "test")

    def who(self, segment_id: int) -> list[int]:
        """The numbers of the members."""
        return sorted(self.leads.index(each) + 1 for each in members(self.runtime, self.tenant, segment_id))

    def error(self, segment_id: int) -> str | None:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return ctx.session.get_one(Segment, (self.tenant, segment_id)).error

    def go_on(self, runtime: Runtime | None = None, **delta: float) -> None:
        self.runtime.clock.advance(**delta)  # type: ignore[attr-defined]
        self.database_time.advance(**delta)
        settle(runtime or self.runtime)


@pytest.fixture
def place(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Place:
    word = Multiple()
    process = with_plugins(runtime, words_plugin(word, Warm))
    found = Place(process, tenant, word, make_leads(runtime, tenant, 10), database_time)
    found.switch(on=True)
    return found


RULES = {
    "multiple(3)": [3, 6, 9],
    "NOT multiple(3) AND score > 5": [7, 8, 10],
    "multiple(2) OR score == 7": [2, 4, 6, 7, 8, 10],
    "score >= 4 AND (multiple(4) OR count(order_placed) > 0)": [4, 5, 8],
    "count(order_placed) > 0 AND multiple(2)": [],
    "NOT (multiple(2) OR score > 4) OR warm()": [1, 3],
}


def test_a_rule_has_whom_plugin_and_database_say_together(place: Place) -> None:
    with place.runtime.work(place.tenant) as ctx:
        row = {"type": "custom", "name": "order_placed", "lead_id": str(place.leads[4])}
        assert record_engagements(ctx, [row])[0]["status"] == "accepted"
    settle(place.runtime)
    segments = {rule: create(place.runtime, place.tenant, name=rule, conditions=rule) for rule in RULES}
    settle(place.runtime)
    assert {rule: place.who(segment) for rule, segment in segments.items()} == RULES
    with place.runtime.work(place.tenant, mode="read") as ctx:
        assert {rule: estimate_size(ctx, rule)[0].count for rule in RULES} == {
            rule: len(who) for rule, who in RULES.items()
        }


def test_a_segment_is_kept_true_change_by_change(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_marketing.services.segments.candidates.AT_ONCE", 4)  # pieces of a large tenant
    segment = create(place.runtime, place.tenant, conditions="country == 'US' AND multiple(3)")
    other = create(place.runtime, place.tenant, name="other", conditions=f"in_segment({segment}) AND score > 6")
    settle(place.runtime)
    place.word.asked = 0
    place.scores(n1=33, n3=4)
    settle(place.runtime)
    assert place.who(segment) == [1, 6, 9]
    assert place.who(other) == [1, 9]
    assert place.word.asked == 2
    assert [change[1:] for change in changes(place.runtime, place.tenant, segment)] == [
        ("entered", "change"),
        ("left", "change"),
    ]
    assert refresh(place.runtime, place.tenant, segment) == 3


def test_what_changes_while_a_plugin_is_asked_is_looked_at_afterwards(place: Place) -> None:
    meddled = []

    class Meddling(Multiple):
        def evaluate(self, context: Any) -> bool:
            if not meddled:
                meddled.append(True)
                place.scores(n1=33, n3=4)  # after all were read, and upkeep comes before they are written
                keep_segments(runtime)
            return Multiple.evaluate(self, context)

    runtime = with_plugins(place.runtime, words_plugin(Meddling()))
    segment = create(runtime, place.tenant, conditions="multiple(3)")
    assert refresh(runtime, place.tenant, segment) == 3
    assert place.who(segment) == [3, 6, 9]
    settle(runtime)
    assert place.who(segment) == [1, 6, 9]


@once
def test_nobody_names_what_the_tenant_has_not_on(place: Place, other_tenant: int) -> None:
    with pytest.raises(
        ConditionError, match=f"belongs to the plugin {WORDS}, which is off: nexus-marketing plugins en"
    ):
        create(place.runtime, other_tenant, conditions="multiple(2)")
    with pytest.raises(ConditionError, match="multiple"):
        create(place.runtime, place.tenant, conditions="multipel(2)")
    with pytest.raises(ConditionError, match="takes of: number: 0 given"):
        create(place.runtime, place.tenant, conditions="multiple()")


@once
@pytest.mark.parametrize("gone", ["off", "uninstalled", "broken"])
def test_without_its_plugin_a_segment_stays_as_it_is(place: Place, gone: str) -> None:
    segment = create(place.runtime, place.tenant, conditions="multiple(3)")
    settle(place.runtime)
    runtime = place.without() if gone == "uninstalled" else place.runtime
    place.word.is_broken = gone == "broken"
    if gone == "off":
        place.switch(on=False)
    place.scores(n1=33, n3=4)
    settle(runtime)
    assert place.who(segment) == [3, 6, 9]
    assert "multiple()" in str(place.error(segment))
    with pytest.raises(ConditionUnavailable):  # a send to it is paused with this
        refresh(runtime, place.tenant, segment)
    place.word.is_broken = False
    place.runtime.plugins.host.circuit(WORDS).succeeded()  # it was left alone for long enough
    if gone == "off":
        place.switch(on=True)
        settle(place.runtime)
    else:
        place.go_on(seconds=TRY_AGAIN.total_seconds() + 31)
    assert place.error(segment) is None
    assert place.who(segment) == [1, 6, 9]


@once
def test_another_version_of_a_condition_looks_at_everybody_again(place: Place) -> None:
    segment = create(place.runtime, place.tenant, conditions="multiple(3)")
    settle(place.runtime)

    class Fives(Multiple):
        def evaluate(self, context: Any) -> bool:
            return Multiple.evaluate(self, replace(context, arguments={"of": 5}))

    newer = with_plugins(place.runtime, words_plugin(Fives(version=2)))
    place.go_on(newer, days=1)
    assert place.who(segment) == [5, 10]


@once
def test_one_that_reads_the_clock_is_asked_again_at_midnight(place: Place) -> None:
    class Today(Multiple):
        def evaluate(self, context: Any) -> bool:
            return context.values.get("score") == context.today.day % 10

    runtime = with_plugins(place.runtime, words_plugin(Today(reads_clock=True, parameters=())))
    day = runtime.clock.now().day % 10
    segment = create(runtime, place.tenant, conditions="multiple()")
    settle(runtime)
    before = place.who(segment)
    place.go_on(runtime, days=1)
    assert before == [day or 10][: len(before)]
    assert place.who(segment) == [(runtime.clock.now().day % 10)]


@once
def test_journeys_branch_by_it_and_wait_for_it(place: Place) -> None:
    draft = {
        "entry": {"triggers": [{"on": "api"}], "filter": "NOT multiple(5)"},
        "nodes": {
            "ask": {"type": "branch", "branches": [{"when": "multiple(2)", "to": "even"}], "else": "odd"},
            "even": {"type": "exit", "reason": "even"},
            "odd": {"type": "exit", "reason": "odd"},
        },
    }
    with place.runtime.work(place.tenant) as ctx:
        journey = create_journey(ctx, {"name": "j", "draft": draft}).id
        publish_journey(ctx, journey)
    with place.runtime.work(place.tenant) as ctx:
        answers = [each.outcome for each in enter_leads(ctx, journey, place.leads[:5])]
    assert answers[4] != answers[0]
    without = place.without()
    settle(without)
    place.go_on(without, days=3)  # longer than anything else is tried
    settle(place.runtime)
    place.go_on(seconds=TRY_AGAIN.total_seconds() + 31)
    with place.runtime.work(place.tenant, mode="read") as ctx:
        ends = Counter(ctx.session.scalars(select(JourneyRun.reason)))
    assert ends == Counter(even=2, odd=2)
    place.switch(on=False)
    with place.runtime.work(place.tenant) as ctx:
        row = create_journey(ctx, {"name": "k", "draft": draft})
        with pytest.raises(ValidationError) as caught:
            publish_journey(ctx, row.id)
    assert {each.path for each in caught.value.problems} == {"draft.entry.filter", "draft.nodes.ask.branches.0.when"}
    assert {each.code for each in caught.value.problems} == {"plugin_off"}


@once
def test_scores_count_it_and_keep_their_points_without_it(place: Place) -> None:
    def shown() -> list[float]:
        for _ in range(100):
            if not tend_scores(runtime) + fire_due(runtime, TIMERS):
                break
        with place.runtime.work(place.tenant, mode="read") as ctx:
            found = select(Lead.id, Lead.score).where(Lead.id.in_(place.leads[:2])).order_by(Lead.id)
            return [row.score for row in ctx.session.execute(found)]

    class ByCountry(Multiple):
        def evaluate(self, context: Any) -> bool:
            return context.values.get("country") == "US"

    word = ByCountry(name="ours", parameters=(), reads=frozenset({"country"}))
    runtime = with_plugins(place.runtime, words_plugin(word))
    with runtime.work(place.tenant) as ctx:
        score = ctx.session.scalars(select(Score).where(Score.name == "score")).one_or_none()
        score = score or create_score(ctx, {"name": "score"})
        update_score(ctx, score.id, {"draft": {"rules": [{"key": "ours", "when": "ours()", "points": 7}]}})
        publish_score(ctx, score.id)
    with_points = shown()
    runtime = place.without()
    with runtime.work(place.tenant) as ctx:
        ctx.session.get_one(Lead, (place.tenant, place.leads[0])).country = "DE"
    assert shown() == with_points
    assert min(with_points) >= 7


@once
def test_triggers_of_campaigns_ask_it(place: Place) -> None:
    deed = Deed("send_to_sales_team")

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("nexus-both", Capability.CONDITION, Capability.ACTION))
        config.add_marketing_condition(place.word)
        config.add_marketing_action(deed)

    runtime = with_plugins(place.runtime, include)
    trigger = {"event": "visited", "condition": "multiple(2)", "action": "send_to_sales_team"}
    document = {"id": "d", "channels": [], "automation": {"triggers": [trigger]}}
    with runtime.work(place.tenant) as ctx:
        with pytest.raises(ValidationError, match=r"belongs to the plugin nexus-both, which is off"):
            create_definition(ctx, {"schema": document})
        switch_on(ctx, "nexus-both")
    with runtime.work(place.tenant) as ctx:
        made = create_definition(ctx, {"schema": document})
        publish_definition(ctx, made.id)
        move_campaign(ctx, create_campaign(ctx, {"definition_id": str(made.id)}).id, "launch")
    with runtime.work(place.tenant) as ctx:
        for lead in place.leads[:4]:
            record_engagements(ctx, [{"type": "custom", "name": "visited", "lead_id": str(lead)}])
    place.go_on(runtime, seconds=1)
    with runtime.work(place.tenant, mode="read") as ctx:
        assert set(ctx.session.scalars(select(TakenAction.lead_id))) == {place.leads[1], place.leads[3]}


@once
def test_what_the_database_can_answer_needs_its_plugin_too(place: Place) -> None:
    segment = create(place.runtime, place.tenant, conditions="warm() OR score > 8")
    settle(place.runtime)
    assert place.who(segment) == [9, 10]
    place.scores(n1=50)
    settle(place.runtime)
    assert place.who(segment) == [1, 9, 10]
    with place.runtime.work(place.tenant) as ctx:
        update_segment(ctx, segment, {"conditions": "warm()"})
    settle(place.runtime)
    assert place.who(segment) == [1]
    place.switch(on=False)
    settle(place.runtime)
    assert place.who(segment) == [1]
    assert place.error(segment) is not None


@pytest.mark.parametrize("untrusted", [[], pytest.param(["nexus_example"], marks=needs_namespaces)], ids=["in", "out"])
def test_the_example_is_asked_on_either_side_of_the_sandbox(
    runtime: Runtime, tenant: int, untrusted: list[str]
) -> None:
    if untrusted and runtime.engines.dialect != "sqlite":
        pytest.skip("once is enough")
    process = with_plugins(runtime, "nexus_example", settings={"nexus.plugins.untrusted": " ".join(untrusted)})
    try:
        with process.work(tenant) as ctx:
            switch_on(ctx, "nexus-example")
        now = process.clock.now()
        days = [now.replace(year=now.year - 1) + timedelta(days=number) for number in (0, 7, 8)]
        leads = [make_leads(process, tenant, 1, first=place, created_at=day)[0] for place, day in enumerate(days, 1)]
        abroad = make_leads(process, tenant, 60, first=10, created_at=days[0], country="DE")
        segment = create(process, tenant, conditions="country == 'US' AND anniversary(7)")
        everywhere = create(process, tenant, name="all", conditions="anniversary()")
        settle(process)
        assert members(process, tenant, segment) == set(leads[:2])
        assert members(process, tenant, everywhere) == {leads[0], *abroad}
    finally:
        process.plugins.close()
