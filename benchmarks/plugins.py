"""Plugins: what the host adds to a message that a plugin's channel hands over, and to a call into the sandbox."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import orjson

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import ChannelSession, Submission
from nexus_marketing.core.extensions import Figures
from nexus_marketing.delivery.senders import watched
from nexus_marketing.plugin import Capability
from nexus_marketing.plugin.testing import RecordingChannel, sample_batch, sample_content
from nexus_marketing.services.plugins.enabling import switch_on
from tests.common.databases import NOW, sqlite_runtime
from tests.common.factories import make_tenant
from tests.common.plugins import FaxChannel, fax_plugin, with_plugins
from tests.common.sandboxes import sandboxes

DISPATCH_TARGET = 3.0
SANDBOX_TARGET = 2.0
_CHUNK = 500
_WINDOW = 100

#: A metric of a stranger: what a click costs.
METRIC = """
from nexus_marketing.plugin import API_VERSION, Capability, Manifest

class CostPerClick:
    name, unit = "cost_per_click", "ct"
    def calculate(self, figures):
        clicks = figures.counts.get("clicked", 0)
        return figures.cost_minor / clicks if clicks else None

def includeme(config):
    config.add_marketing_plugin(Manifest("nexus-strange", "1", API_VERSION, frozenset({Capability.METRIC})))
    config.add_marketing_metric(CostPerClick)
"""
#: The other end of bare pipes, written by hand: reads a line of JSON, computes, writes one. No limit, no check, no sandbox.
BARE = """
import os, orjson
while line := os.read(0, 65536):
    figures = orjson.loads(line)
    os.write(1, orjson.dumps({"cost": figures["cost_minor"] / figures["counts"]["clicked"]}) + b"\\n")
"""


class _Journal:
    """Marks that nobody reads: those of the worker's file are the same on both sides."""

    def on_wire(self, ref: int) -> None:
        """Nothing."""

    def on_outcome(self, ref: int, kind: object) -> None:
        """Nothing."""


def plugins_dispatch(options: Options) -> Result:
    """Chunks of 500 messages to a plugin's channel: gate, tenant's settings and watch, against its session alone."""
    chunks = options.size(200, 60)
    with sqlite_runtime(options.run, options.folder, clock=FakeClock(NOW)) as bare:
        channel = FaxChannel()
        runtime = with_plugins(bare, fax_plugin(channel))
        tenant_id = make_tenant(runtime)
        with runtime.work(tenant_id) as ctx:
            switch_on(ctx, "nexus-fax", {"station": "s"})
        content, journal = sample_content(channel), _Journal()
        batches = _batches(channel)
        with runtime.work(tenant_id, mode="read") as ctx:

            def ours() -> None:
                settings = runtime.channel_settings(ctx.session, "fax")
                assert settings == {"station": "s"}
                hand_over(watched(runtime, "fax", channel.open(settings, content)))

            def reference() -> None:
                hand_over(channel.open({"station": "s"}, content))

            def hand_over(session: ChannelSession) -> None:
                for batch in batches:
                    assert sum(outcome is not None for outcome in session.submit(batch, journal)) == _WINDOW
                assert len(channel.sent) == _CHUNK
                channel.sent.clear()

            pair = paired(lambda: typical(ours, chunks), lambda: typical(reference, chunks), options.size(9, 3))
    notes = "per message; once a second the tenant's settings are read again, which a typical chunk does not see"
    return pair.result("plugins.dispatch", DISPATCH_TARGET, per=_CHUNK, unit="us", notes=notes)


def typical(step: Callable[[], None], times: int) -> float:
    """The median of so many: a step in which the machine did something else measures the machine."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _batches(channel: RecordingChannel) -> list[list[Submission]]:
    content = sample_content(channel)
    return [sample_batch(channel, content, _WINDOW, first) for first in range(0, _CHUNK, _WINDOW)]


def plugins_sandbox(options: Options) -> Result:
    """A call of a sandboxed metric, with figures and its answer, against the same JSON over bare pipes to a bare process."""
    calls = options.size(4_000, 300)
    counts = {"planned": 100, "accepted": 98, "opened": 40, "clicked": 12, "unsubscribed": 1, "converted": 3}
    figures = Figures(NOW, counts, cost_minor=5_000, revenue_minor=12_000, currency="EUR")
    with sandboxes(options.folder) as start:
        metric = start(METRIC).of(Capability.METRIC)["cost_per_click"]
        with subprocess.Popen([sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as echo:
            assert echo.stdin is not None
            assert echo.stdout is not None
            to, back = echo.stdin.fileno(), echo.stdout.fileno()

            def ours() -> None:
                assert metric.calculate(figures) == 5_000 / 12

            def reference() -> None:
                os.write(to, orjson.dumps(figures, option=orjson.OPT_APPEND_NEWLINE))
                assert orjson.loads(os.read(back, 65536))["cost"] == 5_000 / 12

            pair = paired(lambda: typical(ours, calls), lambda: typical(reference, calls), options.size(9, 3))
    return pair.result("plugins.sandbox", SANDBOX_TARGET, unit="us", notes="a typical call")


BENCHMARKS: dict[str, Callable[[Options], Result]] = {
    "plugins.dispatch": plugins_dispatch,
    "plugins.sandbox": plugins_sandbox,
}
