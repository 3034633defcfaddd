"""What a process gives to the plugins that it takes in: grants, the way out, circuits."""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.plugin.circuits import Circuit
from nexus_marketing.plugin.exchanges import Http
from nexus_marketing.plugin.granted import GrantedHttp, grant_for
from nexus_marketing.plugin.manifests import Manifest
from nexus_marketing.plugin.measured import Overruns
from nexus_marketing.settings import HttpSettings, PluginSettings, http_settings, plugin_settings
from nexus_marketing.telemetry import Telemetry


class Host:
    """What the contexts of one process are made from; its client is closed with the process."""

    def __init__(
        self,
        plugins: PluginSettings | None = None,
        http: HttpSettings | None = None,
        clock: Clock | None = None,
        now_seconds: Callable[[], float] = time.monotonic,
        folder: Path | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.plugins = plugins or PluginSettings()
        self._http = http or HttpSettings()
        self.clock = clock or SystemClock()
        self.now_seconds = now_seconds
        self._folder, self._telemetry = folder, telemetry
        self._circuits: dict[str, Circuit] = {}
        self.overruns = Overruns()

    @classmethod
    def read(cls, raw: Mapping[str, str]) -> "Host":
        """Of an ini section.

        Raises:
            ConfigurationError: a setting of plugins or of the way out cannot be read.
        """
        return cls(plugin_settings(raw), http_settings(raw))

    def http(self, manifest: Manifest, *, is_trusted: bool) -> GrantedHttp:
        """The way out of a plugin."""
        grant = grant_for(manifest.name, manifest.hosts, self.plugins, is_trusted=is_trusted)
        return GrantedHttp(manifest.name, grant, lambda: self.client, self.now_seconds)

    def circuit(self, plugin: str) -> Circuit:
        """The one circuit of a plugin in this process."""
        return self._circuits.setdefault(
            plugin, Circuit(plugin, self.now_seconds, self.clock.now, self._folder, self._telemetry)
        )

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
