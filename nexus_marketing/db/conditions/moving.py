"""The values that a condition compares with the clock, as columns, and when the clock passes them.

A comparison of a field with ``now() - 30 days`` can change its answer only for values between the boundary of one
moment and the boundary of a later one. Both ends are rounded outwards where days differ by zone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from nexus_marketing.core.conditions import Clock, ClockKind, Condition, Evaluation, FieldRef, FieldType, Schema
from nexus_marketing.core.conditions.check import comparison_type
from nexus_marketing.core.conditions.clock import LATEST, is_zone, start_of_day
from nexus_marketing.core.conditions.dependencies import clock_leaves
from nexus_marketing.core.conditions.tree import expressions
from nexus_marketing.db.conditions.compiler import dated_column, moment_of

Moment = date | datetime
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moving:
    """One comparison with the clock: ``value`` is the field's column (or its text in JSON)."""

    value: Any
    clock: Clock
    kind: FieldType
    column_type: Any

    def bind(self, moment: Moment) -> Any:
        """A boundary as the column's own kind of value."""
        return moment_of(moment, self.kind, self.column_type)

    def least(self, evaluation: Evaluation, zones: Sequence[str]) -> Moment:
        """The lowest boundary of a moment, over all zones that leads live in."""
        return min(self._boundaries(evaluation, zones))

    def most(self, evaluation: Evaluation, zones: Sequence[str]) -> Moment:
        """The highest boundary of a moment."""
        return max(self._boundaries(evaluation, zones))

    def passes(self, value: Any, evaluation: Evaluation, zones: Sequence[str]) -> datetime:
        """The first moment after now at which the boundary reaches a value, or leaves the one that it is at."""
        if self.kind is FieldType.DATETIME and self.clock.kind is ClockKind.NOW:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else value
            return max(_moved(moment, -self.clock.offset_seconds), evaluation.now + _TICK)
        moved = timedelta(seconds=-self.clock.offset_seconds) if self.clock.kind is ClockKind.NOW else timedelta()
        days = [(evaluation.zone, _today(evaluation, self.clock, evaluation.zone))]
        if self.clock.kind is ClockKind.LOCAL_TODAY:
            days += [(zone, _today(evaluation, self.clock, zone)) for zone in zones if is_zone(zone)]
        return min(start_of_day(day + timedelta(days=1), zone) + moved for zone, day in days)

    def _boundaries(self, evaluation: Evaluation, zones: Sequence[str]) -> Iterable[Any]:
        if self.kind is FieldType.DATETIME:
            return [evaluation.instant(self.clock)]
        if self.clock.kind is not ClockKind.LOCAL_TODAY:
            return [evaluation.day(self.clock)]
        return [evaluation.day(self.clock), *(evaluation.local_day(self.clock, zone) for zone in zones)]


def moving_values(condition: Condition, schema: Schema, columns: Mapping[str, Any], dialect: str) -> list[Moving]:
    """Every pair of a field and a reading of the clock that a condition compares."""
    found = []
    for leaf in clock_leaves(condition, schema):
        kind = comparison_type(leaf, schema)
        fields = [each for each in expressions(leaf) if isinstance(each, FieldRef)]
        for clock in expressions(leaf):
            if isinstance(clock, Clock):
                found += [Moving(*_column(each, schema, columns, dialect, kind, clock)) for each in fields]
    return found


def _column(
    field: FieldRef, schema: Schema, columns: Mapping[str, Any], dialect: str, kind: FieldType, clock: Clock
) -> tuple[Any, Clock, FieldType, Any]:
    value, column_type = dated_column(schema.resolve(field.name), columns, dialect, kind)
    return value, clock, kind, column_type


def _today(evaluation: Evaluation, clock: Clock, zone: str) -> date:
    """The day whose end moves the boundary: today there, or the day that a moved clock shows."""
    offset = clock.offset_seconds if clock.kind is ClockKind.NOW else 0
    return evaluation.local_day(Clock(ClockKind.NOW, offset), zone)


def _moved(moment: datetime, seconds: int) -> datetime:
    try:
        return min(moment + timedelta(seconds=seconds), LATEST)
    except OverflowError:
        return LATEST
