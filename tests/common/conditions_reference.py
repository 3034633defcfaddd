"""The executable tables of docs/reference/conditions.md."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nexus_marketing.core.conditions import Evaluation, compile_predicate, parse_text
from tests.common.conditions import SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "conditions.md"
EVALUATION = Evaluation(datetime(2026, 3, 29, 12, tzinfo=UTC))


@dataclass(frozen=True)
class Case:
    """One cell: a condition, a record and what the page says."""

    condition: str
    record: dict[str, Any]
    answer: bool

    def __str__(self) -> str:
        """The cell in words."""
        return f"{self.condition} on {json.dumps(self.record['metadata'])}"


def cells(line: str) -> list[str]:
    """The cells of one table row."""
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def cases() -> list[Case]:
    """Every cell of every table whose corner says ``field is``."""
    found: list[Case] = []
    key, values = "", list[str]()
    for line in PAGE.read_text("utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        first, *rest = cells(line)
        if first.endswith("` is"):
            key, values = first.removesuffix("` is").removeprefix("metadata."), rest
        elif values and len(rest) == len(values) and set(rest) <= {"yes", "no"}:
            found.extend(
                Case(first, {"metadata": {} if value == "missing" else {key: json.loads(value)}}, answer == "yes")
                for value, answer in zip(values, rest, strict=True)
            )
    return found


CASES = cases()


def verdict(case: Case) -> bool:
    """What Python says, by both compilers."""
    tree = parse_text(case.condition, SCHEMA)
    answers = {compile_predicate(tree, SCHEMA, once=once)(case.record, EVALUATION) for once in (True, False)}
    assert len(answers) == 1
    return answers.pop()
