"""From a plugin's condition to a word of the language: it is told what it declared, and believed only what it may answer.

What raises, answers anything but true or false, or takes too long counts against the plugin's circuit; whoever asked
hears that nothing was decided, and leaves what there is as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from time import perf_counter
from typing import Any, Final, Protocol, cast

from nexus_marketing.core.conditions import (
    Argument,
    Condition,
    Custom,
    CustomOperator,
    Dependencies,
    Evaluation,
    FieldType,
    Literal,
    Schema,
    Vocabulary,
    lead_schema,
    parse_json,
)
from nexus_marketing.core.conditions.evaluate import reader
from nexus_marketing.core.conditions.parse import parse_text
from nexus_marketing.core.conditions.schema import Record
from nexus_marketing.core.conditions.tree import leaves
from nexus_marketing.core.errors import ConditionError, ConditionUnavailable, NexusError
from nexus_marketing.core.extensions import ConditionContext, ConditionEvaluator, Parameter, SqlCondition, ValueKind
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.plugin.circuits import Circuit, PluginFailed

#: Trees kept of what plugins say of themselves, for each of their conditions.
_KEPT: Final = 1_000
_MOST_PARAMETERS: Final = 20
_Arguments = tuple[Literal, ...]


class AskedTogether(Protocol):
    """A condition that is asked about many leads in one call, as those in the sandbox are."""

    def evaluate_all(self, contexts: Sequence[ConditionContext]) -> Sequence[bool]:
        """What it says of each."""
        ...


def declaration_faults(thing: ConditionEvaluator) -> list[str]:
    """What is wrong with what a condition says of itself, each as a sentence; it is not asked anything."""
    faults = [] if _is_word(thing.name) else [f"{thing.name} means something else in conditions: choose another name."]
    if isinstance(thing.version, bool) or thing.version < 1:
        faults.append("version is below 1: begin with 1 and raise it with every change of what it answers.")
    given: Sequence[object] = thing.parameters
    parameters = [each for each in given if isinstance(each, Parameter)]
    names = [each.name for each in parameters]
    if len(names) < len(given) or len(names) > _MOST_PARAMETERS:
        faults.append(f"parameters are up to {_MOST_PARAMETERS} of nexus_marketing.plugin.Parameter.")
    if len(set(names)) < len(names):
        faults.append(f"parameters name one thing twice: {', '.join(names)}.")
    required = [each.is_required for each in parameters]
    if required != sorted(required, reverse=True):
        faults.append("parameters that may be left out come last.")
    schema = lead_schema()
    for name in sorted(thing.reads):
        if schema.find(name) is None:
            said = f"{schema.unknown(name).partition(';')[0]}: a tenant's own field is read as metadata.{name}."
            faults.append(f"reads {name!a}, and {said}")
    return faults


def operator_of(
    thing: ConditionEvaluator,
    circuit: Circuit,
    call_seconds: float,
    now_seconds: Callable[[], float] = perf_counter,
) -> CustomOperator:
    """A condition as the language asks it.

    Args:
        thing: the plugin's.
        circuit: of the plugin.
        call_seconds: how long it may take over what it is asked at once.
        now_seconds: a clock that never goes back.
    """
    schema = lead_schema()
    asking = _Asking(thing, circuit, call_seconds, now_seconds, schema)
    reads = frozenset(schema.resolve(name).name for name in thing.reads)
    return CustomOperator(
        thing.name,
        asking.one,
        asking.tree if callable(getattr(thing, "to_sql", None)) else None,
        Dependencies(fields=reads, clock=thing.reads_clock),
        tuple(Argument(each.name, FieldType(str(ValueKind(each.kind))), each.is_required) for each in thing.parameters),
        thing.version,
        asking.all,
    )


class _Asking:
    """One condition of a plugin; may be asked from any thread."""

    def __init__(
        self,
        thing: ConditionEvaluator,
        circuit: Circuit,
        call_seconds: float,
        now_seconds: Callable[[], float],
        schema: Schema,
    ) -> None:
        self._thing, self._circuit = thing, circuit
        self._call_seconds, self._now = call_seconds, now_seconds
        self._reads = [(name, reader(schema.resolve(name), schema)) for name in sorted(thing.reads)]
        self._ask = self._together if callable(getattr(thing, "evaluate_all", None)) else self._measured
        self.tree: Callable[[_Arguments], Condition] = lru_cache(maxsize=_KEPT)(self._tree)

    def one(self, arguments: _Arguments, record: Record, evaluation: Evaluation) -> bool:
        return self.all(arguments, [record], evaluation)[0]

    def all(self, arguments: _Arguments, records: Sequence[Record], evaluation: Evaluation) -> list[bool]:
        told, today, reads = self._told(arguments), evaluation.today, self._reads
        contexts = []
        for record in records:
            values = {}
            for name, read in reads:
                value = read(record)
                if value is not None:
                    values[name] = _plain(value)
            contexts.append(ConditionContext(told, values, today))
        return self._ask(contexts) if contexts else []

    def _told(self, arguments: _Arguments) -> dict[str, Any]:
        named = zip(self._thing.parameters, arguments, strict=False)
        return {parameter.name: _plain(literal.value) for parameter, literal in named}

    def _together(self, contexts: Sequence[ConditionContext]) -> list[bool]:
        """Of one in the sandbox, which is watched where its process is."""
        try:
            return list(cast("AskedTogether", self._thing).evaluate_all(contexts))
        except PluginFailed as error:
            raise self._unavailable(error.message, error.retry_after_seconds) from error

    def _measured(self, contexts: Sequence[ConditionContext]) -> list[bool]:
        circuit, evaluate = self._circuit, self._thing.evaluate
        try:
            circuit.check()
            begun = self._now()
            found = [evaluate(each) for each in contexts]
        except PluginFailed as error:
            raise self._unavailable(error.message, error.retry_after_seconds) from error
        except Exception as error:
            raise self._failed(f"it raised {type(error).__name__}") from error
        taken = self._now() - begun
        if not all(answer is True or answer is False for answer in found):
            raise self._failed("it answered neither True nor False")
        if taken > self._call_seconds:
            circuit.failed(f"{self._thing.name}() took {taken:.1f} s, more than {self._call_seconds:g} s")
        elif circuit.failures:
            circuit.succeeded()
        return found

    def _tree(self, arguments: _Arguments) -> Condition:
        try:
            document = cast("SqlCondition", self._thing).to_sql(self._told(arguments))
            tree = parse_json(document)
        except PluginFailed as error:
            raise self._unavailable(error.message, error.retry_after_seconds) from error
        except ConditionError as error:
            raise self._failed(f"what to_sql answers is no condition: {error.message}") from error
        except NexusError:
            raise
        except Exception as error:
            raise self._failed(f"its to_sql raised {type(error).__name__}") from error
        if any(isinstance(leaf, Custom) for leaf in leaves(tree)):
            raise self._failed("what to_sql answers names a condition of a plugin")
        return tree

    def _failed(self, reason: str) -> ConditionUnavailable:
        self._circuit.failed(f"{self._thing.name}(): {reason}")
        return self._unavailable(reason)

    def _unavailable(self, reason: str, after_seconds: float = 1.0) -> ConditionUnavailable:
        said = f"{self._thing.name}() cannot be asked now: {reason}."
        return ConditionUnavailable(said, retry_after_seconds=after_seconds)


def vocabulary_of(
    operators: Mapping[str, tuple[str, CustomOperator]], on: frozenset[str] | None, *, is_saved: bool
) -> Vocabulary:
    """The conditions that may be asked where some plugins are on.

    Args:
        operators: of all plugins, by name, with the plugin of each; ``""`` for what is built in.
        on: the plugins that are on; all of them where it is left out.
        is_saved: as :class:`Vocabulary` says.
    """
    there = {name: each for name, (plugin, each) in operators.items() if on is None or not plugin or plugin in on}
    withheld = {
        name: f"{name}() belongs to the plugin {plugin}, which is off: nexus-marketing plugins enable {plugin}"
        for name, (plugin, _) in operators.items()
        if name not in there
    }
    return Vocabulary(there, withheld, is_saved)


def _plain(value: object) -> Any:
    """As JSON has it: the same on both sides of the sandbox, and on both databases."""
    if isinstance(value, datetime):
        return canonical_datetime(value)
    return value.isoformat() if isinstance(value, date) else value


def _is_word(name: str) -> bool:
    try:
        return parse_text(f"{name}()") == Custom(name)
    except ConditionError:
        return False
