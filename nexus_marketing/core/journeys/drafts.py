"""A decision in the making: what changes of a run, what its history says, and what leaves."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from nexus_marketing.core.journeys.runs import CancelMessages, Effect, HistoryLine, Run, RunDecision, RunState, Said

#: Of a run that stands nowhere yet.
_FRESH: Final[Mapping[str, Any]] = {
    "open": (),
    "left": (),
    "outcomes": (),
    "held": frozenset(),
    "arrived_at": None,
    "deadline": None,
}


class Draft:
    """Collects what is decided about one run at one moment."""

    def __init__(self, run: Run, now: datetime) -> None:
        self.run, self.now = run, now
        self._changes: dict[str, Any] = {}
        self._history: list[HistoryLine] = []
        self._effects: list[Effect] = []

    def get(self, name: str) -> Any:
        """A field of the run as it will be."""
        return self._changes[name] if name in self._changes else getattr(self.run, name)

    def set(self, **changes: Any) -> None:
        """Change fields of the run."""
        self._changes.update(changes)

    def say(self, said: Said, node: str, **detail: Any) -> None:
        """A line of history."""
        self._history.append(HistoryLine(self.now, said, node, detail))

    def do(self, effect: Effect) -> None:
        """Something leaves through the outbox."""
        self._effects.append(effect)

    def end(self, state: RunState, reason: str) -> None:
        """The run is over: no timer, and nothing unsent is sent."""
        if self.get("open"):
            self.do(CancelMessages(self.get("visit"), reason))
        self.say(Said.ENDED, self.get("node"), state=str(state), reason=reason)
        self.rest(state, None, ended_at=self.now, reason=reason)

    def rest(self, state: RunState, wake_at: datetime | None, **changes: Any) -> None:
        """The run stands still until something happens: what was awaited before is not any more."""
        token = self.run.wait_token + 1
        self._changes.update({**_FRESH, "state": state, "wake_at": wake_at, "wait_token": token, **changes})

    def decision(self) -> RunDecision:
        """What is to be written; nothing where nothing changed."""
        if not self._changes:
            return RunDecision(self.run.version, self.run)
        after = replace(self.run, version=self.run.version + 1, **self._changes)
        return RunDecision(self.run.version, after, tuple(self._history), tuple(self._effects))
