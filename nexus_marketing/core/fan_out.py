"""One launch over several channels at once: which they are, and how many of them have to be through (BR-008).

>>> [leg.channel for leg in legs_of("email", 7, {"sms": {"template_id": "8"}, "email": {"template_id": "7"}})]
['sms', 'email']
>>> needed("all", 3), needed("any", 3), needed("2", 3)
(3, 1, 2)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nexus_marketing.core.errors import ValidationError

#: Of one launch (PR-005).
MAX_CHANNELS: Final = 10
ALL: Final = "all"
ANY: Final = "any"


@dataclass(frozen=True, slots=True)
class Leg:
    """One channel of a launch and the template that goes out by it.

    ``at`` is where the campaign says so: paths of its problems begin with it, empty for a campaign of one channel.
    """

    channel: str
    template_id: int | None
    at: str = ""

    def path(self, field: str) -> str:
        """Where a field of this leg stands in the campaign."""
        return f"{self.at}.{field}" if self.at else field


def legs_of(channel: str, template_id: int | None, channels: Mapping[str, Any] | None) -> list[Leg]:
    """What a campaign goes out by: its ``channels`` where it has any, else the one."""
    if not channels:
        return [Leg(channel, template_id)]
    return [Leg(name, _id(about.get("template_id")), f"channels.{name}") for name, about in channels.items()]


def needed(wait_for: str, count: int) -> int:
    """How many of so many channels have to be through before the campaign goes on."""
    if wait_for == ALL:
        return count
    return 1 if wait_for == ANY else min(int(wait_for), count)


def check_wait_for(value: str | int, count: int) -> str:
    """What a campaign waits for, as it is stored.

    Raises:
        ValidationError: it is neither ``all``, ``any`` nor a number of channels that there are.
    """
    text = str(value)
    if text in (ALL, ANY):
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= count):
        said = f"{value!r} is nothing to wait for: write all, any, or a number of channels from 1 to {count}."
        raise ValidationError.at("wait_for", "out_of_bounds", said)
    return str(int(text))


def _id(value: Any) -> int | None:
    return None if value is None else int(value)
