"""What a simulation takes for granted: how people answer, what messages cost, and the tenant's rules.

>>> read_rates(["clicks=0.05"]).clicks
0.05
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final
from zoneinfo import ZoneInfo

from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.pacing.frequency import DEFAULT_CAPS, Cap, caps_of
from nexus_marketing.core.pacing.quiet import QuietHours, quiet_hours_of
from nexus_marketing.core.pacing.zones import UTC_ZONE, zone_named
from nexus_marketing.core.privacy import ConsentPolicy

_EVENT: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Shares, from 0 to 1, of the messages sent, and of approvals asked for.

    Opens and clicks are of e-mails; whoever clicks has opened. ``events`` are shares of messages after which people do
    something of that name. ``cost_per_1000`` is in minor units, by channel.
    """

    opens: float = 0.30
    clicks: float = 0.03
    unsubscribes: float = 0.002
    failures: float = 0.01
    approvals: float = 1.0
    events: Mapping[str, float] = field(default_factory=lambda: {"conversion": 0.005})
    cost_per_1000: Mapping[str, int] = field(default_factory=dict)

    def shares(self) -> dict[str, float]:
        """All of them, by name."""
        said = {name: value for name, value in asdict(self).items() if isinstance(value, float)}
        return {**said, **self.events}


_NAMED: Final = frozenset(each.name for each in fields(Assumptions)) - {"events", "cost_per_1000"}
_SYNONYMS: Final = {"conversions": "conversion"}


def read_rates(given: Iterable[str], cost_per_1000: Mapping[str, int] | None = None) -> Assumptions:
    """Assumptions from ``NAME=SHARE``; a name that is none of ours is an event.

    Raises:
        ValidationError: every one that is no pair, no share or no name.
    """
    problems: list[Problem] = []
    said: dict[str, Any] = {}
    events = dict(Assumptions().events)
    for text in given:
        name, _, value = text.partition("=")
        name = _SYNONYMS.get(name, name)
        share = _share(value)
        if share is None or not _EVENT.match(name):
            remedy = "write NAME=SHARE with a share from 0 to 1, such as clicks=0.05 or order_placed=0.01"
            problems.append(Problem("--rate", "not_a_share", f"{text!r} is no rate: {remedy}."))
        elif name in _NAMED:
            said[name] = share
        else:
            events[name] = share
    if problems:
        raise ValidationError(problems=problems)
    return Assumptions(**said, events=events, cost_per_1000=cost_per_1000 or {})


@dataclass(frozen=True, slots=True)
class Pacing:
    """A tenant's rules: caps (BR-001 unless it says otherwise), quiet hours, whose consent is needed, and its clock."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    caps: Sequence[Cap] = DEFAULT_CAPS
    zone: ZoneInfo = UTC_ZONE
    consent: ConsentPolicy = ConsentPolicy.EU

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Pacing":
        """From a tenant's checked settings."""
        zone = zone_named(settings.get("default_time_zone")) or UTC_ZONE
        return cls(settings, caps_of(settings), zone, ConsentPolicy(settings.get("consent_policy", ConsentPolicy.EU)))

    def quiet_hours(self, channel: str, own: Sequence[Mapping[str, Any]]) -> tuple[QuietHours, ...]:
        """The tenant's for a channel, and those of the journey and the message: all of them hold."""
        return (*quiet_hours_of(self.settings, channel), *quiet_hours_of({"quiet_hours": own}, channel))


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
