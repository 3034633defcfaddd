"""S05: generated conditions, valid and mutated, never crash, never linger, never read an attribute."""

import os
import random
import time
from itertools import islice

import pytest

from nexus_marketing.core.conditions import compile_predicate, parse, parse_json, parse_text, to_json, to_text
from nexus_marketing.core.errors import ConditionError
from tests.common.conditions import EVALUATION, SCHEMA, TEXTS, Conditions, hostile_leads

pytestmark = pytest.mark.req("SR-002", "FR-P2-003")
COUNT = int(os.environ.get("NEXUS_FUZZ_CONDITIONS", "100000"))
FRAGMENTS = [
    "AND", "or", "NOT", "(", ")", "[", "]", ",", "==", "!=", "<", ">=", "in", "not in", "contains", "between", "matches", "now()", "today()",
    "- 30 days", "+", "*", "/", "'", '"', "`", "name", "score", "metadata.x", "metadata.", "__class__", "lead.__init__.__globals__", "1", "1e999",
    "9" * 40, "NaN", "-", "2026-02-30", "2026-03-29", "T24:00Z", "null", "true", "is missing", "ignoring case", ";", "--", "/*", "\x00", "١", "😀",
    "eval('1')", "{", "}", "$", "%s", "\\", "\n",
]  # fmt: skip
VALUES = [
    None, True, 1, -1, 2**53, 1e400, float("nan"), "", "x" * 2_000, [], [1] * 2_000, {}, {"expression": "("}, {"$gt": 1}, [[1]], b"x", "2026-02-30",
    {"expression": "now() - 1 day"}, {"field": "score"}, object(),
]  # fmt: skip
slowest = {"evaluation": 0.0}


def judge(condition, leads):
    predicate = compile_predicate(condition, SCHEMA, once=True)
    for lead in leads:
        start = time.thread_time()
        answer = predicate(lead, EVALUATION)
        slowest["evaluation"] = max(slowest["evaluation"], time.thread_time() - start)
        assert answer is True or answer is False


def attempt(spelling, leads):
    try:
        condition = parse(spelling, SCHEMA)
    except ConditionError as error:
        refusal = error
    else:
        judge(condition, leads)
        return
    assert refusal.problems
    assert all(problem.message and problem.code for problem in refusal.problems)


def mutated_text(rng, text):
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(FRAGMENTS) + text[at + rng.randrange(6) :]
    return text


def mutated_json(rng, document):
    if isinstance(document, list):
        return [mutated_json(rng, entry) for entry in document] * rng.choice([1, 1, 1, 2])
    if not isinstance(document, dict) or rng.random() < 0.1:
        return rng.choice(VALUES) if rng.random() < 0.3 else document
    mutated = {key: mutated_json(rng, entry) for key, entry in document.items()}
    if rng.random() < 0.1:
        mutated[rng.choice(["field", "operator", "value", "conditions", "logic", "custom", "x", 3])] = rng.choice(
            VALUES
        )
    return mutated


def deep(depth):
    document = {"field": "score", "operator": ">", "value": 1}
    for _ in range(depth):
        document = {"logic": "NOT", "conditions": [document]}
    return document


def test_generated_conditions_neither_crash_nor_linger():
    rng = random.Random(20260105)
    leads = hostile_leads(200, rng)
    stream = Conditions(rng)
    for number, tree in enumerate(islice(stream, COUNT // 4)):
        some = rng.sample(leads, 2)
        judge(tree, some)
        attempt(mutated_json(rng, to_json(tree)), some)
        attempt(mutated_text(rng, to_text(tree)[:300]), some)
        attempt("".join(rng.choices(FRAGMENTS, k=rng.randrange(1, 10))) if number % 2 else rng.choice(TEXTS)[:99], some)
    assert slowest["evaluation"] < 0.05


@pytest.mark.parametrize("depth", [15, 16, 1_000, 10_000])
def test_depth_is_a_refusal(depth):
    if depth == 15:
        assert parse_json(deep(depth), SCHEMA)
        return
    with pytest.raises(ConditionError) as refusal:
        parse_json(deep(depth), SCHEMA)
    assert refusal.value.problems[0].code == "too_deep"


def test_the_largest_allowed_condition_is_evaluated_within_fifty_milliseconds():
    wide = " AND ".join(f"NOT metadata.x in [{','.join(str(n) for n in range(k, k + 14))}]" for k in range(120))
    patterns = " OR ".join(["name matches '^(.{0,30}){20}$'"] * 40)
    for text in (wide, patterns):
        condition = parse_text(text, SCHEMA)
        for once in (True, False):
            predicate = compile_predicate(condition, SCHEMA, once=once)
            predicate({"name": "warm", "metadata": {}}, EVALUATION)
            for record in ({"name": "a" * 200 + "!", "metadata": {"x": -1}}, {"metadata": {"x": []}}):
                start = time.thread_time()
                predicate(record, EVALUATION)
                assert time.thread_time() - start < 0.05


def test_ten_megabytes_are_refused_at_once():
    huge = [
        "a" * 10_000_000,
        {"field": "name", "operator": "in", "value": ["x"] * 1_000_000},
        {"conditions": [{}] * 1_000_000},
    ]
    took = []
    for _ in range(5):  # what else the machine does only adds to a time, so the least one is the judge's own
        start = time.thread_time()
        for spelling in huge:
            with pytest.raises(ConditionError):
                parse(spelling, SCHEMA)
        took.append(time.thread_time() - start)
    assert min(took) < 0.05
