"""Which binds a process has: one for each account however many threads send by it, for as long as anybody needs it."""

import threading
from collections.abc import Callable

from nexus_marketing.core.contracts import Hear, LineState
from nexus_marketing.smpp.bind import Bind
from nexus_marketing.smpp.opening import BindSettings


class Binds:
    """Providers count binds: threads share one. Whoever uses one says so, and says when that is over."""

    def __init__(self, make: Callable[[BindSettings], Bind]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: dict[BindSettings, tuple[Bind, set[object]]] = {}
        self._own = threading.local()

    def of_thread(self, settings: BindSettings) -> Bind:
        """The bind, until :meth:`close_thread`."""
        if not hasattr(self._own, "user"):
            self._own.user = object()
        return self.use(settings, self._own.user)

    def close_thread(self) -> None:
        """This thread sends no more."""
        if hasattr(self._own, "user"):
            self.release(self._own.user)

    def use(self, settings: BindSettings, user: object) -> Bind:
        """The bind, until ``user`` is released."""
        with self._lock:
            if settings not in self._kept:
                self._kept[settings] = self._make(settings), set()
            bind, users = self._kept[settings]
            users.add(user)
            return bind

    def withdraw(self, settings: BindSettings, owner: object) -> None:
        """Take back what of an owner's has not begun, where there is such a bind."""
        with self._lock:
            found = self._kept.get(settings)
        if found is not None:
            found[0].withdraw(owner)

    def release(self, user: object) -> None:
        """Part from what only this one used."""
        over: list[Bind] = []
        with self._lock:
            for settings, (bind, users) in list(self._kept.items()):
                users.discard(user)
                if not users:
                    del self._kept[settings]
                    over.append(bind)
        for bind in over:
            bind.close()

    def line(self, settings: BindSettings, hear: Hear) -> "BindLine":
        """Keep a bind open and hear what it delivers."""
        return BindLine(self, settings, hear)


class BindLine:
    """Somebody hears."""

    def __init__(self, binds: Binds, settings: BindSettings, hear: Hear) -> None:
        self._binds = binds
        self._hear = hear
        self._bind = binds.use(settings, self)
        self._bind.listen(hear)

    def state(self) -> LineState:
        """How the bind stands."""
        return self._bind.state()

    def close(self) -> None:
        """Hear no more."""
        self._bind.cease(self._hear)
        self._binds.release(self)
