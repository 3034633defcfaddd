import random
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from nexus_marketing.core.conditions import (
    CustomOperator,
    Dependencies,
    Evaluation,
    clock_leaves,
    compile_predicate,
    dependencies,
    next_flip,
    parse_text,
    to_text,
)
from tests.common.conditions import NOW, SCHEMA, Conditions, hostile_leads

pytestmark = pytest.mark.req("FR-P2-012", "FR-P2-003")
SECOND = timedelta(seconds=1)


def flip(text, record, now=NOW, zone="Europe/Berlin"):
    return next_flip(parse_text(text, SCHEMA), SCHEMA, record, Evaluation(now, zone))


def test_dependencies_are_canonical_names_events_and_the_clock():
    tree = parse_text(
        "lead_score > 1 AND (born < local_today() OR NOT plan == 'x') AND email == 'A' ignoring case", SCHEMA
    )
    assert dependencies(tree, SCHEMA) == Dependencies(
        frozenset({"score", "born", "time_zone", "plan", "email_norm"}), clock=True
    )
    assert dependencies(parse_text("score > 1", SCHEMA), SCHEMA) == Dependencies(frozenset({"score"}))


def test_a_plugin_declares_its_dependencies():
    declared = Dependencies(events=frozenset({"opened"}), segments=frozenset({"vips"}), clock=True)
    schema = SCHEMA.extended(operators=[CustomOperator("opened", lambda *_: True, depends_on=declared)])
    tree = parse_text("opened() AND score > 1", schema)
    named = Dependencies(frozenset({"score"}), conditions=frozenset({"opened@1"}))
    assert dependencies(tree, schema) == declared | named
    assert next_flip(tree, schema, {"score": 5}, Evaluation(NOW)) == datetime(2026, 3, 30, tzinfo=UTC)


def test_clock_leaves_are_those_whose_boundary_moves():
    tree = parse_text("score > 1 AND NOT (created_at before now() - 1 day OR born == today())", SCHEMA)
    assert [to_text(leaf) for leaf in clock_leaves(tree, SCHEMA)] == ["created_at < now() - 1 days", "born == today()"]


@pytest.mark.parametrize(
    ("text", "record", "moment"),
    [
        ("created_at before now() - 1 day", {"created_at": NOW}, NOW + timedelta(days=1, microseconds=1)),
        ("created_at <= now() - 1 day", {"created_at": NOW}, NOW + timedelta(days=1)),
        ("created_at before now()", {"created_at": NOW - SECOND}, None),
        ("created_at before now()", {}, None),
        ("score > 1", {"score": 1}, None),
        ("born == today()", {"born": "2026-03-29"}, datetime(2026, 3, 29, 22, tzinfo=UTC)),
        ("born == today()", {"born": "2026-03-30"}, datetime(2026, 3, 29, 22, tzinfo=UTC)),
        ("born == local_today()", {"born": "2026-03-29", "time_zone": "Asia/Kolkata"}, datetime(2026, 3, 29, 18, 30, tzinfo=UTC)),
        ("created_at >= today()", {"created_at": NOW}, datetime(2026, 3, 29, 22, tzinfo=UTC)),
        ("now() between seen and created_at", {"metadata": {"seen": "2026-03-29T00:29:59.999999Z"}, "created_at": NOW}, NOW + timedelta(microseconds=1)),
        ("born > today() AND score > 1", {"born": "2026-05-01", "score": 0}, None),
    ],
)  # fmt: skip
def test_the_next_flip_is_exact(text, record, moment):
    assert flip(text, record) == moment


def test_no_flip_is_missed():
    """Stepping hour by hour must never find a change before the instant that was foretold."""
    rng = random.Random(11)
    leads = hostile_leads(120, rng)
    trees = [tree for tree in islice(Conditions(rng), 1_500) if dependencies(tree, SCHEMA).clock][:150]
    assert len(trees) == 150
    for tree in trees:
        predicate = compile_predicate(tree, SCHEMA)
        for lead in rng.sample(leads, 4):
            foretold = next_flip(tree, SCHEMA, lead, Evaluation(NOW, "Europe/Berlin"))
            now = predicate(lead, Evaluation(NOW, "Europe/Berlin"))
            for hours in range(1, 80):
                moment = NOW + timedelta(hours=hours)
                if predicate(lead, Evaluation(moment, "Europe/Berlin")) is not now:
                    assert foretold is not None, to_text(tree)
                    assert foretold <= moment, to_text(tree)
                    break
