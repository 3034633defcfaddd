"""From a definition's document to a :class:`Definition`, with every fault named at once."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.conditions import (
    NO_PLUGINS,
    Field,
    FieldType,
    Schema,
    Vocabulary,
    campaign_schema,
    compile_predicate,
    lead_schema,
    parse,
)
from nexus_marketing.core.conditions.clock import is_zone
from nexus_marketing.core.definitions.actions import unknown_actions
from nexus_marketing.core.definitions.forms import (
    CHANNEL,
    DEFINITION,
    data_form,
    field_types,
    misplaced_bounds,
    misused_controls,
)
from nexus_marketing.core.definitions.model import (
    Automation,
    CampaignStep,
    ChannelUse,
    Definition,
    Escalation,
    Rule,
    Step,
    TriggerRule,
)
from nexus_marketing.core.definitions.stages import read_stages, read_transitions
from nexus_marketing.core.errors import ConditionError, Problem, ValidationError, hint
from nexus_marketing.core.money import minor_units
from nexus_marketing.core.values import canonical, join, parse_duration

_THRESHOLD: Final = re.compile(r"[0-9]+(\.[0-9]+)?x?\Z")
#: Channels that say no priority come after those that do, in the order they are written down.
_LAST: Final = 1_001
_BARE: Final = ("budget", "currency", "start_date", "target_segment")


def parse_definition(
    document: Mapping[str, Any],
    *,
    code: str = "",
    path: str = "",
    actions: Collection[str] = (),
    conditions: Vocabulary = NO_PLUGINS,
) -> Definition:
    """Read a definition.

    Args:
        document: the requirements' Phase 2 and Phase 3 JSON; the documents of ``split`` are the same.
        code: its name where the document has no ``id``, as for the members of an in-model configuration.
        path: where it lies in a larger document, for error paths.
        actions: the names registered for automation; others are reported in ``notices``.
        conditions: those of plugins.

    Raises:
        ValidationError: every fault, each with its path and remedy.
    """
    plain = canonical(document, path)
    faults = DEFINITION.faults(plain)
    if not faults:
        reader = _Reader(plain, actions, conditions)
        definition = reader.definition(code)
        faults = reader.problems
        if not faults:
            return definition
    raise ValidationError(
        problems=[Problem(join(path, each.path) if path else each.path, each.code, each.message) for each in faults]
    )


class _Reader:
    """One document, its problems and what it mentions that nobody registered."""

    def __init__(self, document: Mapping[str, Any], actions: Collection[str], conditions: Vocabulary) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.notices: list[Problem] = []
        self._actions = actions
        self._fields: Mapping[str, Mapping[str, Any]] | None = document.get("dataSchema")
        self._bounds()
        self._leads = lead_schema().with_plugins(conditions)
        self._schema = _names(self._fields).with_plugins(conditions) if not self.problems else self._leads

    def definition(self, code: str) -> Definition:
        document = self.document
        stages = read_stages(document.get("stages"), self.problems)
        required = tuple(document.get("required", ()))
        transitions = read_transitions(document.get("transitions", {}), stages, self.rule, self.problems)
        return Definition(
            code=document.get("id", code),
            title=document.get("name", document.get("id", code)),
            version=document.get("version"),
            stages=stages,
            transitions=transitions,
            channels=self._channels(),
            form=data_form(self._fields, required),
            defaults=self._defaults(),
            guards=self._guards(transitions),
            automation=self._automation(),
            message_class=MessageClass(document.get("message_class", MessageClass.MARKETING)),
            time_zone=self._zone(),
            segment=self._segment(),
            template=document.get("template"),
            roi=self._roi(),
            compliance=document.get("compliance", {}),
            notices=tuple(self.notices),
            document=document,
        )

    def rule(self, spelling: Any, path: str) -> Rule | None:
        """A condition over the campaign, or none and its faults among the problems."""
        try:
            condition = parse(spelling, self._schema, path)
        except ConditionError as error:
            self.problems += error.problems
            return None
        return Rule(str(spelling), condition, self._schema, compile_predicate(condition, self._schema, once=True))

    def _bounds(self) -> None:
        for name, kinds in misused_controls(self._fields or {}):
            text = f"Every launch knows {name}: declare it as {kinds}, or use another name."
            self.problems.append(Problem(f"dataSchema.{name}.type", "not_acceptable", text))
        for name, bound, kinds in misplaced_bounds(self._fields or {}):
            remedy = f"{bound} belongs to the types {kinds}" if kinds else 'an enum needs values, such as ["a", "b"]'
            path = f"dataSchema.{name}.{bound}"
            self.problems.append(Problem(path, "not_acceptable", f"This does not fit the type: {remedy}."))

    def _channels(self) -> tuple[ChannelUse, ...]:
        declared = self.document.get("channels", ())
        if isinstance(declared, Mapping):
            found = []
            for index, (name, use) in enumerate(declared.items()):
                path = join("channels", name)
                faults = CHANNEL.faults(use, path=path) if isinstance(use, Mapping) else [_not_a_channel(path)]
                self.problems += faults
                if not faults:
                    found.append(ChannelUse(name, **{"priority": _LAST + index, **use}))
            return tuple(sorted(found, key=lambda use: use.priority))
        self.problems += [
            _not_a_channel(join("channels", index)) for index, each in enumerate(declared) if not isinstance(each, str)
        ]
        return tuple(ChannelUse(str(name), priority=index) for index, name in enumerate(declared))

    def _defaults(self) -> dict[str, Any]:
        given = {name: rules["default"] for name, rules in (self._fields or {}).items() if "default" in rules}
        defaults = {**given, **self.document.get("data", {})}
        for name in ("budget", "currency"):
            if self.document.get(name) is not None:
                defaults[name] = self.document[name]
        if "budget" in defaults:
            self._money(defaults["budget"], "budget")
        return defaults

    def _money(self, amount: Any, path: str) -> None:
        try:
            minor_units(amount, self.document.get("currency"), path)
        except ValidationError as error:
            self.problems += error.problems

    def _guards(self, actions: Collection[str]) -> dict[str, tuple[Rule, ...]]:
        guards: dict[str, tuple[Rule, ...]] = {}
        for action, declared in self.document.get("guards", {}).items():
            path = join("guards", action)
            if action not in actions:
                self.problems.append(
                    Problem(path, "unknown_action", f"There is no move {action!a}{hint(action, actions)}.")
                )
            spellings = declared if isinstance(declared, list) else [declared]
            rules = [self.rule(each, path) for each in spellings]
            guards[action] = tuple(each for each in rules if each is not None)
        return guards

    def _automation(self) -> Automation:
        declared = self.document.get("automation", {})
        self.notices += unknown_actions(self.document, self._actions)
        return Automation(
            tuple(
                Step(parse_duration(each["delay"]), each["action"], each.get("template"))
                for each in declared.get("sequence", ())
            ),
            tuple(
                self._escalation(each, join("automation.escalation", index))
                for index, each in enumerate(declared.get("escalation", ()))
            ),
            tuple(
                self._trigger(each, join("automation.triggers", index))
                for index, each in enumerate(declared.get("triggers", ()))
            ),
            tuple(
                CampaignStep(**{**each, "delay": parse_duration(each.get("delay", "0 seconds"))})
                for each in declared.get("steps", ())
            ),
        )

    def _escalation(self, each: Mapping[str, Any], path: str) -> Escalation:
        said = {name: each[name] for name in ("level", "minimum", "data", "compensate") if name in each}
        said |= {
            ours: parse_duration(each[name])
            for name, ours in (("for", "hold_for"), ("cool_down", "cool_down"))
            if name in each
        }
        return Escalation(parse_duration(each["after"]), self._optional(each, path), each["action"], **said)

    def _trigger(self, each: Mapping[str, Any], path: str) -> TriggerRule:
        said = {name: each[name] for name in ("data", "compensate") if name in each}
        if "cool_down" in each:
            said["cool_down"] = parse_duration(each["cool_down"])
        return TriggerRule(each["event"], self._optional(each, path), each["action"], **said)

    def _optional(self, part: Mapping[str, Any], path: str) -> Rule | None:
        return self.rule(part["condition"], join(path, "condition")) if "condition" in part else None

    def _zone(self) -> str:
        zone = str(self.document.get("time_zone", "UTC"))
        if not is_zone(zone):
            self.problems.append(
                Problem("time_zone", "unknown_zone", f"{zone!a} is no IANA zone; write Europe/Berlin.")
            )
        return zone

    def _segment(self) -> Any:
        segment = self.document.get("targeting", {}).get("segment", self.document.get("segment"))
        if isinstance(segment, Mapping):
            path = "targeting.segment" if "targeting" in self.document else "segment"
            try:
                parse(segment, self._leads, path)
            except ConditionError as error:
                unknown = [each for each in error.problems if each.code == "unknown_field"]
                self.notices += unknown  # a field that a tenant declares is known only there
                self.problems += [each for each in error.problems if each not in unknown]
        return segment

    def _roi(self) -> Mapping[str, Any]:
        roi: Mapping[str, Any] = self.document.get("roi", {})
        for name in ("budget", "target_revenue"):
            if name in roi:
                self._money(roi[name], f"roi.{name}")
        if not _THRESHOLD.match(str(roi.get("threshold", "1x"))):
            self.problems.append(
                Problem("roi.threshold", "not_acceptable", "A threshold is a number or a multiple such as 2x.")
            )
        return roi


def _names(fields: Mapping[str, Mapping[str, Any]] | None) -> Schema:
    """What a condition may name: ``data.`` and ``campaign.``, and the data without prefix too."""
    kinds = field_types(fields or {})
    schema = campaign_schema(kinds)
    if fields is None:
        schema = Schema.of((Field("data", FieldType.JSON),)).extended(schema.fields.values())
    kinds = {**dict.fromkeys(_BARE, FieldType.JSON), **kinds}
    schema = schema.extended(Field(f"data.{name}", kind, ("data", name)) for name, kind in kinds.items())
    return schema.extended(Field(name, kind, ("data", name)) for name, kind in kinds.items())


def _not_a_channel(path: str) -> Problem:
    return Problem(path, "wrong_type", "A channel is a name in a list, or a name with its settings in a mapping.")
