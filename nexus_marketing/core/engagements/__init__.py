"""What people do: the vocabulary, reported events as values, and the verdict on who it was."""

from nexus_marketing.core.engagements.agents import machine_hint
from nexus_marketing.core.engagements.reported import EVENT_SCHEMA, SERVER_FIELDS, read_event
from nexus_marketing.core.engagements.verdicts import HitFact, judge, most_human
from nexus_marketing.core.engagements.vocabulary import EngagementType, MachineHint, Verdict
from nexus_marketing.core.engagements.words import query_words, search_words

__all__ = [
    "EVENT_SCHEMA",
    "SERVER_FIELDS",
    "EngagementType",
    "HitFact",
    "MachineHint",
    "Verdict",
    "judge",
    "machine_hint",
    "most_human",
    "query_words",
    "read_event",
    "search_words",
]
