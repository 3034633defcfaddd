"""Where this process keeps campaigns: on the objects themselves, until somebody says otherwise."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock
from typing import Any, Final

from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.hub import HUB, EventHub
from nexus_marketing.core.storages import Storage

_INI: Final = "NEXUS_MARKETING_INI"
_TENANT: Final = "NEXUS_MARKETING_TENANT"


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


def connect(ini: str, *, tenant: str) -> Callable[[], None]:
    """Keep the campaigns of this process in the database from now on (Phase 2); nothing else changes.

    The database is opened with the first call that needs it. The same is said without touching the
    program by the environment: ``NEXUS_MARKETING_INI`` and ``NEXUS_MARKETING_TENANT``.

    Args:
        ini: the file that ``pserve`` and ``nexus-marketing`` run on, such as ``development.ini``.
        tenant: the slug of the tenant whose campaigns they are.

    Returns:
        A function that ends it: campaigns are kept where they were kept before.
    """
    before = (HOME.storage, HOME.opener)
    opened: list[Any] = []

    def open_it() -> Storage:
        opened.append(import_module("nexus_marketing.config").open_storage(ini, tenant))
        storage: Storage = opened[0]
        return storage

    def restore() -> None:
        HOME.storage, HOME.opener = before
        for storage in opened:
            storage.close()

    HOME.storage, HOME.opener = None, open_it
    return restore


def connect_by_environment() -> None:
    """:func:`connect` where the environment says so.

    Raises:
        ConfigurationError: it names a file and no tenant, or a tenant and no file.
    """
    ini, tenant = os.environ.get(_INI), os.environ.get(_TENANT)
    if not ini and not tenant:
        return
    if not ini:
        raise ConfigurationError(
            f"{_TENANT} is set and {_INI} is not: name the file that pserve runs on, or nothing would be in its database."
        )
    if not tenant:
        raise ConfigurationError(f"{_INI} is set and {_TENANT} is not: name the tenant whose campaigns they are.")
    connect(ini, tenant=tenant)
