"""The Python evaluator against the lambda that a competent engineer would write by hand."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.conditions import Evaluation, Field, FieldType, compile_predicate, lead_schema, parse_text

CONDITION = (
    "score > 50 AND industry in ['tech', 'finance', 'health'] AND metadata.plan == 'pro' "
    "AND NOT country == 'US' AND age between 25 and 60"
)
SCHEMA = lead_schema().extended([Field("industry", FieldType.TEXT), Field("age", FieldType.NUMBER)])
EVALUATION = Evaluation(datetime(2026, 3, 29, 12, tzinfo=UTC))
INDUSTRIES = frozenset({"tech", "finance", "health"})
REPETITIONS, TARGET = 11, 2.5


def by_hand() -> Callable[[dict[str, Any]], bool]:
    """The reference: it knows that every field is there and of the right type; ours does not."""
    return lambda lead: (
        lead["score"] > 50
        and lead["industry"] in INDUSTRIES
        and lead["metadata"].get("plan") == "pro"
        and not lead["country"] == "US"  # noqa: SIM201 - as the condition says it
        and 25 <= lead["age"] <= 60
    )


def leads(count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Leads of which about 3 % match, as they come from the table."""
    return [
        {
            "score": rng.random() * 100,
            "industry": rng.choice(["tech", "finance", "health", "retail", "media", "other"]),
            "country": rng.choice(["US", "DE", "FR"]),
            "age": rng.randint(10, 80),
            "metadata": {"plan": rng.choice(["pro", "free", "basic"])},
        }
        for _ in range(count)
    ]


def conditions_python(options: Options) -> Result:
    """One evaluation of the 5-term condition of PERFORMANCE.md section G, ours and by hand."""
    records = leads(options.size(100_000, 20_000), options.rng())
    matching = [{"score": 60.5, "industry": "tech", "country": "DE", "age": 30, "metadata": {"plan": "pro"}}] * len(
        records
    )
    condition = parse_text(CONDITION, SCHEMA)
    quick, closures, hand = (
        compile_predicate(condition, SCHEMA),
        compile_predicate(condition, SCHEMA, once=True),
        by_hand(),
    )
    assert [quick(lead, EVALUATION) for lead in records] == [hand(lead) for lead in records]
    repetitions = options.size(REPETITIONS, 3)
    mixed = paired(_ours(quick, records), _reference(hand, records), repetitions)
    true = paired(_ours(quick, matching), _reference(hand, matching), repetitions)
    plain = paired(_ours(closures, records), _reference(hand, records), 3)
    notes = f"mixed leads, 5 terms; all true {true.ratio:.2f}x; closures alone {plain.ratio:.2f}x"
    return mixed.result("conditions.python", TARGET, per=len(records), unit="us", notes=notes)


def _ours(predicate: Callable[..., bool], records: list[dict[str, Any]]) -> Callable[[], None]:
    def run() -> None:
        for record in records:
            predicate(record, EVALUATION)

    return run


def _reference(predicate: Callable[..., bool], records: list[dict[str, Any]]) -> Callable[[], None]:
    def run() -> None:
        for record in records:
            predicate(record)

    return run


BENCHMARKS = {"conditions.python": conditions_python}
