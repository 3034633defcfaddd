"""From a journey's document to a :class:`Journey`, with every fault named at once, and its canonical form."""

import json
from collections.abc import Mapping
from hashlib import sha256
from itertools import chain
from typing import Any, Final

from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.journeys import forms
from nexus_marketing.core.journeys.entry_reading import read_entry
from nexus_marketing.core.journeys.graph import instant_circles, reached
from nexus_marketing.core.journeys.model import Entry, ExitCriterion, Goal, GoalEffect, Journey
from nexus_marketing.core.journeys.node_reading import read_node
from nexus_marketing.core.journeys.nodes import DOING, END, Branch, Message, Node, NodeKind, Occasion, WaitUntil
from nexus_marketing.core.journeys.reading import Reading, Surroundings
from nexus_marketing.core.schemas import Form
from nexus_marketing.core.values import canonical, join

#: A goal that says no window.
_WINDOW: Final = "30 days"


def parse_journey(document: Mapping[str, Any], around: Surroundings | None = None, path: str = "") -> Journey:
    """Read a journey in its full form.

    Args:
        document: as ``docs/howto/simulate-a-journey.md`` says; a short one is made full by
            :func:`nexus_marketing.core.journeys.short.expanded`.
        around: what it may name.
        path: where it lies in a larger document, for error paths.

    Raises:
        ValidationError: every fault, each with its path, code, value and remedy.
    """
    plain = canonical(document, path)
    reading = Reading.of(plain, around or Surroundings())
    broken = forms.JOURNEY.faults(plain)
    reading.problems += broken
    journey = _Parts(reading, plain, {each.path.partition(".")[0] for each in broken}).journey()
    if reading.problems:
        faults = sorted(reading.problems, key=lambda each: each.path)
        raise ValidationError(problems=faults).under(path) if path else ValidationError(problems=faults)
    return journey


def canonical_text(document: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no white space, the characters themselves."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: what tells versions apart."""
    return sha256(canonical_text(document).encode()).hexdigest()


class _Parts:
    """The parts of one document, those whose form is broken left out."""

    def __init__(self, reading: Reading, document: dict[str, Any], broken: set[str]) -> None:
        self.reading = reading
        self.visits: dict[str, tuple[int, str]] = {}
        self.compensations: dict[str, str] = {}
        self.document = {key: value for key, value in document.items() if key not in broken}

    def journey(self) -> Journey:
        reading, document = self.reading, self.document
        nodes = self._nodes()
        start = reading.edge(document.setdefault("start", next(iter(reading.ids), END)), "start")
        entry = read_entry(reading, self._entry_document(start), start)
        exits, goals = self._exits(), self._goals()
        self._of(nodes, exits, goals)
        if not reading.problems:
            self._graph(nodes, entry, goals)
        quiet_hours = reading.quiet_hours(document, "")
        self._pin_fields()
        return Journey(
            document.get("id", ""),
            document.get("name", document.get("id", "")),
            nodes,
            entry,
            exits,
            goals,
            quiet_hours,
            document.get("salt", ""),
            {**reading.around.fields, **document.get("fields", {})},
            tuple(reading.notices),
            document,
            self.visits,
            digest_of(document),
            self.compensations,
        )

    def _nodes(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for name, said in self.document.get("nodes", {}).items():
            path = join("nodes", name)
            faults = _node_faults(name, said, path)
            self.reading.problems += faults
            if not faults:
                found[name] = read_node(self.reading, name, said, path)
                if "visits" in said:
                    to = self.reading.edge(said["visits"].get("to"), join(path, "visits.to"))
                    self.visits[name] = (said["visits"]["most"], to)
                if "compensate" in said:
                    self._compensate(name, said, join(path, "compensate"))
        return found

    def _compensate(self, name: str, said: Mapping[str, Any], path: str) -> None:
        if NodeKind(said["type"]) in DOING:
            self.reading.action(said["compensate"], path)
            self.compensations[name] = said["compensate"]
        else:
            doing = ", ".join(sorted(DOING))
            text = f"A {said['type']} does nothing that could be taken back: compensate belongs to {doing}."
            self.reading.fault(path, "not_allowed", text)

    def _entry_document(self, start: str) -> dict[str, Any]:
        said: dict[str, Any] = self.document.setdefault("entry", {})
        said.setdefault("triggers", [{"on": "api"}])
        faults = forms.ENTRY.faults(said, path="entry")
        self.reading.problems += faults
        return {"triggers": [{"on": "api", "start": start}]} if faults else said

    def _exits(self) -> tuple[ExitCriterion, ...]:
        found = []
        for path, said in self._well_formed("exit", forms.EXIT):
            occasion = self.reading.occasion(said, path)
            found.append(ExitCriterion(occasion, said.get("reason") or occasion.event or "exit"))
        return tuple(found)

    def _goals(self) -> tuple[Goal, ...]:
        found: list[Goal] = []
        for path, said in self._well_formed("goals", forms.GOAL):
            if any(said["id"] == goal.id for goal in found):
                self.reading.fault(join(path, "id"), "duplicate", f"{said['id']} is there already: ids are unique.")
            effect, to = self._effect(said.get("effect", "record"), join(path, "effect"))
            window = self.reading.length(said.get("window", _WINDOW), join(path, "window"))
            found.append(Goal(said["id"], self.reading.occasion(said, path), window, effect, to))
        return tuple(found)

    def _effect(self, said: Any, path: str) -> tuple[GoalEffect, str | None]:
        if said in ("record", "exit"):
            return GoalEffect(said), None
        if isinstance(said, Mapping) and said.keys() == {"jump_to"}:
            return GoalEffect.JUMP_TO, self.reading.edge(str(said["jump_to"]), join(path, "jump_to"))
        self.reading.fault(path, "unknown_choice", f'{said!a}: write record, exit or {{"jump_to": "<node>"}}.')
        return GoalEffect.RECORD, None

    def _well_formed(self, key: str, form: Form) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for number, said in enumerate(self.document.get(key, [])):
            path = join(key, number)
            faults = form.faults(said, path=path) if isinstance(said, dict) else [_not_a_table(path)]
            self.reading.problems += faults
            if not faults:
                found.append((path, said))
        return found

    def _of(self, nodes: Mapping[str, Node], exits: tuple[ExitCriterion, ...], goals: tuple[Goal, ...]) -> None:
        """Events are about messages that there are."""
        messages = [name for name, node in nodes.items() if isinstance(node, Message)]
        ways: list[tuple[str, Occasion]] = [(f"exit.{n}", each.occasion) for n, each in enumerate(exits)]
        ways += [(f"goals.{n}", each.occasion) for n, each in enumerate(goals)]
        for name, node in nodes.items():
            if isinstance(node, (Branch, WaitUntil)):
                key = "branches" if isinstance(node, Branch) else "until"
                ways += [(f"nodes.{name}.{key}.{n}", way.occasion) for n, way in enumerate(node.ways)]
        for path, occasion in ways:
            if occasion.of is not None and occasion.of not in messages:
                text = f"There is no message {occasion.of!a}{hint(occasion.of, messages)}."
                self.reading.fault(join(path, "of"), "unknown_node", text)

    def _graph(self, nodes: Mapping[str, Node], entry: Entry, goals: tuple[Goal, ...]) -> None:
        starts = chain((each.start for each in entry.triggers), (goal.to for goal in goals if goal.to is not None))
        instead = {name: to for name, (_, to) in self.visits.items()}
        for name in nodes.keys() - reached(nodes, starts, instead):
            text = f"Nothing leads to {name}: let an edge lead there, or take the node out."
            self.reading.fault(join("nodes", name), "unreachable", text)
        for circle in instant_circles(nodes, instead):
            way = " -> ".join([*circle, circle[0]])
            text = f"No time need pass on the way {way}: put a delay into it."
            self.reading.fault(join("nodes", circle[0]), "zero_delay_cycle", text)

    def _pin_fields(self) -> None:
        """A version keeps the types of the tenant's fields that it reads."""
        used = {name.removeprefix("metadata.") for name in self.reading.read_names}
        known = {name: str(kind) for name, kind in self.reading.around.fields.items() if name in used}
        pinned = {**known, **self.document.get("fields", {})}
        if pinned:
            self.document["fields"] = pinned


def _node_faults(name: str, said: Any, path: str) -> list[Problem]:
    faults = []
    if name == END or not forms.is_id(name):
        text = f"{name!a} is no id of a node: use letters, digits, - and _, and not {END}."
        faults.append(Problem(path, "not_an_id", text))
    if not isinstance(said, dict):
        return [*faults, _not_a_table(path)]
    form = forms.NODES.get(str(said.get("type")))
    if form is None:
        text = f"{said.get('type')!a} is no type of a node{hint(str(said.get('type')), forms.NODES)}."
        return [*faults, Problem(join(path, "type"), "unknown_type", text)]
    return [*faults, *form.faults(said, path=path)]


def _not_a_table(path: str) -> Problem:
    return Problem(path, "wrong_type", "This must be an object of names and values.")
