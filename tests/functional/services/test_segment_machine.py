"""After any life, membership that was kept change by change is what computing it from nothing gives."""

import os
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.segments import SegmentKind
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Lead, Segment, SegmentChange, SegmentMark, SegmentMember
from nexus_marketing.db.queries.upkeep import matching
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.privacy import record_consent
from nexus_marketing.services.scores.records import create_score, publish_score
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.segments.records import (
    change_members,
    create_segment,
    delete_segment,
    update_segment,
)
from nexus_marketing.services.segments.refresh import recalculate_requested, refresh
from nexus_marketing.services.segments.rules import RULED, readers_of, rule_of
from nexus_marketing.services.segments.upkeep import keep_segments
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.loops import tend_scores
from nexus_marketing.tasks.timers import TIMERS
from tests.common.factories import make_tenant
from tests.common.segments import FIELDS, declare, members, settle

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("FR-P2-012", "US-012", "BR-013", "PR-007"), pytest.mark.no_cover]

#: More of them by hand: NEXUS_SEGMENT_LIVES=200.
LIVES = int(os.environ.get("NEXUS_SEGMENT_LIVES", "12"))
RULES = [
    "score >= 50",
    "country in ['DE', 'FR'] AND NOT plan == 'free'",
    "metadata.plan is missing OR tags contains 'vip'",
    "email == 'LEAD1@example.org' ignoring case",
    "seen > now() - 2 days",
    "seen < now() - 6 hours AND score < 80",
    "NOT signup >= today() - 3 days",
    "signup <= local_today() AND country == 'DE'",
    "created_at > now() - 1 day OR updated_at > now() - 1 hours",
    "name starts_with 'A'",
    "count(purchase) >= 2 within 2 days",
    "count(purchase where amount > 5) == 0 within 30 hours",
    "last(purchase) has (amount > 5) AND score < 80",
    "count(page_visited any verdict) < 2 between 2026-02-27 and 2026-03-02",
    "consent('email') == 'granted' OR consent('email') == 'expired' AND country == 'DE'",
    "consent('email') != 'revoked' AND in_segment('segment 1')",
    "in_segment('segment 2') AND NOT in_segment('segment 3')",
    "in_segment('segment 1') OR in_segment('segment 4')",
    "score('fit') >= 10 AND NOT country == 'US'",
    "score('fit') < 15 AND (score('fit') != 5 OR in_segment('segment 1'))",
]
FIT = {
    "rules": [
        {"key": "home", "when": "country == 'DE'", "points": 10},
        {"key": "buyer", "event": "purchase", "points": 5},
    ]
}
MOMENTS = st.sampled_from([-80, -49, -48, -24, -7, -6, -5, 0, 1, 30])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "country": st.sampled_from(["DE", "FR", "US", None]),
        "name": st.sampled_from(["Ann", "Bob", None]),
        "tags": st.sampled_from([[], ["vip"], ["vip", "new"]]),
        "time_zone": st.sampled_from(["UTC", "Pacific/Auckland", "America/Los_Angeles", None]),
        "plan": st.sampled_from(["free", "pro", None]),
        "seen": MOMENTS,
        "signup": MOMENTS,
    },
)


class SegmentMachine(RuleBasedStateMachine):
    """One tenant with a handful of leads and segments."""

    def __init__(self, runtime: Runtime, tenant_id: int) -> None:
        super().__init__()
        self.runtime, self.tenant = runtime, tenant_id
        self.leads: list[int] = []
        self.segments: list[int] = []
        self.static = 0
        self.names = 0
        self.touched = True

    @initialize(texts=st.lists(st.sampled_from(RULES), min_size=3, max_size=4, unique=True))
    def begin(self, texts: list[str]) -> None:
        self.static = self.segment("static", None)
        with self.runtime.work(self.tenant) as ctx:
            score = create_score(ctx, {"name": "fit", "draft": FIT})
            publish_score(ctx, score.id)
        for text in (RULES[0], RULES[4], RULES[2], *texts):
            with suppress(ValidationError):
                self.segments.append(self.segment("dynamic", text))
        self.new_lead({"country": "DE", "plan": "pro", "seen": -47}, 60)
        self.new_lead({"country": "FR", "tags": ["vip"], "signup": -80}, 50)

    def segment(self, kind: str, conditions: str | None) -> int:
        self.names += 1
        data = {"lead_ids": []} if conditions is None else {"conditions": conditions}
        with self.runtime.work(self.tenant) as ctx:
            return create_segment(ctx, {"name": f"segment {self.names}", "kind": kind, **data}).id

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in given.items() if name not in FIELDS}
        metadata: dict[str, Any] = {}
        now = self.runtime.clock.now()
        for name in FIELDS.keys() & given.keys():
            value = given[name]
            if name in {"seen", "signup"}:
                moment = now + timedelta(hours=value)
                value = canonical_datetime(moment) if name == "seen" else moment.date().isoformat()
            if value is not None:
                metadata[name] = value
        return values | ({"metadata": metadata} if metadata else {})

    def pick(self, number: int) -> int:
        return self.leads[number % len(self.leads)]

    @rule(given=CHANGES, score=st.sampled_from([0, 49.5, 50, 90]))
    def new_lead(self, given: dict[str, Any], score: float) -> None:
        self.names += 1
        with self.runtime.work(self.tenant) as ctx:
            lead = create_lead(ctx, {"email": f"lead{self.names % 3}.{self.names}@example.org", **self.values(given)})
            self.leads.append(lead.id)
            set_score(ctx, lead.id, score, "test")
        self.touched = True

    @precondition(lambda self: self.leads)
    @rule(number=st.integers(0, 20), given=CHANGES)
    def change_lead(self, number: int, given: dict[str, Any]) -> None:
        with self.runtime.work(self.tenant) as ctx:
            update_lead(ctx, self.pick(number), self.values(given))
        self.touched = True

    @precondition(lambda self: self.leads)
    @rule(number=st.integers(0, 20), score=st.sampled_from([0, 50, 79, 90]))
    def score(self, number: int, score: float) -> None:
        with self.runtime.work(self.tenant) as ctx:
            set_score(ctx, self.pick(number), score, "test")
        self.touched = True

    @precondition(lambda self: self.leads)
    @rule()
    def count_points(self) -> None:
        """Workers count what has happened; until they do, every score is what it was."""
        while tend_scores(self.runtime):
            pass

    @rule(
        number=st.integers(0, 20),
        type_=st.sampled_from(["custom", "custom", "page_visited"]),
        hours=st.sampled_from([0, 1, 29, 30, 31, 47, 48, 80]),
        amount=st.sampled_from([1, 6, "6", None]),
    )
    def event(self, number: int, type_: str, hours: int, amount: Any) -> None:
        at = canonical_datetime(self.runtime.clock.now() - timedelta(hours=hours))
        row = {"type": type_, "lead_id": str(self.pick(number)), "tracked_at": at}
        if type_ == "custom":
            row |= {"name": "purchase", "properties": {"amount": amount}}
        with self.runtime.work(self.tenant) as ctx:
            (answer,) = record_engagements(ctx, [row])
        assert answer["status"] == "accepted"
        self.touched = True

    @precondition(lambda self: self.leads)
    @rule(number=st.integers(0, 20), granted=st.booleans(), hours=st.sampled_from([None, 1, 5.5, 24]))
    def consent(self, number: int, granted: bool, hours: float | None) -> None:
        until = self.runtime.clock.now() + timedelta(hours=hours) if hours and granted else None
        with self.runtime.work(self.tenant) as ctx:
            record_consent(ctx, self.pick(number), granted=granted, source="test", expires_at=until)
        self.touched = True

    @precondition(lambda self: len(self.leads) > 1)
    @rule(number=st.integers(0, 20))
    def merge(self, number: int) -> None:
        winner = self.pick(number)
        self.leads.remove(winner)
        loser = self.pick(number * 7)
        self.leads.append(winner)
        self.leads.remove(loser)
        with self.runtime.work(self.tenant) as ctx:
            merge_leads(ctx, winner, loser)
        self.touched = True

    @precondition(lambda self: len(self.leads) > 1)
    @rule(number=st.integers(0, 20))
    def erase(self, number: int) -> None:
        gone = self.pick(number)
        self.leads.remove(gone)
        with self.runtime.work(self.tenant) as ctx:
            erase_lead(ctx, gone)
        self.touched = True

    @rule(hours=st.sampled_from([0.02, 1, 1, 5.5, 24, 49]), is_quiet=st.booleans())
    def wait(self, hours: float, is_quiet: bool) -> None:
        """Time passes; in quiet times the workers have nothing else to do before, and are looked at after."""
        if is_quiet:
            settle(self.runtime)
        self.runtime.clock.advance(hours=hours)  # type: ignore[attr-defined]
        self.touched = True
        if is_quiet:
            self.all_is_done()

    @rule(text=st.sampled_from(RULES), kind=st.sampled_from(["dynamic", "dynamic", "snapshot", "composite"]))
    def new_segment(self, text: str, kind: str) -> None:
        # Refused: a segment that is not there, too many layers, or what is no composite.
        with suppress(ValidationError):
            self.segments.append(self.segment(kind, text))
        self.touched = True

    @precondition(lambda self: self.segments)
    @rule(number=st.integers(0, 9), text=st.sampled_from(RULES))
    def edit_rule(self, number: int, text: str) -> None:
        segment_id = self.segments[number % len(self.segments)]
        try:
            with self.runtime.work(self.tenant) as ctx:
                update_segment(ctx, segment_id, {"conditions": text})
        except ValidationError:  # a circle, or what is no composite
            return
        except Conflict:
            with self.runtime.work(self.tenant, mode="read") as ctx:
                assert ctx.session.get(Segment, (self.tenant, segment_id)).kind == SegmentKind.SNAPSHOT
        self.touched = True

    @precondition(lambda self: self.leads)
    @rule(number=st.integers(0, 20), add=st.booleans())
    def by_hand(self, number: int, add: bool) -> None:
        lead_ids = [self.pick(number)]
        with self.runtime.work(self.tenant) as ctx:
            change_members(ctx, self.static, add=lead_ids if add else (), remove=() if add else lead_ids)
        self.touched = True

    @precondition(lambda self: len(self.segments) > 4)
    @rule(number=st.integers(0, 9))
    def delete(self, number: int) -> None:
        segment_id = self.segments[number % len(self.segments)]
        with self.runtime.work(self.tenant) as ctx:
            if readers_of(ctx, segment_id):
                return
            delete_segment(ctx, segment_id)
        self.segments.remove(segment_id)
        self.touched = True

    @rule(step=st.sampled_from([keep_segments, recalculate_requested, lambda runtime: fire_due(runtime, TIMERS)]))
    def work_a_little(self, step: Any) -> None:
        step(self.runtime)

    @precondition(lambda self: self.segments)
    @rule(number=st.integers(0, 9))
    def refresh_one(self, number: int) -> None:
        refresh(self.runtime, self.tenant, self.segments[number % len(self.segments)])

    def teardown(self) -> None:
        self.all_is_done()

    @precondition(lambda self: self.touched)
    @rule()
    def all_is_done(self) -> None:
        settle(self.runtime)
        self.touched = False
        with self.runtime.work(self.tenant, mode="read") as ctx:
            for segment in ctx.session.scalars(select(Segment)):
                present = members(self.runtime, self.tenant, segment.id)
                assert segment.lead_count == len(present), segment.name
                assert (segment.error, segment.pending, segment.requested_at) == (None, None, None)
                if segment.kind in RULED:
                    found = matching(ctx.session, rule_of(ctx, segment).test(ctx), self.leads)
                    assert present == found, segment.conditions
            assert ctx.session.scalar(select(func.count()).select_from(SegmentMark)) == 0

    @invariant()
    def everybody_comes_and_goes_in_turn(self) -> None:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            last: dict[tuple[int, int], str] = {}
            for row in ctx.session.scalars(select(SegmentChange).order_by(SegmentChange.id)):
                assert last.get((row.segment_id, row.lead_id)) != row.change
                last[(row.segment_id, row.lead_id)] = row.change
            present = defaultdict(set)
            for row in ctx.session.scalars(select(SegmentMember)):
                present[row.segment_id].add(row.lead_id)
            for (segment_id, lead_id), change in last.items():
                if segment_id in {*self.segments, self.static}:
                    assert (lead_id in present[segment_id]) is (change == "entered")
            gone = set(ctx.session.scalars(select(Lead.id).where(Lead.gone_at.is_not(None))))
            assert not gone & set().union(*present.values())


def test_any_life_ends_as_computed_from_nothing(runtime: Runtime) -> None:
    numbers = iter(range(10_000))

    def machine() -> SegmentMachine:
        tenant_id = make_tenant(runtime, f"machine-{next(numbers)}")
        declare(runtime, tenant_id)
        return SegmentMachine(runtime, tenant_id)

    run_state_machine_as_test(machine, settings=settings(max_examples=LIVES, stateful_step_count=30))
