"""Facts say the same as SQL over all leads, as SQL over a few, and in Python, on both databases."""

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select

from nexus_marketing.core.conditions import (
    Evaluation,
    compile_predicate,
    dependencies,
    next_flip,
    parse,
    segment_schema,
    to_json,
    to_text,
)
from nexus_marketing.core.errors import ConditionError
from nexus_marketing.db.conditions import Related, compile_condition
from nexus_marketing.db.models import Consent, Engagement, Lead, Score, ScoreValue
from nexus_marketing.db.queries.segments import LEAD_COLUMNS, LEADS
from nexus_marketing.db.tenancy import run
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments.records import create_segment
from tests.common.factories import make_leads, make_tenant

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("FR-P2-012", "US-012", "FR-P2-003"), pytest.mark.no_cover]

SCHEMA = segment_schema()
EVENTS = ("purchase", "log.in", "page_visited", "email_opened")
TICK = timedelta(microseconds=1)
AMOUNTS = (5, 10, 10.5, "10", None, True, [10], {"x": 1}, -0.0, 2**53 - 1)
TESTS = (
    "amount > 5",
    "amount == 10",
    "NOT amount == 10",
    "amount is missing",
    "plan == 'pro' AND amount >= 5",
    "plan contains 'r' OR channel == 'web'",
    "metadata.plan in ['pro', 'é']",
    "campaign_id is present",
)
MOMENTS = ("at < 2026-03-01", "at >= 2026-02-23T10:00:00Z")


def fact(rng: random.Random, segments: list[int]) -> str:
    """One fact, as text."""
    event = rng.choice(EVENTS) + rng.choice(("", "", " any verdict"))
    test = rng.choice(TESTS + MOMENTS)
    kind = rng.random()
    if kind < 0.55:
        where = f" where {test}" if rng.random() < 0.4 else ""
        window = rng.choice(("", " within 7 days", " within 36 hours", " between 2026-02-20 and 2026-03-01"))
        operator = rng.choice(("==", "!=", "<", "<=", ">", ">="))
        return f"count({event}{where}) {operator} {rng.choice((0, 1, 1, 2, 3))}{window}"
    if kind < 0.75:
        return f"{rng.choice(('first', 'last'))}({event}) has ({test})"
    if kind < 0.85:
        return f"in_segment({rng.choice(segments)})"
    if kind < 0.93:
        operator = rng.choice(("==", "!=", "<", "<=", ">", ">="))
        return f"score('{rng.choice(('fit', 'heat'))}') {operator} {rng.choice((-2, 0, 0.5, 5))}"
    types = rng.choice(("'email'", "'email', 'all'", "'sms'"))
    state = rng.choice(("granted", "revoked", "expired", "none"))
    return f"consent({types}) {rng.choice(('==', '!='))} '{state}'"


def rule(rng: random.Random, segments: list[int]) -> str:
    """One to three facts, and sometimes a field."""
    terms = [fact(rng, segments) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.3:
        terms.append("score >= 20")
    spelled = [f"NOT ({term})" if rng.random() < 0.3 else f"({term})" for term in terms]
    return rng.choice((" AND ", " OR ")).join(spelled)


def live(runtime: Runtime, tenant_id: int, rng: random.Random, count: int) -> list[int]:
    """Leads with events at and around every boundary, acts of consent, and segments."""
    now = runtime.clock.now()
    ids = make_leads(runtime, tenant_id, count)
    edges = [now - timedelta(days=7), now - timedelta(hours=36), datetime(2026, 2, 20, tzinfo=now.tzinfo)]
    edges += [datetime(2026, 3, 2, tzinfo=now.tzinfo), now - timedelta(days=40), now - timedelta(hours=1)]
    events: list[dict[str, Any]] = []
    acts: list[dict[str, Any]] = []
    for lead_id in ids:
        for _ in range(rng.choice((0, 1, 3, 6))):
            name = rng.choice(EVENTS)
            is_type = name in {"page_visited", "email_opened"}
            metadata = {"amount": rng.choice(AMOUNTS), "plan": rng.choice(("pro", "free", "é", None, 7))}
            events.append(
                {
                    "tenant_id": tenant_id,
                    "lead_id": lead_id,
                    "type": name if is_type else "custom",
                    "name": None if is_type else name,
                    "tracked_at": rng.choice(edges) + rng.choice((-1, 0, 1)) * TICK,
                    "verdict": rng.choice(("human", "human", "machine", "unknown")),
                    "channel": rng.choice(("web", "email", None)),
                    "campaign_id": None,
                    "attributes": {key: value for key, value in metadata.items() if rng.random() < 0.8},
                }
            )
        for _ in range(rng.choice((0, 1, 2))):
            at = now - timedelta(days=rng.choice((1, 2, 3)))
            granted = rng.random() < 0.7
            acts.append(
                {
                    "tenant_id": tenant_id,
                    "lead_id": lead_id,
                    "channel": rng.choice(("email", "sms")),
                    "type": rng.choice(("marketing", "marketing", "all")),
                    "at": at,
                    "granted_at": at if granted else None,
                    "revoked_at": None if granted else at,
                    "expires_at": rng.choice((None, now, now + TICK, now - TICK, now + timedelta(days=9)))
                    if granted
                    else None,
                    "source": "test",
                    "evidence": {},
                }
            )
    with runtime.work(tenant_id) as ctx:
        for name in ("fit", "heat"):
            score = Score(name=name, events=[], reads=[], version=1, created_at=now, updated_at=now)
            ctx.session.add(score)
            ctx.session.flush()
            values = [
                {"tenant_id": tenant_id, "score_id": score.id, "lead_id": lead_id, "value": rng.choice((-2, 0, 0.5, 5))}
                for lead_id in ids
                if rng.random() < 0.6
            ]
            more = {"version": 1, "marks": {}, "computed_at": now}
            ctx.session.execute(insert(ScoreValue), [row | more for row in values])
        ctx.session.execute(insert(Engagement), events)
        ctx.session.execute(insert(Consent), acts)
        for name in ("one", "two"):
            chosen = [str(each) for each in ids if rng.random() < 0.4]
            create_segment(ctx, {"name": name, "kind": "static", "lead_ids": chosen})
    return ids


def records(runtime: Runtime, tenant_id: int, members: dict[int, set[int]]) -> dict[int, dict[str, Any]]:
    """Every lead with all its facts, as Python evaluates it."""
    with runtime.work(tenant_id, mode="read") as ctx:
        found = {
            row.id: {"id": row.id, "score": row.score, "events": [], "consents": {}, "scores": {}}
            for row in ctx.session.scalars(select(Lead))
        }
        for event in ctx.session.scalars(select(Engagement)):
            names = ("type", "name", "verdict", "tracked_at", "id", "channel", "campaign_id")
            values = {name: getattr(event, name) for name in names} | {"metadata": event.attributes}
            found[event.lead_id]["events"].append(values)
        for lead_id, name, value in ctx.session.execute(
            select(ScoreValue.lead_id, Score.name, ScoreValue.value).where(Score.id == ScoreValue.score_id)
        ):
            found[lead_id]["scores"][name] = value
        for act in ctx.session.scalars(select(Consent).order_by(Consent.at, Consent.id)):
            newest = (act.granted_at is not None, act.expires_at)
            found[act.lead_id]["consents"][(act.channel, act.type)] = newest
        for lead_id, segments in members.items():
            found[lead_id]["segments"] = segments
    return found


@pytest.fixture
def lives(runtime: Runtime) -> tuple[Runtime, int, dict[int, dict[str, Any]], list[int]]:
    tenant_id, other = make_tenant(runtime), make_tenant(runtime, "other")
    rng = random.Random(11)
    live(runtime, other, rng, 10)
    live(runtime, tenant_id, rng, 120)
    members: dict[int, set[int]] = defaultdict(set)
    with runtime.work(tenant_id, mode="read") as ctx:
        statement = "SELECT lead_id, segment_id FROM marketing_segment_members WHERE tenant_id = :tenant_id"
        for row in run(ctx.session, statement, writes=False):
            members[row.lead_id].add(row.segment_id)
    segments = sorted(set().union(*members.values()))
    return runtime, tenant_id, records(runtime, tenant_id, members), segments


def test_three_evaluators_agree(lives) -> None:
    runtime, tenant_id, known, segments = lives
    rng = random.Random(12)
    verdicts = found = 0
    with runtime.work(tenant_id, mode="read") as ctx:
        evaluation = Evaluation(ctx.now)
        for number in range(250):
            text = rule(rng, segments)
            condition = parse(text, SCHEMA)
            assert parse(to_text(condition), SCHEMA) == parse(to_json(condition), SCHEMA) == condition
            predicate = compile_predicate(condition, SCHEMA, once=bool(number % 2))
            expected = {lead_id for lead_id, record in known.items() if predicate(record, evaluation)}
            for few in (False, True):
                test = compile_condition(
                    condition,
                    SCHEMA,
                    LEAD_COLUMNS,
                    runtime.engines.dialect,
                    evaluation,
                    related=Related(LEADS.c.id, few=few),
                )
                answer = set(
                    run(
                        ctx.session,
                        select(LEADS.c.id).where(LEADS.c.tenant_id == bindparam("tenant_id"), test),
                        writes=False,
                    ).scalars()
                )
                assert answer == expected, (text, few)
            verdicts += len(known)
            found += len(expected)
    assert 0.2 < found / verdicts < 0.8


def test_the_next_flip_is_the_first_change(lives) -> None:
    """Against looking at every moment at which anything could change, in order."""
    runtime, _, known, segments = lives
    rng, now = random.Random(13), runtime.clock.now()
    flipped = 0
    for _ in range(120):
        condition = parse(rule(rng, segments), SCHEMA)
        predicate = compile_predicate(condition, SCHEMA)
        for record in rng.sample(list(known.values()), 12):
            edges = {
                event["tracked_at"] + window
                for event in record["events"]
                for window in (timedelta(days=7), timedelta(hours=36))
            }
            edges |= {until for _, until in record["consents"].values() if until is not None}
            before = predicate(record, Evaluation(now))
            later = (each for each in sorted(edges) if each > now)
            first = next((each for each in later if predicate(record, Evaluation(each)) is not before), None)
            assert next_flip(condition, SCHEMA, record, Evaluation(now)) == first
            flipped += first is not None
    assert flipped > 20


def test_what_a_rule_reads_is_known() -> None:
    text = (
        "count(purchase where plan == 'pro') > 2 within 7 days AND NOT last(log.in) has (amount > 1) AND in_segment(7)"
    )
    read = dependencies(parse(text + " AND consent('sms') == 'revoked' AND score > 1", SCHEMA), SCHEMA)
    assert read.events == {"purchase", "log.in"}
    assert (read.segments, read.consents, read.fields, read.clock) == ({"7"}, {"sms"}, {"score"}, True)
    assert not dependencies(parse("count(purchase) > 2 AND consent('sms') == 'revoked'", SCHEMA), SCHEMA).clock
    assert dependencies(parse("consent('sms') == 'granted'", SCHEMA), SCHEMA).clock
    assert dependencies(parse("score('fit') > 5 OR NOT score('heat') == 1", SCHEMA), SCHEMA).scores == {"fit", "heat"}


def test_the_score_of_that_name_is_the_lead_s_own() -> None:
    assert parse("score('score') >= 5", SCHEMA) == parse("score >= 5", SCHEMA)
    assert parse({"score": "score", "value": 5}, SCHEMA) == parse("score >= 5", SCHEMA)
    assert parse({"score": "fit", "operator": "<", "value": -0.5}, SCHEMA) == parse("score('fit') < -0.5", SCHEMA)


@pytest.mark.parametrize(
    ("spelling", "place", "code"),
    [
        ("count(Purchase) > 1", "", "not_an_event"),
        ("count(a) > 1.5", "", "not_a_count"),
        ("count(a where at > now()) > 1", "", "clock_in_event"),
        ("count(a where count(b) > 1) > 1", "", "no_facts_here"),
        ("count(a where lead.country == 'DE') > 1", "", "unknown_field"),
        ("count(a) > 1 between 2026-02-01 and 2026-01-01", "", "empty_range"),
        ("consent('email') == 'perhaps'", "", "unknown_state"),
        ("in_segment(0)", "", "not_a_segment"),
        ("score('fit') > 'high'", "", "not_a_score"),
        ("score('') > 1", "", "not_text"),
        ({"score": "fit", "operator": "in", "value": 1}, "", "not_a_score"),
        ({"score": "fit", "value": True}, "", "not_a_score"),
        ({"score": 5, "value": 1}, "score", "not_text"),
        ({"count": "a", "operator": "in", "value": 1}, "", "not_a_count"),
        ({"count": "a", "value": 1, "within": "soon"}, "within", "not_a_duration"),
        ({"count": "a", "value": 1, "within": "1 day", "between": ["2026-01-01", "2026-01-02"]}, "", "two_windows"),
        ({"count": "a", "value": -1}, "value", "not_a_count"),
        ({"last": "a"}, "has", "required"),
        ({"last": "a", "has": {"field": "x", "operator": "?", "value": 1}}, "has.operator", "unknown_operator"),
        ({"in_segment": True}, "in_segment", "not_a_segment"),
        ({"consent": "email", "value": 3}, "value", "not_text"),
        ({"count": "a", "value": 1, "when": "x"}, "", "unknown_key"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(spelling: Any, place: str, code: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse(spelling, SCHEMA)
    problem = refused.value.problems[0]
    assert (problem.path, problem.code) == (place, code)


def test_seventeen_facts_are_too_many() -> None:
    with pytest.raises(ConditionError) as refused:
        parse(" AND ".join(["count(a) > 1"] * 17), SCHEMA)
    assert refused.value.problems[0].code == "too_many_facts"
