"""Conditions as SQL: the same meaning as ``core.conditions`` on PostgreSQL and SQLite."""

from nexus_marketing.db.conditions.compiler import compile_condition, wrap_for_select
from nexus_marketing.db.conditions.cost import CostClass, cost_class
from nexus_marketing.db.conditions.facts import Related, event_named
from nexus_marketing.db.conditions.moving import Moving, moving_values
from nexus_marketing.db.conditions.sqlite import register_sqlite_functions

__all__ = [
    "CostClass",
    "Moving",
    "Related",
    "compile_condition",
    "cost_class",
    "event_named",
    "moving_values",
    "register_sqlite_functions",
    "wrap_for_select",
]
