"""When a plugin is left alone for a while: it failed so often in a row that the next call would fail too.

What failed last is also kept in a file below ``state_dir``, so that ``doctor`` and ``plugins list``, which are processes
of their own, can say why.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from nexus_marketing.core.errors import Unavailable
from nexus_marketing.telemetry import NullTelemetry, Telemetry, get_logger

log = get_logger(__name__)

Note = TypeVar("Note")

#: Below ``state_dir``: what plugins failed at.
TROUBLES: Final = "plugins"
FAILURES: Final = 3
COOL_DOWN_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 600.0


class PluginFailed(Unavailable):
    """A plugin did not do what it was asked, or is left alone after that it did not; says why."""

    code = "plugin_failed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an operator is told of a plugin that fails: ``at`` in ISO 8601, ``is_open`` if it is left alone."""

    plugin: str
    reason: str
    failures: int
    is_open: bool
    at: str


class Circuit:
    """Of one plugin in one process; every method may be called from any thread.

    Args:
        plugin: its name.
        now_seconds: a clock that never goes back.
        now: for people.
        folder: where its trouble is written down; nowhere without it.
    """

    def __init__(
        self,
        plugin: str,
        now_seconds: Callable[[], float],
        now: Callable[[], datetime],
        folder: Path | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.plugin = plugin
        self._now_seconds, self._now = now_seconds, now
        self._file = None if folder is None else folder / f"{plugin}.json"
        self._telemetry = telemetry or NullTelemetry()
        self._lock = Lock()
        #: In a row, up to now.
        self.failures = 0
        self._reason = ""
        self._until = float("-inf")

    @property
    def open_seconds(self) -> float:
        """How long nothing is asked of it yet; 0 where it may be asked."""
        return max(0.0, self._until - self._now_seconds()) if self.failures else 0.0

    def check(self) -> None:
        """May it be asked?

        Raises:
            PluginFailed: not yet; says why and when.
        """
        if self.failures and (left := self.open_seconds):
            said = f"{self.plugin} is left alone after {self.failures} failures in a row: {self._reason}"
            raise PluginFailed(said, retry_after_seconds=left)

    def succeeded(self) -> None:
        """It did what it was asked."""
        if self.failures:
            with self._lock:
                self.failures, self._until = 0, float("-inf")
            log.info("plugin_recovered", plugin=self.plugin)
            if self._file is not None:
                self._file.unlink(missing_ok=True)

    def failed(self, reason: str) -> None:
        """It did not; the reason is ours, never the plugin's words, which may hold anything."""
        with self._lock:
            self.failures, self._reason = self.failures + 1, reason
            beyond = self.failures - FAILURES
            if beyond >= 0:
                self._until = self._now_seconds() + min(_LONGEST_SECONDS, COOL_DOWN_SECONDS * 2.0 ** min(beyond, 10))
            trouble = Trouble(self.plugin, reason, self.failures, beyond >= 0, self._now().isoformat())
        log.error("plugin_failed", plugin=self.plugin, reason=reason, failures=trouble.failures, left=trouble.is_open)
        self._telemetry.count("plugins.failed", plugin=self.plugin)
        self._write(trouble)

    def _write(self, trouble: Trouble) -> None:
        if self._file is None:
            return
        try:
            write_down(self._file, trouble)
        except OSError as error:  # a full disk must not fail what the plugin's failure did not
            log.warning("plugin_trouble_not_kept", plugin=self.plugin, error=str(error))


def troubles(folder: Path) -> Iterator[Trouble]:
    """What processes of this host last wrote down, by plugin."""
    return read_back(folder, Trouble)


def write_down(file: Path, note: Any) -> None:
    """Keep a data class for other processes of this host, whole or not at all.

    Raises:
        OSError: it could not be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(asdict(note)))
    draft.replace(file)


def read_back(folder: Path, kind: Callable[..., Note]) -> Iterator[Note]:
    """What was written down in a folder, by name of the file."""
    for file in sorted(folder.glob("*.json")):
        try:
            found: Mapping[str, Any] = json.loads(file.read_text())
            yield kind(**found)
        except (OSError, ValueError, TypeError):
            continue  # it is being replaced, or was written by another version
