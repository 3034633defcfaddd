"""A trusted plugin's session under watch: in-process Python cannot be stopped, but it can be measured and left alone.

What takes longer than it may is counted, and so is what raises; several in a row open the plugin's circuit, and while it
is open nothing is handed over. What is handed over while all is well costs two readings of a clock. A worker begins anew
after one that took too long (:mod:`nexus_marketing.tasks.recycling`).
"""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final

from nexus_marketing.core.contracts import ChannelSession, Journal, Outcome, OutcomeKind, Submission
from nexus_marketing.plugin.circuits import Circuit, PluginFailed

#: Of a provider's own words in an outcome; what is beyond is cut off.
MAX_WORDS: Final = 4_000


class Overruns:
    """What trusted plugins have under way in a process, and which of them took too long; any thread may ask."""

    def __init__(self) -> None:
        self._under_way: set[MeasuredSession] = set()
        #: The plugin that answered too late last, empty where none did.
        self.plugin = ""

    def begin(self, session: "MeasuredSession") -> None:
        """It hands over a batch."""
        self._under_way.add(session)

    def end(self, session: "MeasuredSession") -> None:
        """It does no more."""
        self._under_way.discard(session)

    def overdue(self, factor: float) -> str:
        """The plugin of a call that has not come back in ``factor`` times the seconds that it may take; empty: none."""
        return next((each.plugin for each in tuple(self._under_way) if each.is_overdue(factor)), "")


class MeasuredSession:
    """Keeps the contract of what it watches.

    Args:
        session: the plugin's.
        circuit: of the plugin.
        call_seconds: how long it may take until the next outcome, or until it says that there is none yet.
        overruns: of the process.
        now_seconds: a clock that never goes back.
    """

    def __init__(
        self,
        session: ChannelSession,
        circuit: Circuit,
        call_seconds: float,
        overruns: Overruns | None = None,
        now_seconds: Callable[[], float] = perf_counter,
    ) -> None:
        self._session, self._circuit = session, circuit
        self._call_seconds, self._now = call_seconds, now_seconds
        self._overruns = overruns or Overruns()
        #: When the plugin was asked for what it has not answered yet.
        self._begun: float | None = None

    @property
    def plugin(self) -> str:
        """Whose session it is."""
        return self._circuit.plugin

    def is_overdue(self, factor: float) -> bool:
        """Whether a call is under way for so many times the seconds that it may take."""
        begun = self._begun
        return begun is not None and self._now() - begun > factor * self._call_seconds

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Hand over, unless the plugin is left alone."""
        try:
            self._circuit.check()
        except PluginFailed as error:
            kind, wait = OutcomeKind.NOT_SENT, error.retry_after_seconds
            return iter([Outcome(each.ref, kind, error.code, error.message[:200], wait) for each in batch])
        # At once, as it would begin without us: while one batch is on the wire the next is written down.
        begun = self._begun = self._now()
        self._overruns.begin(self)
        outcomes: Iterator[Outcome | None] = iter(())
        raised: Exception | None = None
        try:
            outcomes = self._session.submit(batch, journal)
        except Exception as error:  # noqa: BLE001 - it is raised where outcomes are asked for
            raised = error
        self._begun = None
        self._look(self._now() - begun)
        return self._watched(outcomes, raised)

    def withdraw(self) -> None:
        """As it does."""
        self._session.withdraw()

    def close(self) -> None:
        """As it does."""
        self._session.close()

    def _watched(self, outcomes: Iterator[Outcome | None], raised: Exception | None) -> Iterator[Outcome | None]:
        now, most, circuit = self._now, self._call_seconds, self._circuit
        self._overruns.begin(self)
        try:
            if raised is not None:
                raise raised  # noqa: TRY301 - counted as what is raised later
            self._begun = begun = now()
            for outcome in outcomes:
                taken = now() - begun
                self._begun = None
                if taken > most:
                    self._look(taken)
                elif circuit.failures and outcome is not None:
                    circuit.succeeded()
                yield outcome if outcome is None or not outcome.detail else _cut(outcome)
                self._begun = begun = now()
        except Exception as error:
            circuit.failed(f"it raised {type(error).__name__}")
            raise
        finally:
            self._begun = None
            self._overruns.end(self)

    def _look(self, taken: float) -> None:
        """Count what took longer than it may."""
        if taken > self._call_seconds:
            self._overruns.plugin = self._circuit.plugin
            self._circuit.failed(f"took {taken:.1f} s for one answer, more than {self._call_seconds:g} s")


def _cut(outcome: Outcome) -> Outcome:
    return outcome if len(outcome.detail) <= MAX_WORDS else outcome._replace(detail=outcome.detail[:MAX_WORDS])
