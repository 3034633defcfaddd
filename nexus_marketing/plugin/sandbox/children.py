"""The host's side of a sandbox: one process, its pipes, and a conversation with it that ends in time."""

import json
import os
import select
import site
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from nexus_marketing.core.contracts import Journal, OutcomeKind
from nexus_marketing.core.errors import NexusError, Problem, RateLimited, Unavailable, ValidationError
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.exchanges import Answer, Http, NotGranted, Request
from nexus_marketing.plugin.sandbox.wire import MAX_LINE_BYTES, Garbage, parsed, reader, written

#: It loads behind everybody who has something to do (``nice``): on a machine that is full that takes a while.
_START_SECONDS: Final = 60.0
#: So often the caller hears that nothing is known yet.
_IDLE_SECONDS: Final = 0.5
_FAREWELL_SECONDS: Final = 1.0
_LAUNCH: Final = Path(__file__).with_name("launch.py")
_REQUEST = reader(Request)
#: Every outcome of a conversation; what it yields in between is only "not yet".
Talk = Generator[None, None, Any]


class NotStarted(PluginFailed):
    """The sandbox or the plugin in it could not be started; says why."""

    code = "plugin_not_started"


class Raised(PluginFailed):
    """The plugin raised: it is alive, and what it was asked is not done."""

    code = "plugin_raised"


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is started with."""

    module: str
    settings: Mapping[str, str] = field(repr=False)
    memory_bytes: int
    call_seconds: float


class Child:
    """One process; belongs to one thread at a time."""

    _process: subprocess.Popen[bytes]
    _incoming: int
    _outgoing: int
    _leash: int

    def __init__(self, order: Order, executor: Callable[[], Executor]) -> None:
        """Start it. It says what it adds in :attr:`described`.

        Raises:
            NotStarted: the kernel refuses the sandbox, or the plugin cannot be loaded; says which and the remedy.
            PluginFailed: it ended or hung before it was ready.
        """
        self._order, self._executor = order, executor
        self._rest = b""
        self._http: Http | None = None
        #: Calls so far: an answer carries the number of its own.
        self._asked = 0
        self.sessions: set[int] = set()
        #: To be closed before the next call: their owner was another thread.
        self.closing: list[int] = []
        self._start()
        try:
            self.described: Mapping[str, Any] = self._greeted()
        except BaseException:
            self.kill()
            raise

    def grant(self, http: Http) -> None:
        """From here on it may ask for HTTP."""
        self._http = http

    def call(self, *message: Any) -> Any:
        """Ask and wait.

        Raises:
            ValidationError: the plugin's.
            Raised: anything else that it raised.
            PluginFailed: it is gone now: ended, hung, or wrote what is no answer.
        """
        self._asked += 1
        answer = self._at_once(message)
        if answer is not None:
            return answer[2]
        talk = self._through(self._answered(None))
        while True:
            try:
                next(talk)
            except StopIteration as end:
                return end.value

    def talk(self, message: Sequence[Any], journal: Journal | None) -> Talk:
        """Ask, and yield every half second while there is no answer; the answer is the generator's value."""
        self._asked += 1
        return (yield from self._through(self._asked_for(message, journal)))

    def _at_once(self, message: Sequence[Any]) -> list[Any] | None:
        """Ask, and the answer where it comes soon and is one: most do, and need nothing of what follows otherwise."""
        try:
            self._write(written([message[0], self._asked, *message[1:]]))
            line = self._line(_IDLE_SECONDS)
            found = None if line is None else parsed(line)
        except (Garbage, OSError) as error:
            raise self.lose(str(error)) from error
        if line is None or found is None or (found[0] == "done" and len(found) == 3 and found[1] == self._asked):
            return found
        # Somewhat more is to be said: as if it had not been read yet.
        self._rest = line.rstrip(b"\n") + b"\n" + self._rest
        return None

    def _asked_for(self, message: Sequence[Any], journal: Journal | None) -> Talk:
        self._write(written([message[0], self._asked, *message[1:]]))
        return (yield from self._answered(journal))

    def _through(self, talk: Talk) -> Talk:
        """However it ends badly, the process ends with it."""
        try:
            return (yield from talk)
        except Garbage as error:
            raise self.lose(str(error)) from error
        except (OSError, GeneratorExit) as error:
            lost = self.lose("it closed its pipes")
            if isinstance(error, GeneratorExit):
                raise
            raise lost from error
        except (PluginFailed, ValidationError):
            raise
        except Exception as error:
            # It may wait for an answer still, and would take the next call for that.
            raise self.lose(f"the conversation broke off ({type(error).__name__})") from error

    def kill(self) -> None:
        """End it and whatever it began; nothing of it is left when this returns."""
        for each in (self._leash, self._incoming, self._outgoing):
            if each >= 0:
                os.close(each)
        self._incoming = self._outgoing = self._leash = -1
        try:
            # Whoever holds the other end of the leash ends it, and waits for it.
            self._process.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def leave(self) -> None:
        """Of a process that was forked: these are not ours."""
        for each in (self._incoming, self._outgoing, self._leash):
            os.close(each)

    def _start(self) -> None:
        theirs_in, self._outgoing = os.pipe()
        self._incoming, theirs_out = os.pipe()
        leash, self._leash = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, by our own interpreter
                [sys.executable, "-I", "-X", "utf8", str(_LAUNCH)],
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=subprocess.DEVNULL,
                pass_fds=(leash,),
                env={"NEXUS_LEASH": str(leash)},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            for each in (self._incoming, self._outgoing, self._leash):
                os.close(each)
            raise NotStarted(f"{self._order.module}: no process can be started: {error}.") from error
        finally:
            for each in (theirs_in, theirs_out, leash):
                os.close(each)
        os.set_blocking(self._outgoing, False)
        self._heard = select.poll()
        self._heard.register(self._incoming, select.POLLIN)

    def _greeted(self) -> Mapping[str, Any]:
        paths, readable = places(self._order.module)
        order = {
            "module": self._order.module,
            "settings": dict(self._order.settings),
            "memory_bytes": self._order.memory_bytes,
            "paths": paths,
            "readable": readable,
        }
        self._until = time.monotonic() + _START_SECONDS
        try:
            self._write(json.dumps(order).encode() + b"\n")
            while (line := self._line(_START_SECONDS)) is None:
                if time.monotonic() > self._until:
                    raise self.lose(f"it was not ready within {_START_SECONDS:.0f} s")
            found = parsed(line)
        except (Garbage, OSError) as error:
            raise self.lose(str(error)) from error
        try:
            if found[0] == "ready":
                return dict(found[1])
            said = str(found[1]) if found[0] == "refused" else f"its include raised {found[2]}: {found[3]}"
        except (LookupError, TypeError, ValueError) as error:
            raise self.lose("what it says of itself has no form") from error
        raise NotStarted(f"{self._order.module} is not started: {said}.")

    def _answered(self, journal: Journal | None) -> Talk:
        self._until = time.monotonic() + self._order.call_seconds
        while True:
            line = self._line(_IDLE_SECONDS)
            found = None if line is None else parsed(line)
            if found is not None and found[0] in ("done", "raised"):
                if len(found) < 3 or found[1] != self._asked:
                    raise Garbage("what it answers was not asked")
                if found[0] == "done":
                    return found[2]
                raise self._raised(*found[2:])
            if time.monotonic() > self._until:  # also of one that has ever more to ask
                raise self.lose(f"it did not answer within {self._order.call_seconds:g} s")
            if found is None:
                yield
            elif found[0] in ("http", "check"):
                yield from self._served(found, journal)
            else:
                self._marked(found, journal)

    def _served(self, question: list[Any], journal: Journal | None) -> Generator[None, None, None]:
        """Do what it asks on another thread; the time that takes is not the plugin's."""
        begun = time.monotonic()
        doing: Future[Any] = self._executor().submit(self._do, question, journal)
        while not wait((doing,), _IDLE_SECONDS).done:
            yield
        self._until += time.monotonic() - begun
        self._write(written(doing.result()))

    def _do(self, question: list[Any], journal: Journal | None) -> list[Any]:
        try:
            if self._http is None:
                raise NotGranted("HTTP can be asked for once the plugin is included, not while it is.")
            if question[0] == "check":
                self._http.check(str(question[1]))
                return ["answer", None]
            request = _REQUEST(question[1])
            answer: Answer = self._http.send(request, on_wire=lambda: self._let_mark(journal))
        except ValidationError as error:
            problems = [[each.path, each.code, each.message] for each in error.problems]
            return ["failed", error.code, error.message, 0.0, problems]
        except (NexusError, _Withdrawn) as error:
            after = error.retry_after_seconds if isinstance(error, Unavailable | RateLimited) else 0.0
            return ["failed", getattr(error, "code", "not_reached"), str(error), after, []]
        return ["answer", answer]

    def _let_mark(self, journal: Journal | None) -> None:
        """The byte that completes its request is about to leave: let it say so, and hear its marks first."""
        self._write(written(["leaving"]))
        until = time.monotonic() + self._order.call_seconds
        while True:
            line = self._line(_IDLE_SECONDS)
            if line is None:
                if time.monotonic() > until:
                    raise Garbage("it did not let its request go")
                continue
            found = parsed(line)
            if found[0] == "left":
                if found[1] is not True:
                    raise _Withdrawn("the plugin took its request back")
                return
            self._marked(found, journal)

    @staticmethod
    def _marked(found: list[Any], journal: Journal | None) -> None:
        if journal is None or len(found) < 2 or type(found[1]) is not int:
            raise Garbage(f"{found[0]!a:.40} is nothing that it may say now")
        if found[0] == "on_wire":
            journal.on_wire(found[1])
        elif found[0] == "on_outcome" and len(found) == 3 and found[2] in tuple(OutcomeKind):
            journal.on_outcome(found[1], OutcomeKind(found[2]))
        else:
            raise Garbage(f"{found[0]!a:.40} is nothing that it may say")

    def _line(self, seconds: float) -> bytes | None:
        """The next line, or nothing in that time."""
        if not self._rest:
            if not self._heard.poll(seconds * 1000):
                return None
            piece = os.read(self._incoming, 65536)
            if piece.find(b"\n") == len(piece) - 1 >= 0:
                return piece
            if not piece:
                raise Garbage(self._ended())
            self._rest = piece
        while b"\n" not in self._rest:
            if len(self._rest) > MAX_LINE_BYTES:
                raise Garbage(f"it wrote more than {MAX_LINE_BYTES} bytes at once")
            if not self._heard.poll(seconds * 1000):
                return None
            piece = os.read(self._incoming, 262_144)
            if not piece:
                raise Garbage(self._ended())
            self._rest = self._rest + piece if self._rest else piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _ended(self) -> str:
        try:
            status = self._process.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its pipes"
        signal = status - 128 if status > 128 else -status
        return f"it was ended by signal {signal}" if signal > 0 else f"it ended by itself with status {status}"

    def _write(self, line: bytes) -> None:
        done = 0
        while True:
            try:
                done += os.write(self._outgoing, line[done:] if done else line)
            except BlockingIOError:
                self._wait_for_room()
            if done == len(line):
                return

    def _wait_for_room(self) -> None:
        room = select.poll()
        room.register(self._outgoing, select.POLLOUT)
        if not room.poll(self._order.call_seconds * 1000):
            raise Garbage(f"it did not listen for {self._order.call_seconds:g} s")

    def lose(self, reason: str) -> PluginFailed:
        """It cannot be trusted with another call: end it. Answers what to raise."""
        self.kill()
        return PluginFailed(f"{self._order.module}: {reason}.")

    def _raised(self, code: Any, said: Any, problems: Any) -> Exception:
        if code == ValidationError.code:
            try:
                return ValidationError(problems=[Problem(*map(str, each)) for each in problems])
            except TypeError as error:
                raise Garbage("its problems have no form") from error
        return Raised(f"{self._order.module}: it raised {code!s:.60}: {said!s:.200}")

    @property
    def is_lost(self) -> bool:
        """Whether it was ended."""
        return self._incoming < 0


class _Withdrawn(Exception):
    """The plugin's own callback raised: its request is not sent."""


def places(module: str) -> tuple[list[str], list[str]]:
    """The import path of a sandboxed plugin, and what of this machine it may read: the interpreter's library, what is
    installed beside us, our own package and the plugin's.

    Raises:
        NotStarted: there is no such module. Nothing of it is executed here to find out.
    """
    ours = Path(__file__).parents[2]
    theirs = _places_of(module) if module else []
    library = sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
    installed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()})
    shared = [str(sysconfig.get_config_var("LIBDIR")), "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    paths = [str(ours.parent), *(str(each.parent) for each in theirs), *installed]
    return list(dict.fromkeys(paths)), [str(ours), *map(str, theirs), *library, *installed, *shared]


def _places_of(module: str) -> list[Path]:
    top = module.partition(".")[0]
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotStarted(f"{module} is not started: there is no module {top}, pip install its distribution.")
    if spec.submodule_search_locations:
        return [Path(each) for each in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []
