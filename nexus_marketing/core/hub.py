"""Who hears of events in this process: subscribers before the commit, which may refuse it, and after it.

Usable without Pyramid, a database or a server. Subscribers after the commit are isolated from each
other: one that raises is logged, and the next hears all the same.
"""

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any

from nexus_marketing.core.errors import ValidationError, hint
from nexus_marketing.core.events import Event

Subscriber = Callable[[Any], object]

log = logging.getLogger(__name__)


class EventHub:
    """Subscribers by event type or name; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._before: tuple[tuple[object, Subscriber], ...] = ()
        self._after: tuple[tuple[object, Subscriber], ...] = ()

    def subscribe(
        self, event: type[Event] | str, subscriber: Subscriber, *, before_commit: bool = False
    ) -> Callable[[], None]:
        """Call ``subscriber`` with every event of a type (its subtypes included) or name.

        Args:
            event: a type such as ``CampaignLaunched``, or a name such as ``marketing.campaign.launched``;
                ``marketing.campaign.*`` and ``*`` mean all that begin so.
            subscriber: gets the event.
            before_commit: hear before anything is written; raising refuses the change. Otherwise after
                it is durable; raising is logged and stops nobody.

        Returns:
            A function that ends the subscription.

        Raises:
            ValidationError: no event has this name.
        """
        if isinstance(event, str):
            _check_name(event)
        entry = (event, subscriber)
        with self._lock:
            if before_commit:
                self._before = (*self._before, entry)
            else:
                self._after = (*self._after, entry)
        return lambda: self._forget(entry)

    def _forget(self, entry: tuple[object, Subscriber]) -> None:
        with self._lock:
            self._before = tuple(each for each in self._before if each is not entry)
            self._after = tuple(each for each in self._after if each is not entry)

    def before(self, event: Event) -> None:
        """Ask those who may refuse; the first that raises stops the change with its own error."""
        for wanted, subscriber in self._before:
            if _concerns(wanted, event):
                subscriber(event)

    def after(self, event: Event) -> None:
        """Tell those who listen to what is durable, each isolated from the others."""
        for wanted, subscriber in self._after:
            if not _concerns(wanted, event):
                continue
            try:
                subscriber(event)
            except Exception:
                log.exception("subscriber %r failed on %s", subscriber, event.name)


def _concerns(wanted: object, event: Event) -> bool:
    if isinstance(wanted, type):
        return isinstance(event, wanted)
    name = str(wanted)
    return event.name.startswith(name[:-1]) if name.endswith("*") else event.name == name


def _check_name(name: str) -> None:
    known = {kind.name for kind in _kinds(Event)}
    if name in known or (name.endswith("*") and any(each.startswith(name[:-1]) for each in known)):
        return
    raise ValidationError.at("event", "unknown_event", f"There is no event {name!a}{hint(name, known)}.")


def _kinds(kind: type[Event]) -> set[type[Event]]:
    return {kind, *(each for child in kind.__subclasses__() for each in _kinds(child))}


#: The hub of this process, and the way into it that programs and plugins use.
HUB = EventHub()
subscribe = HUB.subscribe
