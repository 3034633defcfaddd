"""What a plugin may try in the sandbox, and what becomes of it, of the send and of what the operator is told (S17)."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.config import rehearse
from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.extensions import Figures
from nexus_marketing.plugin import Capability
from nexus_marketing.plugin.circuits import FAILURES, PluginFailed
from nexus_marketing.plugin.testing import WatchingJournal, sample_batch, sample_content
from tests.common.databases import NOW
from tests.common.plugins import manifest
from tests.common.sandboxes import Start, needs_namespaces, sandboxes

pytestmark = [pytest.mark.req("SR-004", "S17"), needs_namespaces]

#: A metric whose number is what a line of Python answers.
METRIC = """
import ctypes, fcntl, os, signal, socket, subprocess, sys, threading, time
from nexus_marketing.plugin import API_VERSION, Capability, Manifest

def fds():
    # Where the pipe to the host is: whatever may be written to.
    return [n for n in range(3, 32) if is_open(n) and fcntl.fcntl(n, fcntl.F_GETFL) & os.O_WRONLY]

def is_open(n):
    try:
        return bool(os.fstat(n))
    except OSError:
        return False

class Metric:
    name, unit = "strange", ""
    def calculate(self, figures):
        names = dict(globals())
        exec(figures.settings["code"], names)
        return float(names.get("answer", 1))

def includeme(config):
    config.add_marketing_plugin(Manifest("nexus-strange", "1", API_VERSION, frozenset({Capability.METRIC})))
    config.add_marketing_metric(Metric)
"""
CHANNEL = """
import os, sys, time
from functools import partial
from nexus_marketing.plugin import *

class Channel:
    name = "strange"
    capabilities = Capabilities(AddressKind.NONE, max_in_flight=1)
    def validate(self, settings):
        pass
    def open(self, settings, content):
        return SerialSession(partial(self.hand_over, settings))
    def hand_over(self, settings, submission, leaving):
        leaving()
        if submission.ref == settings.get("at", -1):
            exec(settings["code"], globals())
        return Outcome(submission.ref, OutcomeKind.ACCEPTED, str(os.getpid()))

def includeme(config):
    config.add_marketing_plugin(Manifest("nexus-strange", "1", API_VERSION, frozenset({Capability.CHANNEL})))
    config.add_marketing_channel(Channel)
"""


class Strange:
    """The metric in the sandbox."""

    def __init__(self, start: Start, **lines: Any) -> None:
        self.registry = start(METRIC, **{"nexus.plugins.call_seconds": 0.5, "nexus.plugins.memory_mb": 128, **lines})
        self.metric = self.registry.of(Capability.METRIC)["strange"]

    def runs(self, code: str) -> float | None:
        value: float | None = self.metric.calculate(Figures(NOW, {}, settings={"code": code}))
        return value

    def fails(self, code: str) -> str:
        with pytest.raises(PluginFailed) as failed:
            self.runs(code)
        return failed.value.message


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strange]:
    """One for all tests that leave it as it was: each start costs a process."""
    with sandboxes(tmp_path_factory.mktemp("strange")) as start:
        yield Strange(start)


@pytest.fixture
def strange(one: Strange) -> Strange:
    one.metric._pool.circuit.succeeded()
    return one


REFUSED = {
    "opens a socket": ("socket.socket()", "PermissionError"),
    "opens a socket of another family": ("socket.socket(40, socket.SOCK_STREAM)", "PermissionError"),
    "forks": ("os.fork()", "PermissionError"),
    "starts a program": ("os.execv(sys.executable, ['python'])", "PermissionError"),
    "starts a shell": ("subprocess.run('id', shell=True)", "Error"),
    "reads files of this machine": ("open('/etc/passwd')", "FileNotFoundError"),
    "reads processes": ("os.listdir('/proc')", "FileNotFoundError"),
    "reads the files of others": ("os.listdir('/home')", "FileNotFoundError"),
    "writes a file": ("open('/x', 'w')", "OSError"),
    "writes into our package": (
        "import nexus_marketing; open(nexus_marketing.__file__, 'a')",
        "OSError",
    ),
    "keeps memory in a file": ("os.memfd_create('x')", "PermissionError"),
    "takes all memory": ("x = [bytearray(10_000_000) for _ in range(1000)]", "MemoryError"),
    "takes memory of the kernel": (
        "assert ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o1600) >= 0",
        "AssertionError",
    ),
    "leaves its namespaces": ("assert ctypes.CDLL(None).unshare(0x10000000) == 0", "AssertionError"),
    "traces its parent": ("assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0", "AssertionError"),
    "raises its limits": ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError"),
    "becomes somebody else": ("os.setuid(0)", "Error"),
    "ends others": ("os.kill(2, 9)", "ProcessLookupError"),
}


def test_what_is_refused_is_refused_and_the_plugin_lives_on(strange: Strange) -> None:
    found = {}
    for what, (code, _) in REFUSED.items():
        strange.metric._pool.circuit.succeeded()
        found[what] = strange.fails(code).partition("it raised ")[2].partition(":")[0]
    assert {what: said for what, said in found.items() if REFUSED[what][1] not in said} == {}
    assert strange.runs("answer = 7") == 7.0


def test_it_sees_nothing_of_our_environment_and_nobody_else(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_SECRET_KEY", "s3cret-of-ours")
    strange = Strange(start, **{"strange.own": "1", "slack.token": "t", "nexus.secret_key": "s3cret-of-ours"})
    assert strange.runs("answer = 's3cret' in repr(dict(os.environ))") == 0
    assert strange.runs("answer = os.getpid()") == 1
    assert strange.runs("answer = os.getuid()") == 65534
    assert strange.runs("answer = len([n for n in range(64) if os.path.exists(f'/dev/fd/{n}')])") == 0
    everything = (
        "import gc; needle = 's3cret' + chr(45) + 'of-ours'; found = [o for o in gc.get_objects() if isinstance(o, dict)];"
        "answer = sum(needle in map(str, list(o.values())) for o in found if 'needle' not in o)"
    )
    assert strange.runs(everything) == 0


ENDS = {
    "hangs": ("while True: pass", "did not answer within 0.5 s"),
    "sleeps and hears no signal": (
        "[signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(60)",
        "did not answer within 0.5 s",
    ),
    "exits": ("sys.exit(3)", "ended by itself with status 3"),
    "ends at once": ("os._exit(4)", "ended by itself with status 4"),
    "crashes": ("ctypes.string_at(0)", "ended by signal 11"),
    "writes garbage": ("[os.write(n, b'hello\\n') for n in fds()]", "no JSON"),
    "writes without end": ("[os.write(n, b'x' * 65536) for _ in range(99) for n in fds()]", "more than"),
    "says what nobody asked": ("[os.write(n, b'[\"on_wire\", 1]\\n') for n in fds()]", "nothing that it may say"),
    "answers before it is asked": ("[os.write(n, b'[\"done\", 0, 5]\\n') for n in fds()]", "was not asked"),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_or_hangs_is_ended_in_time_and_started_anew(strange: Strange, what: str) -> None:
    code, said = ENDS[what]
    begun = time.monotonic()
    assert said in strange.fails(code)
    assert time.monotonic() - begun < 0.5 + 1 + 1.5
    assert strange.runs("answer = 5") == 5.0


@pytest.mark.parametrize("line", ['["http"]', '["raised", N, "x", "y", [], 1]'])
def test_what_it_says_out_of_form_is_its_failure_and_nobody_elses(strange: Strange, line: str) -> None:
    """Whoever called it hears of a plugin that failed, and the next call has its own answer."""
    number = strange.metric._pool._idle[0]._asked + 1 if strange.metric._pool._idle else 1
    said = line.replace("N", str(number)).encode() + b"\n"
    assert "nexus_strange: " in strange.fails(f"os.write(fds()[-1], {said!r}); time.sleep(2)")
    assert strange.runs("answer = 7") == 7.0


ASKS = METRIC.replace("    config.add_marketing_plugin(", "    global ctx\n    ctx = config.add_marketing_plugin(")


def test_one_that_asks_without_end_is_ended_in_time(start: Start) -> None:
    registry = start(ASKS, **{"nexus.plugins.call_seconds": 0.5})
    metric = registry.of(Capability.METRIC)["strange"]
    code = """
while True:
    try:
        ctx.http.check("https://x.example/")
    except Exception:
        pass
"""
    began = time.monotonic()
    with pytest.raises(PluginFailed, match="did not answer within"):
        metric.calculate(Figures(NOW, {}, settings={"code": code}))
    assert time.monotonic() - began < 5


def test_a_request_that_cannot_be_sent_leaves_the_conversation_as_it_was(start: Start) -> None:
    lines = {"nexus.plugins.grants": "nexus-strange:x.example", "nexus.plugins.call_seconds": 5}
    metric = start(ASKS, **lines).of(Capability.METRIC)["strange"]
    code = """
from nexus_marketing.plugin import Request
try:
    ctx.http.send(Request("GET", "https://x.example/", {"x": "\u00e9"}))
except Exception as error:
    answer = 1 if "headers.x" in str(error.problems) else 0
"""
    for _ in range(2):
        assert metric.calculate(Figures(NOW, {}, settings={"code": code})) == 1.0


def test_what_it_prints_reaches_nobody(strange: Strange) -> None:
    assert strange.runs("print('x' * 1_000_000); print('y', file=sys.stderr); os.write(1, b'garbage'); answer = 2") == 2


def test_threads_end_with_it_and_are_bounded(strange: Strange) -> None:
    code = "[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(5000)]"
    assert "it raised" in strange.fails(code)


def test_the_circuit_opens_says_why_and_closes_again(strange: Strange, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = strange.metric._pool.circuit
    for _ in range(FAILURES):
        strange.fails("raise KeyError('person@example.org')")
    said = strange.fails("answer = 1")
    assert "left alone after 3 failures in a row" in said
    assert "it raised KeyError" in said
    assert "person@" not in said
    monkeypatch.setattr(circuit, "_now_seconds", lambda: time.monotonic() + 60)
    assert strange.runs("answer = 1") == 1.0
    assert circuit.open_seconds == 0


def test_no_process_outlives_the_registry(start: Start) -> None:
    strange = Strange(start)
    strange.runs("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    (child,) = strange.metric._pool._idle
    pid = child._process.pid
    inner = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    assert len(inner) == 1
    strange.registry.close()
    assert not any(Path(f"/proc/{each}").exists() for each in (pid, *inner))


def batch_of(start: Start, code: str, *, at: int = 2, count: int = 5, **lines: Any) -> tuple[list[Outcome], Any, Any]:
    registry = start(CHANNEL, **{"nexus.plugins.call_seconds": 0.5, **lines})
    channel = registry.channels["strange"]
    content, journal = sample_content(channel), WatchingJournal()
    session = channel.open({"at": at, "code": code}, content)
    outcomes = [each for each in session.submit(sample_batch(channel, content, count), journal) if each is not None]
    session.close()
    return outcomes, journal, channel


@pytest.mark.parametrize("code", ["while True: pass", "os._exit(9)", "bytearray(1 << 40)", "os.write(4, b'{}')"])
def test_a_batch_that_meets_it_loses_nobody_and_sends_nobody_twice(start: Start, code: str) -> None:
    outcomes, journal, channel = batch_of(start, code)
    kinds = [outcome.kind for outcome in sorted(outcomes)]
    accepted, unknown = [OutcomeKind.ACCEPTED] * 2, OutcomeKind.UNKNOWN
    if code.startswith("bytearray"):  # the session of the plugin itself knows what to make of what raises
        assert kinds == [*accepted, unknown, OutcomeKind.ACCEPTED, OutcomeKind.ACCEPTED]
    else:
        assert kinds == [*accepted, unknown, OutcomeKind.NOT_SENT, OutcomeKind.NOT_SENT]
    assert journal.on_the_wire == set()
    assert set(journal.left) == {outcome.ref for outcome in outcomes if outcome.kind is not OutcomeKind.NOT_SENT}
    again = channel.open({}, sample_content(channel))
    batch = sample_batch(channel, sample_content(channel), 3)
    found = [each for each in again.submit(batch, WatchingJournal()) if each]
    assert {outcome.kind for outcome in found} == {OutcomeKind.ACCEPTED}


def test_a_plugin_that_raises_in_its_own_session_is_tried_again_later(start: Start) -> None:
    source = CHANNEL.replace("SerialSession(partial(self.hand_over, settings))", "object()")
    registry = start(source)
    channel = registry.channels["strange"]
    content = sample_content(channel)
    session = channel.open({}, content)
    for turn in range(FAILURES):
        outcomes = [each for each in session.submit(sample_batch(channel, content, 2), WatchingJournal()) if each]
        assert [each.kind for each in outcomes] == [OutcomeKind.TRANSIENT, OutcomeKind.NOT_SENT], turn
        assert "it raised AttributeError" in outcomes[0].detail
    outcomes = [each for each in session.submit(sample_batch(channel, content, 2), WatchingJournal()) if each]
    assert {each.kind for each in outcomes} == {OutcomeKind.NOT_SENT}
    assert all((each.retry_after_seconds or 0) > 20 for each in outcomes)


def test_while_it_works_the_caller_hears_that_nothing_is_known(start: Start) -> None:
    registry = start(CHANNEL, **{"nexus.plugins.call_seconds": 5})
    channel = registry.channels["strange"]
    content = sample_content(channel)
    session = channel.open({"at": 0, "code": "time.sleep(0.7)"}, content)
    outcomes = list(session.submit(sample_batch(channel, content, 1), WatchingJournal()))
    assert outcomes[0] is None
    assert outcomes[-1] is not None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("import ctypes", "import nowhere_at_all", "ModuleNotFoundError"),
        ('Manifest("nexus-strange"', 'Manifest("nexus-slack"', "named after its module, nexus-strange"),
        ("    config.add_marketing_plugin", "    #", "says nothing sensible"),
        ("def includeme(config):", "def includeme(config):\n    os._exit(1)", "ended by itself with status 1"),
        ("config.add_marketing_metric(Metric)", "config.set_marketing_storage(1)", "a storage cannot be sandboxed"),
        (
            "config.add_marketing_metric(Metric)",
            "config.add_marketing_tenant_resolver(1)",
            "shown whole requests and cannot",
        ),
        ('name, unit = "strange", ""', 'name, unit = "strange", 5', "is no str"),
        ('name, unit = "strange", ""', 'name, unit = "Not a name", ""', "is named 'Not a name'"),
        ("frozenset({Capability.METRIC})", "frozenset({Capability.CHANNEL})", "unannounced"),
    ],
)
def test_one_that_cannot_be_started_stops_nobody_and_says_why(start: Start, before: str, after: str, said: str) -> None:
    registry = start(METRIC.replace(before, after))
    assert registry.plugins == {}
    assert said in registry.refused["nexus_strange"]


def test_one_that_wants_what_another_has_stops_nobody(tmp_path: Path) -> None:
    def ours(config: Any) -> None:
        config.add_marketing_plugin(manifest("nexus-ours", Capability.METRIC))
        config.add_marketing_metric(Ours)

    with sandboxes(tmp_path):
        (tmp_path / "nexus_strange.py").write_text(METRIC)
        registry = rehearse({"nexus.plugins.untrusted": "nexus_strange"}, ours, "nexus_strange")
        assert registry.refused == {
            "nexus_strange": "nexus_strange is not started: somebody else has the metric 'strange' already."
        }
        assert [*registry.plugins] == ["nexus-ours"]
        registry.close()


class Ours:
    name, unit = "strange", ""

    def calculate(self, figures: Figures) -> float | None:
        del figures
        return None


def test_of_several_threads_each_has_a_process_and_they_stay_warm(start: Start) -> None:
    from concurrent.futures import ThreadPoolExecutor

    strange = Strange(start, **{"nexus.plugins.call_seconds": 10})
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(strange.runs, ["time.sleep(0.3); answer = 1", "time.sleep(0.3); answer = 2"])) == [1, 2]
    assert len(strange.metric._pool._idle) == 2
    strange.runs("answer = 3")
    assert len(strange.metric._pool._idle) == 2


def test_a_file_descriptor_of_ours_is_not_theirs(strange: Strange, tmp_path: Path) -> None:
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    count = "answer = 0\nfor n in range(64):\n    try: os.fstat(n); answer += 1\n    except OSError: pass"
    assert strange.runs(count) == 5
    os.close(kept)
