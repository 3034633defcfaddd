"""A word of one's own in the language of conditions."""

from datetime import date
from typing import Any, Final

from nexus_marketing.plugin import ConditionContext, Parameter, ValueKind

_LAST_YEAR: Final = 9999


class Anniversary:
    """``anniversary(7)``: the day on which the lead came comes round again within so many days, today without a number."""

    name = "anniversary"
    version = 1
    parameters = (Parameter("days", ValueKind.NUMBER, is_required=False),)
    reads = frozenset({"created_at"})
    reads_clock = True

    def evaluate(self, context: ConditionContext) -> bool:
        """Whether there is such a day, in this year or the next."""
        came, today = _day(context.values.get("created_at")), context.today
        days = context.arguments.get("days", 0)
        if came is None:
            return False
        years = [year for year in (today.year, today.year + 1) if came.year < year <= _LAST_YEAR]
        return any(0 <= (_in_year(came, year) - today).days <= days for year in years)


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def _in_year(day: date, year: int) -> date:
    """The same day of another year; who came on a 29th of February is remembered on the 28th."""
    try:
        return day.replace(year=year)
    except ValueError:
        return day.replace(year=year, day=28)
