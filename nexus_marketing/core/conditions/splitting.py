"""A condition with words of plugins that only Python can answer, taken apart: what a database answers, and what is left.

``country == 'US' AND (loyal() OR count(purchase) > 3)`` becomes whom to look at (``country == 'US'``), what the database
says of each of them (``count(purchase) > 3``), what the plugins say, and how it goes together. Facts, dates and zones are so
answered by the same SQL as in any other condition, and only the plugins' own words in Python.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.schema import Record, Schema
from nexus_marketing.core.conditions.tree import AllOf, AnyOf, Condition, Custom, Not, leaves

Answers = Sequence[Sequence[bool]]
_Decide = Callable[[Answers, Answers, int], bool]


@dataclass(frozen=True, slots=True)
class Split:
    """``narrow`` is true of everybody of whom the whole can be, nothing where that is all; ``parts`` have no plugin's word."""

    narrow: Condition | None
    parts: tuple[Condition, ...]
    asked: tuple[Custom, ...]
    schema: Schema
    _decide: _Decide

    @property
    def columns(self) -> list[str]:
        """The columns of a record that plugins read."""
        fields = {name for each in self.asked for name in self.schema.operator(each.name).depends_on.fields}
        return sorted({self.schema.resolve(name).path[0] for name in fields})

    @property
    def reads_clock(self) -> bool:
        """Whether a plugin's answer may change with the day."""
        return any(self.schema.operator(each.name).depends_on.clock for each in self.asked)

    @property
    def missing(self) -> str | None:
        """Why it cannot be answered at all, as long as a plugin is not there."""
        found = (self.schema.operator(each.name).missing for each in self.asked)
        return next((each for each in found if each is not None), None)

    def holds(self, records: Sequence[Record], parts: Answers, evaluation: Evaluation) -> list[bool]:
        """Whether the whole is true of each record.

        Args:
            records: of whom ``narrow`` is true, with :attr:`columns`.
            parts: of each part, what the database says of each record.
            evaluation: the clock as the database was told it.

        Raises:
            ConditionUnavailable: a plugin cannot be asked now.
        """
        answers = [self.schema.operator(each.name).answers(each.arguments, records, evaluation) for each in self.asked]
        return [self._decide(parts, answers, number) for number in range(len(records))]


def split(condition: Condition, schema: Schema) -> Split | None:
    """Take a condition apart; nothing where a database answers all of it."""
    normal = normalise(condition, schema)
    if not _is_asked(normal):
        return None
    taken = _Parts()
    whole = AllOf(tuple(filter(_is_asked, normal.terms))) if isinstance(normal, AllOf) else normal
    decide = taken.decide(whole)
    return Split(_narrowed(normal), tuple(taken.parts), tuple(taken.asked), schema, decide)


def _is_asked(condition: Condition) -> bool:
    return any(isinstance(leaf, Custom) for leaf in leaves(condition))


def _narrowed(condition: Condition) -> Condition | None:
    """What must hold whatever the plugins say: each of their words may be true, and may be false."""
    if not _is_asked(condition):
        return condition
    if isinstance(condition, AllOf):
        terms = tuple(each for each in map(_narrowed, condition.terms) if each is not None)
        return AllOf(terms) if len(terms) > 1 else next(iter(terms), None)
    if isinstance(condition, AnyOf):
        found = [_narrowed(each) for each in condition.terms]
        some = tuple(each for each in found if each is not None)
        return AnyOf(some) if len(some) == len(found) else None
    return None


class _Parts:
    """What is left after a database has narrowed it down, numbered."""

    def __init__(self) -> None:
        self.parts: list[Condition] = []
        self.asked: list[Custom] = []

    def decide(self, condition: Condition) -> _Decide:
        if not _is_asked(condition):
            return self._part(condition)
        match condition:
            case AllOf():
                return _all([self.decide(each) for each in condition.terms])
            case AnyOf():
                return _any([self.decide(each) for each in condition.terms])
            case Not(term=Custom() as asked):
                return _not(self._asked(asked))
            case Custom():
                return self._asked(condition)
        raise TypeError(f"{condition!r} is not in normal form")

    def _part(self, condition: Condition) -> _Decide:
        place = len(self.parts)
        self.parts.append(condition)
        return lambda parts, _answers, number: bool(parts[place][number])

    def _asked(self, asked: Custom) -> _Decide:
        if asked not in self.asked:
            self.asked.append(asked)
        place = self.asked.index(asked)
        return lambda _parts, answers, number: answers[place][number]


def _all(terms: Sequence[_Decide]) -> _Decide:
    return lambda parts, answers, number: all(each(parts, answers, number) for each in terms)


def _any(terms: Sequence[_Decide]) -> _Decide:
    return lambda parts, answers, number: any(each(parts, answers, number) for each in terms)


def _not(term: _Decide) -> _Decide:
    return lambda parts, answers, number: not term(parts, answers, number)
