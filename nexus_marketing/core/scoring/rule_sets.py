"""Rule sets as documents and as values: what gives points, how they age, and where they end.

A document is held against a schema, and then against its own sense; every fault has its path. What is stored
is canonical: conditions as trees, each rule with ``since``, the version in which what it matches last changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import (
    EVENTS,
    NO_PLUGINS,
    Condition,
    FieldType,
    Schema,
    Vocabulary,
    dependencies,
    lead_schema,
    parse,
    to_json,
)
from nexus_marketing.core.errors import NexusError, Problem, ValidationError, hint
from nexus_marketing.core.schemas import Form
from nexus_marketing.core.scoring.decay import NEVER, Decay
from nexus_marketing.core.scoring.thresholds import Threshold
from nexus_marketing.core.values import parse_duration

MAX_RULES: Final = 200
MAX_THRESHOLDS: Final = 20
_ONCE: Final = "once"
_LARGEST: Final = 1_000_000
_KEY: Final = {"type": "string", "regex": "[a-z][a-z0-9_-]{0,63}", "required": True}
_POINTS: Final = {"type": "number", "min": -_LARGEST, "max": _LARGEST}
_TIME: Final = {"type": "string", "check_with": "duration"}
_CAP: Final = {
    "type": "dict",
    "schema": {"points": {"type": "number", "required": True, "min": 0, "max": _LARGEST}, "period": _TIME},
}
_STEP: Final = {
    "after": {**_TIME, "required": True},
    "keep": {"type": "number", "min": 0, "max": 1, "required": True},
}
_DECAY: Final = {
    "type": "dict",
    "nullable": True,
    "schema": {
        "half_life": _TIME,
        "steps": {
            "type": "list",
            "minlength": 1,
            "maxlength": 20,
            "schema": {"type": "dict", "schema": _STEP},
        },
    },
}
_CONDITION: Final = {"type": ["string", "dict"]}
_RULE: Final = {
    "key": _KEY,
    "event": {"type": "string", "regex": "[a-z][a-z0-9_.]{0,63}"},
    "where": _CONDITION,
    "when": _CONDITION,
    "points": {**_POINTS, "required": True},
    "counts": {"type": "string", "allowed": [_ONCE, "per_occurrence"]},
    "cap": _CAP,
    "group": {"type": "string", "maxlength": 64},
    "decay": _DECAY,
    "since": {"type": "integer", "min": 1},
}
_GROUP: Final = {"min": _POINTS, "max": _POINTS, "cap": _CAP}
_THRESHOLD: Final = {
    "key": _KEY,
    "up": {**_POINTS, "required": True},
    "down": _POINTS,
    "cooldown": _TIME,
}
RULES_SCHEMA: Final[Mapping[str, Mapping[str, Any]]] = {
    "rules": {
        "type": "list",
        "required": True,
        "maxlength": MAX_RULES,
        "schema": {"type": "dict", "schema": _RULE},
    },
    "groups": {
        "type": "dict",
        "keysrules": {"type": "string", "regex": "[a-z][a-z0-9_-]{0,63}"},
        "valuesrules": {"type": "dict", "schema": _GROUP},
    },
    "min": _POINTS,
    "max": _POINTS,
    "decay": _DECAY,
    "precision": {"type": "number", "min": 0.01, "max": 1000},
    "thresholds": {
        "type": "list",
        "maxlength": MAX_THRESHOLDS,
        "schema": {"type": "dict", "schema": _THRESHOLD},
    },
    "fields": {"type": "dict", "valuesrules": {"type": "string", "allowed": [str(each) for each in FieldType]}},
}
_FORM: Final = Form(RULES_SCHEMA)
#: A rule that reads what rules write would feed itself; the moment of a change says nothing of the person.
_NOT_IN_RULES: Final = frozenset({"score", "updated_at"})


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many points (of either sign) within each period; in all, where there is no period."""

    points: float
    period_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What gives points: an ``event`` (perhaps only ``where``), or ``when`` the lead's fields say so."""

    key: str
    since: int
    points: float
    event: str | None = None
    where: Condition | None = None
    when: Condition | None = None
    once: bool = False
    cap: Cap | None = None
    group: str = ""
    decay: Decay = NEVER


@dataclass(frozen=True, slots=True)
class Group:
    """Bounds of what the rules of a group give together, and their cap within a period."""

    low: float | None = None
    high: float | None = None
    cap: Cap | None = None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One version of a score's rules; ``decay`` is that of what belongs to no rule."""

    rules: tuple[Rule, ...] = ()
    groups: Mapping[str, Group] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    decay: Decay = NEVER
    precision: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    conditions: Vocabulary = NO_PLUGINS

    @property
    def schema(self) -> Schema:
        """What ``when`` may name."""
        return lead_schema(self.fields).with_plugins(self.conditions)

    @property
    def events(self) -> frozenset[str]:
        """Types and names of events that give points."""
        return frozenset(rule.event for rule in self.rules if rule.event is not None)

    def reads(self) -> frozenset[str]:
        """The columns of a lead that rules read."""
        schema = self.schema
        names = {
            name for rule in self.rules if rule.when is not None for name in dependencies(rule.when, schema).fields
        }
        return frozenset(schema.resolve(name).path[0] for name in names)


def parse_rule_set(
    document: Mapping[str, Any],
    fields: Mapping[str, FieldType] | None = None,
    path: str = "draft",
    conditions: Vocabulary = NO_PLUGINS,
) -> RuleSet:
    """A document as a rule set.

    Args:
        document: as :data:`RULES_SCHEMA` says.
        fields: the tenant's declared fields; those the document pins where it says so itself.
        path: where the document lies.
        conditions: those of plugins.

    Raises:
        ValidationError: every fault, each with its path and the remedy.
    """
    _FORM.check(document, path=path)
    pinned = {name: FieldType(kind) for name, kind in document.get("fields", {}).items()}
    reader = _Reader(path, dict(fields) if fields is not None else pinned, conditions, [])
    found = reader.read(document)
    if reader.problems:
        raise ValidationError(problems=reader.problems)
    return found


def canonical_rules(
    document: Mapping[str, Any],
    fields: Mapping[str, FieldType],
    path: str = "draft",
    conditions: Vocabulary = NO_PLUGINS,
) -> dict[str, Any]:
    """The document as it is stored: conditions as trees, and the types of the tenant's fields as they are now.

    Raises:
        ValidationError: every fault.
    """
    understood = parse_rule_set(document, fields, path, conditions)
    rules = []
    for given, rule in zip(document["rules"], understood.rules, strict=True):
        kept = {name: value for name, value in given.items() if name not in ("where", "when", "since")}
        for name, condition in (("where", rule.where), ("when", rule.when)):
            if condition is not None:
                kept[name] = dict(to_json(condition))
        rules.append(kept)
    used = {name.removeprefix("metadata.") for name in _names_of(understood)}
    pinned = {name: str(kind) for name, kind in sorted(fields.items()) if name in used}
    rest = {name: value for name, value in document.items() if name not in ("rules", "fields")}
    return {**rest, "rules": rules, **({"fields": pinned} if pinned else {})}


def settle_versions(document: Mapping[str, Any], before: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
    """Say of each rule since which version it matches what it matches: this one, unless it is as it was before.

    Points of earlier versions go on counting for rules that were not changed.
    """
    known = {rule["key"]: rule for rule in (before or {}).get("rules", ())}
    types_before = (before or {}).get("fields", {})
    types = document.get("fields", {})
    rules = []
    for rule in document["rules"]:
        old = known.get(rule["key"])
        is_same = old is not None and _matched(rule) == _matched(old)
        is_same = is_same and ("when" not in rule or types == types_before)
        rules.append({**rule, "since": old["since"] if is_same and old is not None else number})
    return {**document, "rules": rules}


def _matched(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(rule.get(name) for name in ("event", "where", "when", "points"))


def _names_of(rules: RuleSet) -> Iterator[str]:
    schema = rules.schema
    for rule in rules.rules:
        if rule.when is not None:
            yield from dependencies(rule.when, schema).fields


@dataclass(slots=True)
class _Reader:
    """Reads a document whose form is right; collects what makes no sense."""

    path: str
    fields: Mapping[str, FieldType]
    conditions: Vocabulary
    problems: list[Problem]

    def fault(self, path: str, code: str, message: str) -> None:
        self.problems.append(Problem(f"{self.path}.{path}" if self.path else path, code, message))

    def read(self, document: Mapping[str, Any]) -> RuleSet:
        groups = {name: self.group(f"groups.{name}", said) for name, said in document.get("groups", {}).items()}
        decay = self.decay("decay", document.get("decay"))
        found = RuleSet(
            tuple(self.rule(number, said, groups, decay) for number, said in enumerate(document["rules"])),
            groups,
            document.get("min"),
            document.get("max"),
            decay,
            document.get("precision"),
            tuple(self.threshold(number, said) for number, said in enumerate(document.get("thresholds", ()))),
            self.fields,
            self.conditions,
        )
        self.bounds("", found.low, found.high)
        self.unique("rules", [rule.key for rule in found.rules])
        self.unique("thresholds", [each.key for each in found.thresholds])
        if found.precision is None:
            fades = any(each.half_life_seconds for each in (decay, *(rule.decay for rule in found.rules)))
            found = replace(found, precision=1.0 if fades else None)
        return found

    def rule(self, number: int, said: Mapping[str, Any], groups: Mapping[str, Group], decay: Decay) -> Rule:
        path = f"rules.{number}"
        event, when = said.get("event"), said.get("when")
        if (event is None) == (when is None):
            self.fault(path, "one_of", "A rule has event or when: what happened, or what the lead's fields say.")
        if when is not None:
            for name in ("where", "counts", "cap"):
                if name in said:
                    self.fault(f"{path}.{name}", "not_allowed", f"{name} is for events: a rule with when holds or not.")
        group = said.get("group", "")
        if group and group not in groups:
            self.fault(f"{path}.group", "unknown_group", f"There is no group {group!a}{hint(group, groups)}.")
        own = self.decay(f"{path}.decay", said["decay"]) if "decay" in said else None
        by_default = decay if when is None else NEVER  # what still holds does not age
        return Rule(
            said["key"],
            said.get("since", 0),
            float(said["points"]),
            event,
            self.condition(f"{path}.where", said.get("where"), EVENTS),
            self.condition(f"{path}.when", when, lead_schema(self.fields).with_plugins(self.conditions)),
            said.get("counts") == _ONCE,
            self.cap(said.get("cap")),
            group,
            by_default if own is None else own,
        )

    def condition(self, path: str, spelling: Any, schema: Schema) -> Condition | None:
        if spelling is None:
            return None
        full = f"{self.path}.{path}" if self.path else path
        try:
            found = parse(spelling, schema, full)
        except NexusError as error:
            self.problems += error.problems or [Problem(full, error.code, error.message)]
            return None
        if schema is not EVENTS:
            for name in sorted(dependencies(found, schema).fields & _NOT_IN_RULES):
                self.fault(path, "not_allowed", f"{name} changes with scores themselves: use another field.")
        return found

    def group(self, path: str, said: Mapping[str, Any]) -> Group:
        self.bounds(f"{path}.", said.get("min"), said.get("max"))
        return Group(said.get("min"), said.get("max"), self.cap(said.get("cap")))

    def bounds(self, path: str, low: float | None, high: float | None) -> None:
        if low is not None and high is not None and low > high:
            self.fault(f"{path}min", "out_of_bounds", f"min {low} lies above max {high}.")

    def cap(self, said: Mapping[str, Any] | None) -> Cap | None:
        if said is None:
            return None
        return Cap(float(said["points"]), _seconds(said["period"]) if "period" in said else None)

    def decay(self, path: str, said: Mapping[str, Any] | None) -> Decay:
        if not said:
            return NEVER
        if ("half_life" in said) == ("steps" in said):
            self.fault(path, "one_of", "Points age by half_life or by steps: give one of the two.")
            return NEVER
        if "half_life" in said:
            return Decay(half_life_seconds=_seconds(said["half_life"]))
        steps = tuple((_seconds(each["after"]), float(each["keep"])) for each in said["steps"])
        ages, parts = [age for age, _ in steps], [part for _, part in steps]
        if sorted(set(ages)) != ages or sorted(parts, reverse=True) != parts:
            self.fault(f"{path}.steps", "not_in_order", "Steps come with growing after, and keep never grows.")
        return Decay(steps=steps)

    def threshold(self, number: int, said: Mapping[str, Any]) -> Threshold:
        up = float(said["up"])
        down = float(said.get("down", up))
        if down > up:
            self.fault(f"thresholds.{number}.down", "out_of_bounds", f"down {down:g} lies above up {up:g}.")
        return Threshold(said["key"], up, down, timedelta(seconds=_seconds(said.get("cooldown", "0 seconds"), 0)))

    def unique(self, path: str, keys: Sequence[str]) -> None:
        for number, key in enumerate(keys):
            if key in keys[:number]:
                self.fault(f"{path}.{number}.key", "duplicate", f"{key} is there already: keys are unique.")


def _seconds(text: str, least: float = 1) -> float:
    return max(parse_duration(text).total_seconds(), least)
