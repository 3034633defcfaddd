"""Documents as text become documents that may run; those used last are kept, within a bound (S14)."""

import threading
from collections import OrderedDict
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    OverlappingFieldsCanBeMergedRule,
    ValidationContext,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.validate import ValidationAbortedError

from nexus_marketing.graphql.bounds import MAX_COMPARISONS, MAX_TOKENS


class FewOverlaps(OverlappingFieldsCanBeMergedRule):
    """Compares fields of one name pair by pair, but not for ever: graphql-core would go on for half a second."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = 2 * MAX_COMPARISONS  # each costs it two

    def enter_selection_set(self, *arguments: Any) -> None:
        try:
            super().enter_selection_set(*arguments)
        except ValidationAbortedError as error:
            raise ValidationAbortedError("The document names the same fields too often: name each once.") from error


_RULES = tuple(FewOverlaps if rule is OverlappingFieldsCanBeMergedRule else rule for rule in specified_rules)
#: Characters of all documents kept: a read document takes up to 300 bytes for each (measured: 65 to 240), so
#: that nobody makes a process hold more than some 20 MB by sending ever new ones.
_KEPT_CHARACTERS = 60_000


class Documents:
    """Reads documents for one schema. They repeat, and reading one costs more than running it."""

    def __init__(self, schema: GraphQLSchema, kept_characters: int = _KEPT_CHARACTERS) -> None:
        self.schema = schema
        self.characters = 0
        self._most = kept_characters
        self._known: OrderedDict[str, DocumentNode] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, query: str) -> DocumentNode | list[GraphQLError]:
        """A valid document, or what is wrong with it."""
        with self._lock:
            known = self._known.get(query)
            if known is not None:
                self._known.move_to_end(query)
                return known
        document = self._read(query)
        if isinstance(document, DocumentNode):
            self._keep(query, document)
        return document

    def _read(self, query: str) -> DocumentNode | list[GraphQLError]:
        try:
            document = parse(query, max_tokens=MAX_TOKENS)
        except GraphQLError as error:
            return [error]
        except RecursionError:
            return [GraphQLError("The document is nested too deeply.")]
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        if any(node.operation is OperationType.SUBSCRIPTION for node in operations):
            return [GraphQLError("There are no subscriptions.")]
        return validate(self.schema, document, _RULES, max_errors=10) or document

    def _keep(self, query: str, document: DocumentNode) -> None:
        with self._lock:
            if query not in self._known:
                self._known[query] = document
                self.characters += len(query)
            while self.characters > self._most:
                self.characters -= len(self._known.popitem(last=False)[0])
