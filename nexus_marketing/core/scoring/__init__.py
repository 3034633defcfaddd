"""Scores of leads: rules, points that age, caps, thresholds; pure functions of a snapshot (BEHAVIOUR.md 5.4)."""

from nexus_marketing.core.scoring.contributions import Contribution, ContributionKind, Ledger
from nexus_marketing.core.scoring.folding import Fold, fold
from nexus_marketing.core.scoring.matching import EventFact, Scorer
from nexus_marketing.core.scoring.rule_sets import RuleSet, canonical_rules, parse_rule_set, settle_versions
from nexus_marketing.core.scoring.thresholds import Crossing, Mark
from nexus_marketing.core.scoring.updating import Known, Touch, Update, set_to, update

#: The score that is the lead's own (``lead.score``).
DEFAULT_SCORE = "score"

__all__ = [
    "DEFAULT_SCORE",
    "Contribution",
    "ContributionKind",
    "Crossing",
    "EventFact",
    "Fold",
    "Known",
    "Ledger",
    "Mark",
    "RuleSet",
    "Scorer",
    "Touch",
    "Update",
    "canonical_rules",
    "fold",
    "parse_rule_set",
    "set_to",
    "settle_versions",
    "update",
]
