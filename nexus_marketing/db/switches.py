"""What dispatch asks of a tenant before every chunk: read at most once a second by each process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import Account
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.queries.plugins import PluginSettings, plugins_on
from nexus_marketing.db.tenancy import tenant_of

_LIFETIME_SECONDS: Final = 1.0
_MOST: Final = 10_000

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """Every method may be called from any thread.

    Args:
        read: asks the database, for the session's tenant.
        now_seconds: a clock that never goes back.
    """

    def __init__(self, read: Callable[[Session], Found], now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._now = now_seconds
        self._lock = Lock()
        self._kept: OrderedDict[int, tuple[float, Found]] = OrderedDict()

    def of(self, session: Session) -> Found:
        """What holds for the session's tenant."""
        tenant_id, now = tenant_of(session), self._now()
        with self._lock:
            known = self._kept.get(tenant_id)
        if known is not None and now < known[0]:
            return known[1]
        found = self._read(session)
        with self._lock:
            self._kept[tenant_id] = now + _LIFETIME_SECONDS, found
            self._kept.move_to_end(tenant_id)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return found

    def forget(self, tenant_id: int) -> None:
        """Something was changed: ask again."""
        with self._lock:
            self._kept.pop(tenant_id, None)


class Switches(Remembered[Mapping[str, PluginSettings]]):
    """The settings of each plugin that a tenant has on, by name."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(plugins_on, now_seconds)


class Accounts(Remembered[Mapping[str, Sequence[Account]]]):
    """A tenant's enabled accounts by channel, the oldest first."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(accounts_of, now_seconds)
