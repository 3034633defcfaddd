"""From a condition in any form to a function of one record."""

from nexus_marketing.core.conditions.evaluate import Predicate, closures
from nexus_marketing.core.conditions.fastpath import compile_normal
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.schema import Schema
from nexus_marketing.core.conditions.tree import Condition


def compile_predicate(condition: Condition, schema: Schema, *, once: bool = False) -> Predicate:
    """Compile a condition to ``predicate(record, evaluation) -> bool``.

    Args:
        condition: a tree; it is checked against the schema here.
        schema: the names and types of the record.
        once: for a single evaluation, leave out the second compilation step (about 0.2 ms) that
            makes many evaluations fast. The answers are the same.

    Returns:
        A pure function; the record is a mapping of canonical values by column name.
    """
    normal = normalise(condition, schema)
    return closures(normal, schema) if once else compile_normal(normal, schema)
