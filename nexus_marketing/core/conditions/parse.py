"""The doors of the language: text, JSON or either, checked against a schema when one is given."""

from collections.abc import Mapping

from nexus_marketing.core.conditions.check import check
from nexus_marketing.core.conditions.json_form import parse_json_tree
from nexus_marketing.core.conditions.limits import refuse
from nexus_marketing.core.conditions.schema import Schema
from nexus_marketing.core.conditions.text import parse_text_tree
from nexus_marketing.core.conditions.tree import FACTS, AllOf, AnyOf, Condition, Custom, Leaf, Not


def parse_text(text: str, schema: Schema | None = None, path: str = "") -> Condition:
    """Parse ``age > 25 AND location == 'US'``; with a schema, names and types are checked too.

    Args:
        text: at most 16,384 characters.
        schema: what is saved must be checked; without one only the grammar and the bounds are.
        path: where the condition lies in a larger document, for error paths.

    Raises:
        ConditionError: one problem per fault, each with the character and the remedy.
    """
    condition = parse_text_tree(text, path)
    return condition if schema is None else check(condition, schema, path)


def parse_json(document: object, schema: Schema | None = None, path: str = "") -> Condition:
    """Parse the JSON spelling (already decoded); errors carry paths such as ``conditions.1.value``."""
    condition = parse_json_tree(document, path)
    return condition if schema is None else check(condition, schema, path)


def parse(spelling: object, schema: Schema | None = None, path: str = "") -> Condition:
    """Parse any spelling: text, a JSON object, or a tree."""
    if isinstance(spelling, str):
        return parse_text(spelling, schema, path)
    if isinstance(spelling, (AllOf, AnyOf, Not, Leaf, Custom, *FACTS)):
        return spelling if schema is None else check(spelling, schema, path)
    if isinstance(spelling, Mapping):
        return parse_json(spelling, schema, path)
    refuse("", "not_a_condition", f"a condition is text or a JSON object, not a {type(spelling).__name__}", path)
