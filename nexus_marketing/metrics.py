"""Counters and timings for Prometheus, of all processes of this host together.

Each process writes its figures into files of one folder; whichever is asked adds them up. Labels carry no ids of
tenants or people: their number must stay small.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "nexus_"
_FOLDER_SETTING: Final = "PROMETHEUS_MULTIPROC_DIR"
#: From a millisecond to ten minutes: hand-overs and journeys of hours are told apart elsewhere.
_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600, float("inf"))


class PrometheusTelemetry:
    """Counts into files of ``folder``. One per process: the library takes its folder from the environment, once.

    Raises:
        ConfigurationError: this process counts into another folder already.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if os.environ.setdefault(_FOLDER_SETTING, str(folder)) != str(folder):
            raise ConfigurationError(
                f"This process counts into {os.environ[_FOLDER_SETTING]} already: give nexus.metrics_token to one "
                f"application of a process, or leave {_FOLDER_SETTING} unset."
            )
        self.folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def point(self, name: str) -> None:
        """Nothing: these are for traces."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to ``nexus_<name>_total``."""
        if amount:
            self._metric("Counter", name, labels).inc(amount)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Put into a bucket of ``nexus_<name>_seconds``."""
        self._metric("Histogram", f"{name}_seconds", labels, buckets=_BUCKETS).observe(seconds)

    def exposition(self, gauges: Iterable[tuple[str, str, list[tuple[dict[str, str], float]]]]) -> bytes:
        """Everything that all processes counted, and these gauges, as Prometheus reads it.

        Args:
            gauges: name, what it means, and its values with their labels.
        """
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - reads its folder when loaded
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self.folder))  # type: ignore[no-untyped-call]
        registry.register(_Gauges(gauges))
        return generate_latest(registry)

    def _metric(self, kind: str, name: str, labels: dict[str, str], **options: Any) -> Any:
        metric = self._known.get(name)
        if metric is None:
            with self._lock:
                metric = self._known.get(name) or self._made(kind, name, sorted(labels), options)
                self._known[name] = metric
        return metric.labels(**labels) if labels else metric

    def _made(self, kind: str, name: str, labels: list[str], options: dict[str, Any]) -> Any:
        import prometheus_client  # noqa: PLC0415 - reads its folder when loaded

        registry = prometheus_client.CollectorRegistry()
        words = name.replace("_", " ").replace(".", ": ")
        make = getattr(prometheus_client, kind)
        metric = make(_PREFIX + name.replace(".", "_"), words, labels, registry=registry, **options)
        return metric if self._has_room() else _Uncounted()

    def _has_room(self) -> bool:
        """Take the disk's room for this process's files now: a page that cannot be had later would end the process."""
        try:
            for path in self.folder.glob(f"*_{os.getpid()}.db"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            log.warning("metrics_without_room", folder=str(self.folder), error=str(error))
            return False
        return True


class _Uncounted:
    """Stands for a metric that there is no room for."""

    def labels(self, **_labels: str) -> "_Uncounted":
        return self

    def inc(self, _amount: int) -> None:
        return

    def observe(self, _seconds: float) -> None:
        return


class _Gauges:
    """What is asked of the database when somebody looks."""

    def __init__(self, gauges: Iterable[tuple[str, str, list[tuple[dict[str, str], float]]]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Any]:
        """In the library's form."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - reads its folder when loaded

        for name, meaning, values in self._gauges:
            family = GaugeMetricFamily(_PREFIX + name, meaning, labels=sorted(values[0][0]) if values else ())
            for labels, value in values:
                family.add_metric([labels[key] for key in sorted(labels)], value)
            yield family
