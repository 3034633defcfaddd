"""The condition language: one typed tree, two spellings, evaluated in Python and in SQL."""

from nexus_marketing.core.conditions.catalogue import EVENTS, campaign_schema, lead_schema, scope_fields, segment_schema
from nexus_marketing.core.conditions.check import check
from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.dependencies import clock_leaves, dependencies, next_flip
from nexus_marketing.core.conditions.evaluate import Predicate
from nexus_marketing.core.conditions.formatter import to_json, to_text
from nexus_marketing.core.conditions.parse import parse, parse_json, parse_text
from nexus_marketing.core.conditions.predicate import compile_predicate
from nexus_marketing.core.conditions.schema import (
    NO_PLUGINS,
    Argument,
    CustomOperator,
    Dependencies,
    Field,
    Folding,
    Schema,
    Vocabulary,
)
from nexus_marketing.core.conditions.splitting import Split, split
from nexus_marketing.core.conditions.tree import (
    FACTS,
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Literal,
    Not,
    Operator,
    Scored,
)

__all__ = [
    "EVENTS",
    "FACTS",
    "NO_PLUGINS",
    "AllOf",
    "AnyOf",
    "Argument",
    "Arithmetic",
    "Clock",
    "ClockKind",
    "Condition",
    "Consented",
    "Custom",
    "CustomOperator",
    "Dependencies",
    "Evaluation",
    "EventCount",
    "EventPick",
    "Field",
    "FieldRef",
    "FieldType",
    "Folding",
    "InSegment",
    "Leaf",
    "Literal",
    "Not",
    "Operator",
    "Predicate",
    "Schema",
    "Scored",
    "Split",
    "Vocabulary",
    "campaign_schema",
    "check",
    "clock_leaves",
    "compile_predicate",
    "dependencies",
    "lead_schema",
    "next_flip",
    "parse",
    "parse_json",
    "parse_text",
    "scope_fields",
    "segment_schema",
    "split",
    "to_json",
    "to_text",
]
