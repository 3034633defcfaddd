"""Conditions as SQL: the same meaning as ``core.conditions`` on PostgreSQL and SQLite."""

from nexus_marketing.db.conditions.compiler import compile_condition, wrap_for_select
from nexus_marketing.db.conditions.cost import CostClass, cost_class
from nexus_marketing.db.conditions.sqlite import register_sqlite_functions

__all__ = ["CostClass", "compile_condition", "cost_class", "register_sqlite_functions", "wrap_for_select"]
