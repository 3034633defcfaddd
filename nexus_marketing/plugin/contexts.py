"""What a plugin is given when it is included: the way out, a clock, and the operator's settings for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nexus_marketing.core.clock import Clock
from nexus_marketing.plugin.exchanges import Http

_PREFIX: Final = "nexus_"


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What ``config.add_marketing_plugin`` answers: the same in our processes and in the sandbox.

    ``settings`` are the lines of the ini file that begin with the plugin's name (``nexus-slack.…``), its module or that
    without ``nexus_`` (``slack.…``), without what they begin with.
    """

    name: str
    http: Http
    clock: Clock
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)


def own_settings(raw: Mapping[str, str], plugin: str, module: str) -> dict[str, str]:
    """A plugin's own lines of an ini section, never one of ours.

    >>> own_settings({"slack.team": "T1", "nexus.secret_key": "x", "other.x": "y"}, "nexus-slack", "nexus_slack")
    {'team': 'T1'}
    """
    top = module.partition(".")[0]
    names = {plugin, top, top.removeprefix(_PREFIX)} - {"nexus"}
    split = [(*key.partition("."), value) for key, value in raw.items()]
    return {rest: value for name, dot, rest, value in split if dot and name in names}
