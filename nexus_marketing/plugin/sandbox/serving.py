"""The plugin's side of a sandbox: loads the plugin, says what it adds, and does what it is asked, one call at a time.

While it works on a call the plugin may ask for HTTP and mark a journal; the host answers in between. One lock keeps
threads of a plugin from talking across each other.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any

from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import ChannelSession, Outcome, OutcomeKind, Submission
from nexus_marketing.core.errors import HostRefused, Problem, ValidationError
from nexus_marketing.plugin.contexts import PluginContext
from nexus_marketing.plugin.exchanges import Answer, NoAnswer, NotGranted, NotReached, OverRate, Request
from nexus_marketing.plugin.manifests import Capability, Manifest
from nexus_marketing.plugin.sandbox.signatures import (
    CONTENT,
    CONTEXT,
    CONTRACTS,
    attributes,
    optional_methods,
    signature,
)
from nexus_marketing.plugin.sandbox.wire import Read, parsed, reader, written

_ERRORS: Mapping[str, Callable[[str, float], Exception]] = {
    HostRefused.code: lambda said, _: HostRefused(said),
    NotGranted.code: lambda said, _: NotGranted(said),
    OverRate.code: lambda said, after: OverRate(said, retry_after_seconds=after),
    NotReached.code: lambda said, _: NotReached(said),
    NoAnswer.code: lambda said, _: NoAnswer(said),
}
_BATCH = reader(tuple[Submission, ...])
_ANSWER = reader(Answer)


class Line:
    """The two pipes."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._rest = b""
        self.lock = RLock()

    def take(self) -> list[Any]:
        """The host's next message; ends the process where the host is gone."""
        if not self._rest:
            whole = os.read(self._incoming, 65536)
            if whole.find(b"\n") == len(whole) - 1 >= 0:
                return parsed(whole)
            self._rest = whole
            if not whole:
                raise SystemExit(0)
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            pieces.append(os.read(self._incoming, 65536))
            if not pieces[-1]:
                raise SystemExit(0)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return parsed(line)

    def put(self, message: Any) -> None:
        """Say something."""
        self.write(written(message))

    def write(self, line: bytes) -> None:
        """Say it as it is written."""
        while line:
            line = line[os.write(self._outgoing, line) :]


class AskedHttp:
    """``ctx.http`` here: everything is asked of the host."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def check(self, url: str) -> None:
        """As the contract says."""
        self._ask(["check", url], lambda: None)

    def send(self, request: Request, *, on_wire: Callable[[], None] = lambda: None) -> Answer:
        """As the contract says."""
        found: Answer = _ANSWER(self._ask(["http", request], on_wire))
        return found

    def _ask(self, question: list[Any], on_wire: Callable[[], None]) -> Any:
        raised: list[Exception] = []
        with self._line.lock:
            self._line.put(question)
            while (answer := self._line.take())[0] == "leaving":
                try:
                    on_wire()
                except Exception as error:  # noqa: BLE001 - it is raised below, where it belongs
                    raised.append(error)
                self._line.put(["left", not raised])
        if raised:
            raise raised[0]
        if answer[0] == "answer":
            return answer[1]
        _, code, said, after, problems = answer
        if code == ValidationError.code:
            raise _validation(problems)
        raise _ERRORS[code](said, after)


class ToldJournal:
    """The hand-over journal of the worker, told by pipe: in order, so that a mark is there before its request is."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def on_wire(self, ref: int) -> None:
        """As the contract says."""
        with self._line.lock:
            self._line.put(["on_wire", ref])

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """As the contract says."""
        with self._line.lock:
            self._line.put(["on_outcome", ref, OutcomeKind(kind)])


class Collected:
    """What stands in for Pyramid's Configurator: takes what the plugin's ``includeme`` adds."""

    def __init__(self, line: Line, module: str, settings: Mapping[str, str]) -> None:
        self._line, self._own = line, settings
        self.registry = self
        #: As the ini file names them, of the plugin's own lines.
        prefix = module.partition(".")[0].removeprefix("nexus_")
        self.settings = {f"{prefix}.{name}": value for name, value in settings.items()}
        self.manifest: Manifest | None = None
        self.things: list[tuple[Capability, Any]] = []
        kinds = {f"add_marketing_{kind}": kind for kind in CONTRACTS}
        for name, kind in kinds.items():
            setattr(self, name, self._adds(kind))

    def add_marketing_plugin(self, manifest: Manifest) -> PluginContext:
        """As the directive."""
        self.manifest = manifest
        return PluginContext(manifest.name, AskedHttp(self._line), SystemClock(), self._own)

    def set_marketing_storage(self, storage: Any) -> None:
        """Refused: a storage takes part in the host's transactions."""
        del storage
        raise ValueError("a storage cannot be sandboxed")

    def add_marketing_tenant_resolver(self, resolver: Any) -> None:
        """Refused: a resolver is shown whole requests, with everybody's cookies and keys in them."""
        del resolver
        raise ValueError(
            "a tenant resolver is shown whole requests and cannot be sandboxed: take the module out of"
            " nexus.plugins.untrusted if you trust it with them"
        )

    def _adds(self, kind: Capability) -> Callable[[Any], None]:
        def add(thing: Any) -> None:
            self.things.append((kind, thing() if isinstance(thing, type) else thing))

        return add

    def described(self) -> dict[str, Any]:
        """For the host: who it is, and what it adds."""
        things = [
            {"kind": kind, "attributes": attributes(kind, thing), "optional": optional_methods(thing)}
            for kind, thing in self.things
        ]
        return {"manifest": self.manifest, "things": things}


class Calls:
    """What the host may ask for."""

    def __init__(self, line: Line, things: list[tuple[Capability, Any]]) -> None:
        self._things = things
        self._journal = ToldJournal(line)
        self._methods: dict[tuple[int, str], tuple[Callable[..., Any], tuple[Read | None, ...]]] = {}
        self._sessions: dict[int, ChannelSession] = {}
        self._outcomes: dict[int, Iterator[Outcome | None]] = {}
        self.by_name: Mapping[str, Callable[..., Any]] = {
            "call": self._call,
            "judge": self._judge,
            "open": self._open,
            "submit": self._submit,
            "next": self._next,
            "withdraw": self._withdraw,
            "close": self._close,
        }

    def _call(self, number: int, method: str, arguments: list[Any]) -> Any:
        known = self._methods.get((number, method))
        if known is None:
            kind, thing = self._things[number]
            known = self._methods[number, method] = getattr(thing, method), signature(kind, method).arguments
        done, reads = known
        return done(*[each if read is None else read(each) for read, each in zip(reads, arguments, strict=True)])

    def _judge(self, number: int, contexts: list[Any]) -> list[bool]:
        """What a condition says of many leads: a call for each would cost more than most answers."""
        evaluate = self._things[number][1].evaluate
        return [evaluate(CONTEXT(each)) for each in contexts]

    def _open(self, number: int, session: int, settings: dict[str, Any], content: Any) -> None:
        self._sessions[session] = self._things[number][1].open(settings, CONTENT(content))

    def _submit(self, session: int, batch: Any) -> None:
        self._outcomes[session] = iter(self._sessions[session].submit(_BATCH(batch), self._journal))

    def _next(self, session: int) -> Any:
        """An outcome, nothing for now, or ``end``."""
        try:
            return next(self._outcomes[session])
        except StopIteration:
            del self._outcomes[session]
            return "end"

    def _withdraw(self, session: int) -> None:
        self._sessions[session].withdraw()

    def _close(self, session: int) -> None:
        self._outcomes.pop(session, None)
        self._sessions.pop(session).close()


def serve(incoming: int, outgoing: int, module: str, settings: Mapping[str, str]) -> None:
    """Load a plugin and do what is asked until the host is gone."""
    line = Line(incoming, outgoing)
    collected = Collected(line, module, settings)
    try:
        loaded = importlib.import_module(module)
        loaded.includeme(collected)
        described = collected.described()
        line.put(["ready", described])
    except Exception as error:  # noqa: BLE001 - isolation boundary: whatever stops it is said
        line.put(["raised", 0, type(error).__name__, str(error)[:500], []])
        return
    calls = Calls(line, collected.things)
    # Held while nobody is waited for: what comes then is a call, and no answer to a thread of the plugin.
    line.lock.acquire()
    while True:
        message = line.take()
        line.lock.release()
        answer = _answer(calls, message)
        line.lock.acquire()
        line.write(answer)


def _answer(calls: Calls, message: list[Any]) -> bytes:
    name, number, *given = message
    try:
        return written(["done", number, calls.by_name[name](*given)])
    except ValidationError as error:
        problems = [[each.path, each.code, each.message] for each in error.problems]
        return written(["raised", number, ValidationError.code, "", problems])
    except Exception as error:  # noqa: BLE001 - isolation boundary: it is the host that decides what follows
        return written(["raised", number, type(error).__name__, str(error)[:500], []])


def _validation(problems: list[list[str]]) -> ValidationError:
    return ValidationError(problems=[Problem(*each) for each in problems])
