"""Where this process keeps campaigns: on the objects themselves, until somebody says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.core.contracts import Storage
from nexus_marketing.core.hub import HUB, EventHub


@dataclass
class Home:
    """What managers of this process share; ``storage`` is nothing while campaigns stay on their objects."""

    storage: Storage | None = None
    clock: Clock = field(default_factory=SystemClock)
    hub: EventHub = HUB
    #: Opens the storage on first use: a program that never launches opens nothing.
    opener: Callable[[], Storage] | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def resolve(self) -> Storage | None:
        """The storage of this process, opened if it was not yet."""
        if self.opener is not None:
            with self._lock:
                if self.opener is not None:
                    self.storage, self.opener = self.opener(), None
        return self.storage


#: The home of this process.
HOME = Home()


def use_storage(storage: Storage | None) -> Callable[[], None]:
    """Keep campaigns of every ``HasMarketing`` object of this process in ``storage`` from now on.

    Args:
        storage: any implementation of the storage contract; ``None`` puts them back on the objects.

    Returns:
        A function that restores what was before.
    """
    before = (HOME.storage, HOME.opener)
    HOME.storage, HOME.opener = storage, None

    def restore() -> None:
        HOME.storage, HOME.opener = before

    return restore


def subject_identity(subject: Any) -> tuple[str, str]:
    """Type and id of an object without an adapter: ``marketing_subject_type`` and ``_id``, else class name and ``id``."""
    kind = getattr(subject, "marketing_subject_type", None) or type(subject).__name__
    own = getattr(subject, "marketing_subject_id", None)
    if own is None:
        own = getattr(subject, "id", None)
    value = own() if callable(own) else own
    return str(kind), "" if value is None else str(value)
