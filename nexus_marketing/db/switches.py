"""Which plugins tenants have on, as dispatch asks it: read at most once a second by each process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus_marketing.db.queries.plugins import plugins_on
from nexus_marketing.db.tenancy import tenant_of

_LIFETIME_SECONDS: Final = 1.0
_MOST: Final = 10_000

On = Mapping[str, Mapping[str, Any]]


class Switches:
    """Every method may be called from any thread.

    Args:
        now_seconds: a clock that never goes back.
    """

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now = now_seconds
        self._lock = Lock()
        self._kept: OrderedDict[int, tuple[float, On]] = OrderedDict()

    def of(self, session: Session) -> On:
        """The settings of each plugin that the session's tenant has on, by name."""
        tenant_id, now = tenant_of(session), self._now()
        with self._lock:
            until, known = self._kept.get(tenant_id, (float("-inf"), {}))
        if now < until:
            return known
        found = plugins_on(session)
        with self._lock:
            self._kept[tenant_id] = now + _LIFETIME_SECONDS, found
            self._kept.move_to_end(tenant_id)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return found

    def forget(self, tenant_id: int) -> None:
        """Something was switched: ask again."""
        with self._lock:
            self._kept.pop(tenant_id, None)
