"""Journeys: their definition, and what a run of one is (BEHAVIOUR.md 5.1). What a run does next is ``core.engine.journeys``."""

from nexus_marketing.core.journeys.graph import edges
from nexus_marketing.core.journeys.model import Journey, TriggerKind
from nexus_marketing.core.journeys.nodes import END, Node, NodeKind, Outcome
from nexus_marketing.core.journeys.parse import canonical_text, digest_of, parse_journey
from nexus_marketing.core.journeys.reading import Surroundings
from nexus_marketing.core.journeys.runs import (
    Answered,
    Changed,
    Happened,
    Reported,
    Run,
    RunDecision,
    RunState,
    Said,
    Stopped,
    Woken,
)
from nexus_marketing.core.journeys.short import JOURNEY_KEYS, expanded, is_short

__all__ = [
    "END",
    "JOURNEY_KEYS",
    "Answered",
    "Changed",
    "Happened",
    "Journey",
    "Node",
    "NodeKind",
    "Outcome",
    "Reported",
    "Run",
    "RunDecision",
    "RunState",
    "Said",
    "Stopped",
    "Surroundings",
    "TriggerKind",
    "Woken",
    "canonical_text",
    "digest_of",
    "edges",
    "expanded",
    "is_short",
    "parse_journey",
]
