"""What all readers of a journey's parts share: the faults, the names, and conditions that become trees in place."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from dataclasses import field as member
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import (
    EVENTS,
    NO_PLUGINS,
    Field,
    FieldType,
    Schema,
    Vocabulary,
    parse,
    segment_schema,
    to_json,
)
from nexus_marketing.core.conditions.clock import is_zone
from nexus_marketing.core.errors import NexusError, Problem, ValidationError, hint
from nexus_marketing.core.journeys.delays import read_offset
from nexus_marketing.core.journeys.nodes import END, Occasion, Rule
from nexus_marketing.core.values import join, parse_duration

#: Nothing in a journey takes longer.
LONGEST: Final = timedelta(days=3_660)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a journey may name: the tenant's own ``fields``, registered ``actions`` (nothing: not checked), ``conditions`` of
    plugins, and the checks of quiet hours and of recurrence, which are another topic's.
    """

    fields: Mapping[str, FieldType] = field(default_factory=dict)
    actions: Collection[str] | None = None
    check_quiet_hours: Callable[[object], list[dict[str, Any]]] | None = None
    check_recurrence: Callable[[Mapping[str, Any]], object] | None = None
    conditions: Vocabulary = NO_PLUGINS


@dataclass(slots=True)
class Reading:
    """One document being read: its schema, the ids of its nodes, and what was found."""

    schema: Schema
    ids: Collection[str]
    around: Surroundings
    problems: list[Problem] = member(default_factory=list)
    notices: list[Problem] = member(default_factory=list)
    read_names: set[str] = member(default_factory=set)

    @classmethod
    def of(cls, document: Mapping[str, Any], around: Surroundings) -> "Reading":
        """Ready to read; ``event`` is what started a run."""
        declared = document.get("fields")
        own = {name: FieldType(kind) for name, kind in (declared if isinstance(declared, Mapping) else {}).items()}
        schema = segment_schema({**around.fields, **own}).extended((Field("event", FieldType.JSON),))
        schema = schema.with_plugins(around.conditions)
        nodes = document.get("nodes")
        return cls(schema, list(nodes) if isinstance(nodes, Mapping) else [], around)

    def fault(self, path: str, code: str, message: str) -> None:
        """Something is wrong here."""
        self.problems.append(Problem(path, code, message))

    def notice(self, path: str, code: str, message: str) -> None:
        """Something is strange here, and works."""
        self.notices.append(Problem(path, code, message))

    def rule(self, document: dict[str, Any], key: str, path: str, schema: Schema | None = None) -> Rule | None:
        """The condition under a key, which is replaced by its tree; nothing where there is none, or its faults."""
        if document.get(key) is None:
            return None
        names = schema or self.schema
        try:
            condition = parse(document[key], names, join(path, key))
        except NexusError as error:
            self.problems += error.problems or [Problem(join(path, key), error.code, error.message)]
            return None
        document[key] = dict(to_json(condition))
        rule = Rule.of(condition, names)
        if schema is None:
            self.read_names.update(rule.reads.fields)
        return rule

    def occasion(self, document: dict[str, Any], path: str) -> Occasion:
        """A state or an event."""
        event = document.get("event")
        if (event is None) == ("when" not in document):
            self.fault(path, "one_of", "Write when (a state of the lead) or event (what it does): one of the two.")
        for name in ("where", "of", "any_verdict"):
            if event is None and name in document:
                self.fault(join(path, name), "not_allowed", f"{name} belongs to an event: leave it out.")
        return Occasion(
            self.rule(document, "when", path),
            event,
            self.rule(document, "where", path, EVENTS),
            document.get("of"),
            document.get("any_verdict", False),
        )

    def edge(self, target: str | None, path: str) -> str:
        """Where an edge leads; without a word it leads out."""
        if target is None:
            return END
        if target != END and target not in self.ids:
            known = [*self.ids, END]
            self.fault(path, "unknown_node", f"There is no node {target!a}{hint(target, known)}.")
        return target

    def length(self, text: str | None, path: str, *, least: timedelta = timedelta(seconds=1)) -> timedelta:
        """A length of time whose form was checked."""
        try:
            found = parse_duration(text or "0 seconds")
        except ValidationError:
            return least
        if not least <= found <= LONGEST:
            bounds = f"from {int(least.total_seconds())} seconds to {LONGEST.days} days"
            self.fault(path, "out_of_bounds", f"{text!a} is too short or too long: write one {bounds}.")
            return least
        return found

    def offset(self, document: Mapping[str, Any], path: str) -> timedelta:
        """A length of time with a sign, under ``offset``."""
        text = document.get("offset", "0 days")
        try:
            found = read_offset(text)
        except ValidationError:
            said = f"{text!a} is no offset: write a length of time with a sign, such as '-3 days'."
            self.fault(join(path, "offset"), "not_a_duration", said)
            return timedelta()
        if abs(found) > LONGEST:
            self.fault(join(path, "offset"), "out_of_bounds", f"{text!a} is more than {LONGEST.days} days.")
        return found

    def zone(self, document: Mapping[str, Any], path: str) -> str | None:
        """A zone, under ``zone``."""
        name = document.get("zone")
        if name is not None and not is_zone(name):
            self.fault(join(path, "zone"), "unknown_zone", f"{name!a} is no IANA zone; write Europe/Berlin.")
        return name

    def quiet_hours(self, document: dict[str, Any], path: str) -> tuple[Mapping[str, Any], ...]:
        """Quiet hours, as a tenant writes them down."""
        said, check = document.get("quiet_hours", []), self.around.check_quiet_hours
        if check is None or not said:
            return tuple(said)
        try:
            return tuple(check(said))
        except ValidationError as error:
            where = join(path, "quiet_hours")
            for each in error.problems:
                place = each.path.replace("[", "").replace("].", ".").replace("]", "")
                self.fault(join(where, place) if place else where, each.code, each.message)
            return ()

    def recurrence(self, document: Mapping[str, Any], path: str) -> None:
        """When a schedule comes again, under ``recurrence``."""
        where = join(path, "recurrence")
        if "recurrence" not in document:
            said = 'A schedule says when: write "recurrence": {"cron": "0 9 * * mon", "time_zone": "Europe/Berlin"}.'
            self.fault(where, "required", said)
        elif self.around.check_recurrence is not None:
            try:
                self.around.check_recurrence(document["recurrence"])
            except ValidationError as error:
                self.problems += [Problem(join(where, each.path), each.code, each.message) for each in error.problems]

    def action(self, name: str, path: str) -> None:
        """An action by name: where names are known, an unknown one refuses the journey."""
        if self.around.actions is not None and name not in self.around.actions:
            said = f"No plugin has registered the action {name!a}{hint(name, self.around.actions)}."
            self.fault(path, "unknown_action", said)
