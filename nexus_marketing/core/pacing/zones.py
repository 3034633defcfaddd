"""Where a lead's clock stands: its own time zone, else every zone of its country (IANA tz database, ``zone.tab``)."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

UTC_ZONE = ZoneInfo("UTC")


def zone_of(time_zone: str | None, default: ZoneInfo) -> ZoneInfo:
    """The one zone whose calendar counts for a lead."""
    return zone_named(time_zone) or default


def zones_of(time_zone: str | None, country: str | None, default: ZoneInfo) -> tuple[ZoneInfo, ...]:
    """Every zone a lead may live in: what must not happen at night must be allowed in all of them.

    >>> [zone.key for zone in zones_of(None, "DE", UTC_ZONE)]
    ['Europe/Berlin', 'Europe/Busingen']
    """
    own = zone_named(time_zone)
    if own is not None:
        return (own,)
    return _zones_by_country().get((country or "").upper(), (default,))


@cache
def zone_named(name: str | None) -> ZoneInfo | None:
    """A zone, or nothing where there is none of that name any more."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        return None


@cache
def _zones_by_country() -> Mapping[str, tuple[ZoneInfo, ...]]:
    found: dict[str, tuple[ZoneInfo, ...]] = {}
    table = (files("tzdata") / "zoneinfo" / "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line.startswith("#"):
            continue
        country, _, name = line.split("\t")[:3]
        zone = zone_named(name)
        if zone is not None:
            found[country] = (*found.get(country, ()), zone)
    return found
