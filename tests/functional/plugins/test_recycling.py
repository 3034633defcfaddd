"""A trusted plugin that takes longer than it may: the worker begins anew, and nobody is lost or written to twice."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.core.clock import SystemClock
from nexus_marketing.plugin import Capability
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.settings import PluginSettings
from nexus_marketing.tasks.worker import run
from tests.common.plugins import FaxChannel, fax_plugin, manifest, with_plugins
from tests.functional.plugins.sending import launch, states

pytestmark = [pytest.mark.req("SR-004", "S17", "REL-002"), pytest.mark.parametrize("dialect", ["sqlite"])]

#: Remembers whom it wrote to; what it does to one of them never ends.
STUCK = """
import time
from functools import partial
from nexus_marketing.plugin import *

MANIFEST = Manifest("nexus-stuck", "1", API_VERSION, frozenset({Capability.CHANNEL}))

class Channel:
    name = "stuck"
    capabilities = Capabilities(AddressKind.NONE, max_in_flight=1)
    def __init__(self, path):
        self.path = path
    def validate(self, settings):
        pass
    def open(self, settings, content):
        return SerialSession(self.hand_over)
    def hand_over(self, submission, leaving):
        leaving()
        name = submission.values["var:first_name"]
        with open(self.path, "a") as file:
            file.write(name + "\\n")
        while name == "First2":
            time.sleep(1)
        return Outcome(submission.ref, OutcomeKind.ACCEPTED)

def includeme(config):
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_channel(Channel(config.registry.settings["stuck.path"]))
"""


@pytest.fixture
def handlers() -> Iterator[None]:
    """A worker takes these signals for itself."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_worker_ends_in_good_order_after_a_call_that_came_back_late(
    runtime: Runtime, tenant: int, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = PluginSettings(call_seconds=0.1, recycle_seconds=0)
    bare = replace(runtime, settings=replace(runtime.settings, plugins=limits))
    channel = FaxChannel()
    monkeypatch.setattr(channel, "on_batch", lambda batch: time.sleep(0.12))
    process = with_plugins(bare, fax_plugin(channel))
    with process.work(tenant) as ctx:
        switch_on(ctx, "nexus-fax")
    launch(process, tenant, "fax", 3)
    assert run(process) is True
    assert states(process, tenant) == Counter(accepted=3)
    assert process.plugins.host.overruns.plugin == "nexus-fax"


def test_a_call_that_never_comes_back_costs_the_process_and_nobody_else(
    runtime: Runtime, tenant: int, tmp_path: Path
) -> None:
    settings, sent = runtime.settings, tmp_path / "sent.txt"
    (tmp_path / "nexus_stuck.py").write_text(STUCK)
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path / "state"),
        "nexus.smtp.port": "1",
        "nexus.chunk_size": "2",
        "nexus.includes": "nexus_stuck",
        "nexus.plugins.call_seconds": "0.1",
        "nexus.plugins.recycle_seconds": "0",
        "stuck.path": str(sent),
    }
    ini = tmp_path / "test.ini"
    ini.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))
    main = "import sys; from nexus_marketing.cli import main; sys.argv[0] = 'nexus-marketing'; main()"
    command = [sys.executable, "-W", "ignore", "-c", main, "-c", str(ini)]
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}", "PATH": "/usr/bin:/bin"},
    }

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("nexus-stuck", Capability.CHANNEL))
        config.add_marketing_channel(FaxChannel(name="stuck"))

    here = with_plugins(replace(runtime, clock=SystemClock()), include)
    with here.work(tenant) as ctx:
        switch_on(ctx, "nexus-stuck")
    launch(here, tenant, "stuck", 4)
    worker = subprocess.Popen([*command, "worker"], stderr=subprocess.PIPE, text=True, **options)
    try:
        until = time.monotonic() + 60
        while states(runtime, tenant) != Counter(accepted=3, unknown=1) and time.monotonic() < until:
            time.sleep(0.1)
        assert worker.poll() is None  # the same process: whoever keeps it running sees no end
    finally:
        worker.terminate()
        _, said = worker.communicate(timeout=30)
    assert states(runtime, tenant) == Counter(accepted=3, unknown=1), said[-2000:]
    assert sorted(sent.read_text().split()) == ["First1", "First2", "First3", "First4"]
    assert "worker_replaced" in said
    assert said.count("worker_started") == 2
