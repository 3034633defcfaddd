"""The catalogue of names a condition may use, with their types and where a record keeps them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, NoReturn

from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.limits import refuse
from nexus_marketing.core.conditions.tree import NOWHERE, Condition, FieldType, Literal, Where
from nexus_marketing.core.errors import ConditionUnavailable

Record = Mapping[str, object]
MAX_PATH: Final = 8
_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ -]{0,63}\Z")


class Folding(StrEnum):
    """How a case-insensitive companion is made from its text."""

    TEXT = "text"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class Field:
    """One name: its type and the keys under which a record (and the table) keeps it.

    ``path`` of one key is a column; more keys lead into a JSON column. ``folded`` names the
    companion that case-insensitive comparisons use, ``reversed`` the one ``ends_with`` uses;
    both are fields of the same schema, written by Python beside the original.
    """

    name: str
    type: FieldType
    path: tuple[str, ...] = ()
    folded: str | None = None
    folding: Folding = Folding.TEXT
    reversed: str | None = None
    indexed: bool = False

    def __post_init__(self) -> None:
        """A field without a path lives under its own name."""
        if not self.path:
            object.__setattr__(self, "path", tuple(self.name.split(".")))

    @property
    def is_column(self) -> bool:
        """Whether the value has a column of its own."""
        return len(self.path) == 1


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a condition reads: a change elsewhere cannot change its answer."""

    fields: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    consents: frozenset[str] = frozenset()
    scores: frozenset[str] = frozenset()
    #: Of plugins, with their versions: ``name@1``.
    conditions: frozenset[str] = frozenset()
    clock: bool = False

    def __or__(self, other: "Dependencies") -> "Dependencies":
        """Both together."""
        return Dependencies(
            self.fields | other.fields,
            self.events | other.events,
            self.segments | other.segments,
            self.consents | other.consents,
            self.scores | other.scores,
            self.conditions | other.conditions,
            self.clock or other.clock,
        )


@dataclass(frozen=True, slots=True)
class Argument:
    """What stands in the parentheses of a plugin's condition."""

    name: str
    type: FieldType
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class CustomOperator:
    """A plugin's condition: evaluated in Python, and in SQL when it can say itself as a tree.

    ``takes`` is what may stand in its parentheses, anything where it is ``None``; ``evaluate_all`` asks about many records
    at once; ``missing`` says why it can never be asked here.
    """

    name: str
    evaluate: Callable[[tuple[Literal, ...], Record, Evaluation], bool]
    to_tree: Callable[[tuple[Literal, ...]], Condition] | None = None
    depends_on: Dependencies = Dependencies()
    takes: tuple[Argument, ...] | None = None
    version: int = 1
    evaluate_all: Callable[[tuple[Literal, ...], Sequence[Record], Evaluation], list[bool]] | None = None
    missing: str | None = None

    def answers(self, arguments: tuple[Literal, ...], records: Sequence[Record], evaluation: Evaluation) -> list[bool]:
        """What it says of each record.

        Raises:
            ConditionUnavailable: it cannot be asked now.
        """
        if self.evaluate_all is not None:
            return self.evaluate_all(arguments, records, evaluation)
        return [self.evaluate(arguments, record, evaluation) is True for record in records]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The conditions of plugins that may be named, and what is said of others.

    Args:
        operators: by name.
        withheld: why each of some is not among them, with the remedy.
        is_saved: for what was checked when it was saved: a name that is gone since stays readable, and whoever asks it
            gets :class:`ConditionUnavailable`. Otherwise such a name is refused.
    """

    operators: Mapping[str, CustomOperator] = field(default_factory=dict)
    withheld: Mapping[str, str] = field(default_factory=dict)
    is_saved: bool = False

    def find(self, name: str) -> CustomOperator | None:
        """The condition of a name; one that cannot be asked where it was saved and is gone."""
        found = self.operators.get(name)
        return _gone(name, self.why(name)) if found is None and self.is_saved else found

    def why(self, name: str) -> str:
        """Why a name is none of these, and what to do."""
        known = self.withheld.get(name)
        if known is not None:
            return known
        hint = nearest(name, (*self.operators, *self.withheld)) if self.operators or self.withheld else ""
        return f"there is no condition {name}(){hint or '; a plugin adds one: name its module in nexus.includes'}"


def _gone(name: str, why: str) -> CustomOperator:
    def evaluate(_arguments: object, _record: object, _evaluation: object) -> NoReturn:
        raise ConditionUnavailable(f"{name}() cannot be asked: {why}.")

    return CustomOperator(name, evaluate, version=0, missing=why)


#: No plugin adds any.
NO_PLUGINS: Final = Vocabulary()


@dataclass(frozen=True, slots=True)
class Schema:
    """Names, aliases and plugin conditions; ``lead.`` before a name changes nothing.

    Any key below a field of type ``json`` is a field of type ``json``.
    """

    fields: Mapping[str, Field]
    aliases: Mapping[str, str] = field(default_factory=dict)
    vocabulary: Vocabulary = NO_PLUGINS
    zone_field: str = "time_zone"
    #: The names of events, where conditions may ask for facts (``core.conditions.facts``).
    events: "Schema | None" = None
    #: A field of type ``json`` in which names that are no field are looked for.
    open_field: str | None = None

    @classmethod
    def of(cls, fields: Iterable[Field], aliases: Mapping[str, str] | None = None) -> "Schema":
        """A schema of fields, by their names."""
        return cls({entry.name: entry for entry in fields}, dict(aliases or {}))

    def extended(self, fields: Iterable[Field] = (), operators: Iterable[CustomOperator] = ()) -> "Schema":
        """With more fields and plugin conditions; later definitions win."""
        added = {entry.name: entry for entry in operators}
        known = self.vocabulary
        return replace(
            self,
            fields={**self.fields, **{entry.name: entry for entry in fields}},
            vocabulary=replace(known, operators={**known.operators, **added}) if added else known,
        )

    def with_plugins(self, vocabulary: Vocabulary) -> "Schema":
        """With the conditions of plugins, and no others."""
        return replace(self, vocabulary=vocabulary)

    def find(self, name: str) -> Field | None:
        """The field of a name or alias, or None."""
        if self.open_field is not None and name.startswith("lead."):
            return None
        bare = name.removeprefix("lead." if self.open_field is None else "event.")
        found = self.fields.get(self.aliases.get(bare, bare)) or self._inside_json(bare)
        if found is None and self.open_field is not None:
            return self._inside_json(f"{self.open_field}.{bare}")
        return found

    def resolve(self, name: str, where: Where = NOWHERE, path: str = "") -> Field:
        """The field of a name, or an error that names the nearest one."""
        found = self.find(name)
        if found is None:
            refuse(where, "unknown_field", self.unknown(name), path)
        return found

    def operator(self, name: str, where: Where = NOWHERE, path: str = "") -> CustomOperator:
        """The plugin condition of a name, or an error that names the nearest one."""
        found = self.vocabulary.find(name)
        if found is None:
            code = "plugin_off" if name in self.vocabulary.withheld else "unknown_condition"
            refuse(where, code, self.vocabulary.why(name), path)
        return found

    def unknown(self, name: str) -> str:
        """The sentence for a name that does not exist."""
        hint = nearest(name.removeprefix("lead."), (*self.fields, *self.aliases))
        return f"there is no field {name!a}{hint}; quote it if it is text"

    def _inside_json(self, name: str) -> Field | None:
        root, _, rest = name.partition(".")
        parent = self.fields.get(root)
        keys = rest.split(".")
        if parent is None or parent.type is not FieldType.JSON or not rest or len(keys) >= MAX_PATH:
            return None
        return Field(name, FieldType.JSON, (*parent.path, *keys)) if all(map(_KEY.match, keys)) else None


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at the most similar name, or nothing."""
    matches = get_close_matches(name[:64].lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}" if matches else ""
