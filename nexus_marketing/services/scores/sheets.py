"""The scores that count, with their rules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from nexus_marketing.core.conditions import Vocabulary
from nexus_marketing.core.scoring import (
    DEFAULT_SCORE,
    RuleSet,
    Scorer,
    parse_rule_set,
)
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.runtime import Context
from nexus_marketing.services.plugins.conditions import conditions_of

_KEPT: Final = 500


@dataclass(frozen=True, slots=True)
class Sheet:
    """A score with the version of its rules that is in force; number 0 is the default score without rules."""

    score_id: int
    name: str
    number: int
    scorer: Scorer
    published_at: datetime | None = None
    fire_on_recompute: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is the lead's own column."""
        return self.name == DEFAULT_SCORE

    def rule_keys(self) -> list[dict[str, Any]]:
        """What contributions of its rules are found by."""
        return [
            {"score_id": self.score_id, "rule": rule.key, "version": rule.since} for rule in self.scorer.rules.rules
        ]


def published_sheets(ctx: Context, score_id: int | None = None) -> list[Sheet]:
    """The scores with rules in force, in the order of their ids."""
    found = sheets_of(ctx, answers(ctx.session, queries.rules_in_force())[0])
    return [sheet for sheet in found if score_id in (None, sheet.score_id)]


def sheets_of(ctx: Context, rows: Iterable[Any]) -> list[Sheet]:
    """The scores that these rows of rules in force are of."""
    conditions = conditions_of(ctx, is_saved=True)
    return [
        Sheet(
            row.id,
            row.name,
            row.number,
            scorer_of(row.rules, conditions),
            row.published_at,
            bool(row.fire_on_recompute),
        )
        for row in rows
    ]


def scorer_of(rules: Mapping[str, Any], conditions: Vocabulary) -> Scorer:
    """A stored rule set made ready; versions never change, so that it is done once for the same conditions of plugins."""
    return _understood(orjson.dumps(rules), conditions)


@lru_cache(maxsize=_KEPT)
def _understood(rules: bytes, conditions: Vocabulary) -> Scorer:
    return Scorer(parse_rule_set(orjson.loads(rules), conditions=conditions))


def unruled(score_id: int) -> Sheet:
    """The default score of a tenant that has no rules for it."""
    return Sheet(score_id, DEFAULT_SCORE, 0, Scorer(RuleSet()))
