"""Sends beside plugins and through them: a hostile one must not slow others down, a stranger's channel is as fast as ours."""

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks import delivery
from benchmarks.common import Options, Result, paired
from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.config import rehearse
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.db.models import Send
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.plugin import Capability
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.templates import create_template
from nexus_marketing.smtp.client import PoolSettings, TlsPolicy
from nexus_marketing.tasks.threads import FAREWELL_SECONDS, loops_of, start
from tests.common.databases import postgres_runtime
from tests.common.factories import make_leads, make_segment, make_tenant
from tests.common.mail_copy import OtherMail
from tests.common.plugins import manifest, with_plugins

COPY_TARGET = 1.05
#: At least 80 % of the throughput that there is without the hostile ones (S17).
HOSTILE_TARGET = 1.25
_CALL_SECONDS = 0.5
_VICTIMS = 40

#: What each of them does with a message, instead of sending it.
VICES = {
    "hangs": "while True: time.sleep(60)",
    "spins": "while True: pass",
    "floods": "while True: os.write(4, b'x' * 65536)",
    "eats": "hoard = []\nwhile True: hoard.append(bytearray(1 << 20))",
    "forks": "while True: os.fork()",
    "threads": "while True: threading.Thread(target=spin, daemon=True).start()",
}
_SOURCE = """
import os, threading, time
from nexus_marketing.plugin import *

def spin():
    while True: pass

class Channel:
    name = {name!r}
    capabilities = Capabilities(AddressKind.NONE, max_in_flight=1)
    def validate(self, settings):
        pass
    def open(self, settings, content):
        return SerialSession(self.hand_over)
    def hand_over(self, submission, leaving):
        exec({vice!r}, globals())
        return Outcome(submission.ref, OutcomeKind.ACCEPTED)

def includeme(config):
    config.add_marketing_plugin(Manifest("nexus-{name}", "1", API_VERSION, frozenset({{Capability.CHANNEL}})))
    config.add_marketing_channel(Channel)
"""


def plugins_hostile(options: Options) -> Result:
    """A tenant's mail while sandboxed plugins misbehave in another tenant's campaigns, against the same without these."""
    count, misbehaved = options.size(30_000, 2_000), list[int]()
    # To start a process anew costs more than all else in a small round.
    names = list(VICES)[: options.size(len(VICES), 3)]
    with (
        delivery._sink() as port,
        _process(options, port) as plain,
        _villains(plain, options.folder, names) as runtime,
    ):
        tenant_id, segment_id = delivery._audience(runtime, count)
        template_id = delivery._template(runtime, tenant_id)
        villain = _villain_tenant(runtime, names)

        def send() -> float:
            send_id = delivery._launch(runtime, tenant_id, segment_id, template_id)
            plan_send(runtime, SendRef(tenant_id, send_id))
            return _play(runtime, lambda: delivery._accepted(runtime, tenant_id) == count)

        def ours() -> float:
            _recover(runtime, names)
            villain()
            seconds = send()
            misbehaved.append(sum(runtime.plugins.host.circuit(f"nexus-{name}").failures for name in names))
            delivery._forget(runtime, tenant_id)
            return seconds

        def reference() -> float:
            seconds = send()
            delivery._forget(runtime, tenant_id)
            return seconds

        pair = paired(ours, reference, options.size(5, 1), warm_up=options.size(1, 0))
    assert all(misbehaved), misbehaved
    notes = f"{count} messages of one tenant; {len(names)} plugins of another were ended {sum(misbehaved)} times"
    return pair.result("plugins.hostile", HOSTILE_TARGET, per=count, unit="us", notes=notes)


def plugins_email_copy(options: Options) -> Result:
    """A campaign through a third party's copy of the e-mail channel, against one through ours, to the same sink."""
    count = options.size(20_000, 4_000)
    with delivery._sink() as port, _process(options, port) as plain:
        relay = PoolSettings(host="127.0.0.1", port=port, connections=delivery._CONNECTIONS, tls=TlsPolicy.NONE)

        def include(config: Any) -> None:
            settings = {name: {"type": "string"} for name in delivery._SENDER}
            config.add_marketing_plugin(manifest("other-mail", Capability.CHANNEL, settings=settings))
            config.add_marketing_channel(OtherMail(relay, SystemClock()))

        runtime = with_plugins(plain, include)
        tenant_id, segment_id = delivery._audience(runtime, count)
        template_id = delivery._template(runtime, tenant_id)
        with runtime.work(tenant_id) as ctx:
            switch_on(ctx, "other-mail", delivery._SENDER)
        wall: dict[str, list[float]] = {"post": [], "email": []}

        def send(channel: str) -> float:
            """Seconds of this process: what a worker can send is bounded by them, and other processes do not change them."""
            began = time.process_time()
            seconds = delivery._send_ours(runtime, tenant_id, segment_id, template_id, count, channel=channel)
            wall[channel].append(seconds)
            return time.process_time() - began

        pair = paired(lambda: send("post"), lambda: send("email"), options.size(9, 3))
    elapsed = statistics.median(wall["post"]) / statistics.median(wall["email"])
    notes = f"{count} messages of 20 KB, by the worker's processor time; by the clock {elapsed:.2f}x"
    return pair.result("plugins.email_copy", COPY_TARGET, per=count, unit="us", notes=notes)


@contextmanager
def _process(options: Options, port: int) -> Iterator[Runtime]:
    relay = PoolSettings(host="127.0.0.1", port=port, connections=delivery._CONNECTIONS, tls=TlsPolicy.NONE)
    channels = {"email": EmailChannel(relay, SystemClock())}
    with postgres_runtime(options.cluster, options.folder, clock=SystemClock(), channels=channels) as runtime:
        yield runtime


@contextmanager
def _villains(plain: Runtime, folder: Path, names: Sequence[str]) -> Iterator[Runtime]:
    """The process with a sandboxed plugin for each vice."""
    modules = [f"nexus_{name}" for name in names]
    for name in names:
        (folder / f"nexus_{name}.py").write_text(_SOURCE.format(name=name, vice=VICES[name]))
    sys.path.insert(0, str(folder))
    lines = {"nexus.plugins.untrusted": " ".join(modules), "nexus.plugins.call_seconds": str(_CALL_SECONDS)}
    registry = rehearse(lines, *modules)
    try:
        if registry.refused:
            raise PluginFailed(" ".join(registry.refused.values()))
        yield replace(plain, plugins=registry, channels={**plain.channels, **registry.channels})
    finally:
        sys.path.remove(str(folder))
        registry.close()


def _villain_tenant(runtime: Runtime, names: Sequence[str]) -> Callable[[], None]:
    """Makes a tenant; what is answered launches a campaign of it through each of the plugins."""
    tenant_id = make_tenant(runtime, "villain")
    segment_id = make_segment(runtime, tenant_id, make_leads(runtime, tenant_id, _VICTIMS))
    with runtime.work(tenant_id) as ctx:
        for name in names:
            switch_on(ctx, f"nexus-{name}")
        template_id = create_template(ctx, {"name": "t", "type": "text", "content": {"text": "Hello"}}).id

    def begin() -> None:
        for name in names:
            delivery._launch(runtime, tenant_id, segment_id, template_id, channel=name, obeys_caps=False)
        with runtime.work(tenant_id, mode="read") as ctx:
            sends = list(ctx.session.scalars(select(Send.id)))
        for send_id in sends:
            plan_send(runtime, SendRef(tenant_id, send_id))

    return begin


def _recover(runtime: Runtime, names: Sequence[str]) -> None:
    """Nobody is left alone for what was done in an earlier run: they misbehave in this one as well."""
    for name in names:
        runtime.plugins.host.circuit(f"nexus-{name}").succeeded()


def _play(runtime: Runtime, is_done: Callable[[], bool]) -> float:
    """The threads of a worker process, until it is done."""
    stop = threading.Event()
    started = time.perf_counter()
    threads = start(loops_of(runtime, stop, 1))
    while not is_done():
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    stop.set()
    for thread in threads:
        thread.join(FAREWELL_SECONDS)
    return seconds


BENCHMARKS = {"plugins.hostile": plugins_hostile, "plugins.email_copy": plugins_email_copy}
