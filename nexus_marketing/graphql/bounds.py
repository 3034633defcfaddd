"""How much one document may ask for, decided before anything is executed (S14).

Fragments are counted where they are used, each only once worked out: a chain of fragments that
double each other is priced without being walked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.graphql.types import DEFAULT_LIMIT, MAX_LIMIT

MAX_DEPTH = 10
MAX_ROOTS_AND_ALIASES = 50
#: Objects that a document may ask for, by its limits.
MAX_OBJECTS = 5_000
MAX_TOKENS = 2_000
#: Pairs of equally named fields that are held against each other: 15 ms at most, where all pairs took 700.
MAX_COMPARISONS = 10_000
#: How long a statement may take, and until when a document may begin another one.
TIMEOUT_SECONDS = 5.0
LISTS = frozenset({"campaigns", "definitions", "engagements", "journeyRuns", "journeys", "leads"})
#: Lists without a limit, and fields that cost several statements each.
PRICES: Mapping[str, int] = {"segments": 5, "scores": 5, "analytics": 10, "enterJourney": 200, "reviveJourney": 100}


@dataclass(frozen=True, slots=True)
class Weight:
    """What a selection weighs; ``objects`` counts what its lists may hold."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    objects: int = 0

    def beside(self, other: "Weight") -> "Weight":
        """Both, one after the other."""
        return Weight(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.objects + other.objects,
        )


def check_bounds(document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> None:
    """Refuse a document that asks for too much.

    Raises:
        ValidationError: which bound, and what the document asks.
    """
    weight = _Scale(document, variables).weigh(operation.selection_set)
    roots = _Scale(document, variables).roots(operation.selection_set)
    _refuse("depth", weight.depth, MAX_DEPTH, "nested too deeply")
    _refuse("aliases", roots + weight.aliases, MAX_ROOTS_AND_ALIASES, "too many root fields and aliases")
    _refuse("objects", weight.objects, MAX_OBJECTS, "too many objects by its limits")


def _refuse(what: str, found: int, bound: int, sentence: str) -> None:
    if found > bound:
        raise ValidationError.at(
            what, "query_too_large", f"The document asks for {sentence}: {min(found, 10**9)}, at most {bound}."
        )


class _Scale:
    """Weighs selections; cycles of fragments are refused by validation before."""

    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        self._variables = variables
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, Weight] = {}

    def weigh(self, selections: SelectionSetNode | None) -> Weight:
        weight = Weight()
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                weight = weight.beside(self._field(node))
            elif isinstance(node, FragmentSpreadNode):
                weight = weight.beside(self._fragment(node.name.value))
            elif isinstance(node, InlineFragmentNode):
                weight = weight.beside(self.weigh(node.selection_set))
        return weight

    def roots(self, selections: SelectionSetNode) -> int:
        """How many root fields there are."""
        count = 0
        for node in selections.selections:
            if isinstance(node, FieldNode):
                count += 1
            elif isinstance(node, FragmentSpreadNode):
                count += self._fragment(node.name.value).fields
            elif isinstance(node, InlineFragmentNode):
                count += self.roots(node.selection_set)
        return count

    def _fragment(self, name: str) -> Weight:
        if name not in self._known:
            self._known[name] = self.weigh(self._fragments[name].selection_set)
        return self._known[name]

    def _field(self, node: FieldNode) -> Weight:
        if node.name.value.startswith("__"):
            return Weight(1, 1, node.alias is not None, 1)  # bounded by graphql-core's own rule on introspection
        inner = self.weigh(node.selection_set)
        many = self._many(node)
        return Weight(
            inner.depth + 1,
            inner.fields + 1,
            inner.aliases + (node.alias is not None),
            many * (1 + inner.objects) if node.selection_set else 0,
        )

    def _many(self, node: FieldNode) -> int:
        name = node.name.value
        if name not in LISTS:
            return PRICES.get(name, 1)
        limit = next((each.value for each in node.arguments if each.name.value == "limit"), None)
        if isinstance(limit, IntValueNode):
            return min(int(limit.value), MAX_LIMIT)
        if isinstance(limit, VariableNode):
            given = self._variables.get(limit.name.value)
            return given if isinstance(given, int) and 0 <= given <= MAX_LIMIT else MAX_LIMIT
        return DEFAULT_LIMIT
