"""Campaigns that are sent again and again: a rule of cron, by the clock of a place.

>>> rule = read_recurrence({"cron": "0 9 * * mon", "time_zone": "Europe/Berlin", "count": 3})
>>> rule.next_after(datetime(2026, 3, 27, tzinfo=UTC)).isoformat()
'2026-03-30T07:00:00+00:00'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.zones import zone_named
from nexus_marketing.core.values import DATE_SHAPE, parse_date, parse_datetime

#: Whoever is due more often than this is meant to be something else than a campaign.
SHORTEST: Final = timedelta(minutes=5)
_LOOKED_AT: Final = 50
_FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When a campaign is sent: at each moment that ``cron`` names in ``zone``, until a moment or so many times.

    Where clocks are put forward, a moment that does not exist is the next one that does; of one that comes twice it is
    the first (as cron itself does).
    """

    cron: str
    zone: ZoneInfo
    until: datetime | None = None
    count: int | None = None

    def next_after(self, moment: datetime, runs: int = 0) -> datetime | None:
        """The first time (UTC) after a moment, where there were so many runs before; nothing when it is over."""
        if self.count is not None and runs >= self.count:
            return None
        found = next(CronSim(self.cron, moment.astimezone(self.zone)), None)
        if found is None or (self.until is not None and found > self.until):
            return None
        return found.astimezone(UTC)


def read_recurrence(document: Mapping[str, Any], default_zone: str | None = None) -> Recurrence:
    """A rule as a campaign writes it down.

    Args:
        document: ``cron`` (minute, hour, day, month, weekday), and if wanted ``time_zone``, ``until`` (a day, which
            counts, or a moment) and ``count`` (1 to 10,000).
        default_zone: of the tenant.

    Raises:
        ValidationError: the first fault, at its key.
    """
    name = document.get("time_zone") or default_zone or "UTC"
    zone = zone_named(name)
    if zone is None:
        raise ValidationError.at(
            "time_zone", "not_a_time_zone", f"{name!r} is no time zone: write one as Europe/Berlin."
        )
    rule = Recurrence(
        " ".join(str(document.get("cron", "")).split()), zone, _until(document, zone), document.get("count")
    )
    _check(rule)
    return rule


def _check(rule: Recurrence) -> None:
    said = f"{rule.cron!r} is no rule: write minute, hour, day, month and weekday, such as '0 9 * * mon'."
    if len(rule.cron.split()) != _FIELDS:
        raise ValidationError.at("cron", "not_a_rule", said)
    try:
        times = list(islice(CronSim(rule.cron, datetime(2026, 1, 1, tzinfo=UTC)), _LOOKED_AT))
    except CronSimError as error:
        raise ValidationError.at("cron", "not_a_rule", f"{said[:-1]} ({str(error).lower()}).") from error
    if any(later - sooner < SHORTEST for sooner, later in pairwise(times)):
        minutes = int(SHORTEST.total_seconds() // 60)
        raise ValidationError.at("cron", "too_often", f"{rule.cron!r} is more often than every {minutes} minutes.")


def _until(document: Mapping[str, Any], zone: ZoneInfo) -> datetime | None:
    text = document.get("until")
    if text is None:
        return None
    if DATE_SHAPE.match(str(text)):
        day = parse_date(str(text), "until")
        after = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
        return after - timedelta(microseconds=1)
    return parse_datetime(str(text), "until")
