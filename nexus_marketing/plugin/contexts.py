"""What a plugin is given when it is included: the way out, a clock, and the operator's settings for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.plugin.exchanges import Http
from nexus_marketing.plugin.granted import GrantedHttp, grant_for
from nexus_marketing.plugin.manifests import Manifest
from nexus_marketing.settings import HttpSettings, PluginSettings

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


class Host:
    """What the contexts of one process are made from; its client is closed with the process."""

    def __init__(
        self,
        plugins: PluginSettings | None = None,
        http: HttpSettings | None = None,
        clock: Clock | None = None,
        now_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plugins = plugins or PluginSettings()
        self._http = http or HttpSettings()
        self.clock = clock or SystemClock()
        self.now_seconds = now_seconds

    @classmethod
    def read(cls, raw: Mapping[str, str]) -> "Host":
        """Of an ini section.

        Raises:
            ConfigurationError: a setting of plugins or of the way out cannot be read.
        """
        return cls(PluginSettings.read(raw), HttpSettings.read(raw))

    def http(self, manifest: Manifest, *, is_trusted: bool) -> GrantedHttp:
        """The way out of a plugin."""
        grant = grant_for(manifest.name, manifest.hosts, self.plugins, is_trusted=is_trusted)
        return GrantedHttp(manifest.name, grant, lambda: self.client, self.now_seconds)

    @cached_property
    def client(self) -> Http:
        """The guarded way out, made when the first plugin needs it."""
        from nexus_marketing.plugin.http import HttpClient, HttpLimits  # noqa: PLC0415 - loads the HTTP client

        return HttpClient(HttpLimits(allow_hosts=self._http.allow_hosts))

    def close(self) -> None:
        """Let go of connections."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()


def own_settings(raw: Mapping[str, str], plugin: str, module: str) -> dict[str, str]:
    """A plugin's own lines of an ini section, never one of ours.

    >>> own_settings({"slack.team": "T1", "nexus.secret_key": "x", "other.x": "y"}, "nexus-slack", "nexus_slack")
    {'team': 'T1'}
    """
    top = module.partition(".")[0]
    names = {plugin, top, top.removeprefix(_PREFIX)} - {"nexus"}
    split = [(*key.partition("."), value) for key, value in raw.items()]
    return {rest: value for name, dot, rest, value in split if dot and name in names}
