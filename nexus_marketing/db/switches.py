"""What dispatch asks of a tenant before every chunk: read at most once a second by each process."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import Account
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.queries.plugins import PluginSettings, plugins_on
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.limits.memories import ShortMemory

_LIFETIME_SECONDS: Final = 1.0

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """Every method may be called from any thread.

    Args:
        read: asks the database, for the session's tenant.
        now_seconds: a clock that never goes back.
    """

    def __init__(self, read: Callable[[Session], Found], now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._memory: ShortMemory[int, Found] = ShortMemory(_LIFETIME_SECONDS, now_seconds)

    def of(self, session: Session) -> Found:
        """What holds for the session's tenant."""
        return self._memory.ask(tenant_of(session), lambda: self._read(session))

    def forget(self, tenant_id: int) -> None:
        """Something was changed: ask again."""
        self._memory.forget(tenant_id)


class Switches(Remembered[Mapping[str, PluginSettings]]):
    """The settings of each plugin that a tenant has on, by name."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(plugins_on, now_seconds)


class Accounts(Remembered[Mapping[str, Sequence[Account]]]):
    """A tenant's enabled accounts by channel, the oldest first."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(accounts_of, now_seconds)
