"""The catalogue of names a condition may use, with their types and where a record keeps them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.limits import refuse
from nexus_marketing.core.conditions.tree import NOWHERE, Condition, FieldType, Literal, Where

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
    clock: bool = False

    def __or__(self, other: "Dependencies") -> "Dependencies":
        """Both together."""
        return Dependencies(
            self.fields | other.fields,
            self.events | other.events,
            self.segments | other.segments,
            self.consents | other.consents,
            self.scores | other.scores,
            self.clock or other.clock,
        )


@dataclass(frozen=True, slots=True)
class CustomOperator:
    """A plugin's condition: evaluated in Python, and in SQL when it can say itself as a tree."""

    name: str
    evaluate: Callable[[tuple[Literal, ...], Record, Evaluation], bool]
    to_tree: Callable[[tuple[Literal, ...]], Condition] | None = None
    depends_on: Dependencies = Dependencies()


@dataclass(frozen=True, slots=True)
class Schema:
    """Names, aliases and plugin conditions; ``lead.`` before a name changes nothing.

    Any key below a field of type ``json`` is a field of type ``json``.
    """

    fields: Mapping[str, Field]
    aliases: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, CustomOperator] = field(default_factory=dict)
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
        return replace(
            self,
            fields={**self.fields, **{entry.name: entry for entry in fields}},
            operators={**self.operators, **{entry.name: entry for entry in operators}},
        )

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
        found = self.operators.get(name)
        if found is None:
            hint = nearest(name, self.operators)
            refuse(where, "unknown_condition", f"there is no condition {name}(){hint}", path)
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
