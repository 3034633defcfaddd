"""What a process has (Runtime, built once) and what a unit of work has (Context).

Web requests, tasks and commands all get a :class:`Context` and call the same services with it.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

import transaction
from sqlalchemy.orm import Session
from transaction.interfaces import ITransactionManager

from nexus_marketing.core.accounts import Account
from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.clock import Clock, SystemClock
from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.events import Event
from nexus_marketing.core.hub import HUB, EventHub
from nexus_marketing.core.storages import BlobStore, Cache
from nexus_marketing.db.engines import Engines
from nexus_marketing.db.switches import Accounts, Switches
from nexus_marketing.db.tenancy import TenantSession, open_session, tenant_of
from nexus_marketing.keys import Keys
from nexus_marketing.limits.trials import Trials
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.registry import Plugin, PluginRegistry
from nexus_marketing.settings import Settings
from nexus_marketing.telemetry import NullTelemetry, Telemetry, get_logger

log = get_logger(__name__)

#: A quarter of the threads that a web process usually has.
_MOST_TRIALS = 4


class Doorbell(Protocol):
    """Tells workers that there may be something to do; may lose, double or delay rings without harm."""

    def ring(self, tenant_id: int, queue: str) -> None:
        """There may be work for this tenant."""
        ...

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until rung or timed out; whether it was rung."""
        ...

    def listen(self) -> Callable[[], None]:
        """Begin to hear rings of other processes; answers a function that ends it."""
        ...


class MemoryDoorbell:
    """The doorbell inside one process: an event without content."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self, tenant_id: int, queue: str) -> None:
        """Wake whoever waits in this process."""
        del tenant_id, queue
        self._event.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until rung or timed out."""
        rung = self._event.wait(timeout_seconds)
        self._event.clear()
        return rung

    def listen(self) -> Callable[[], None]:
        """There are no other processes to hear."""
        return lambda: None


def account_place(tenant_id: int, id_: int) -> str:
    """Where the secrets of a channel account are sealed for."""
    return f"{tenant_id}/account/{id_}"


def plugin_place(tenant_id: int, id_: int) -> str:
    """Where the secrets of a tenant's settings of a plugin are sealed for."""
    return f"{tenant_id}/plugin/{id_}"


def new_blob_key(tenant_id: int) -> str:
    """A place for a tenant's bytes that nobody can guess."""
    return f"{tenant_id}/{secrets.token_hex(24)}"


class MemoryBlobs:
    """Attachments and uploads in the memory of one process: for programs and tests that keep none."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def put(self, key: str, content: bytes | BinaryIO) -> None:
        """Keep it."""
        self._contents[key] = content if isinstance(content, bytes) else content.read()

    def get(self, key: str) -> bytes | None:
        """What was kept, or nothing."""
        return self._contents.get(key)

    @contextmanager
    def local(self, key: str) -> Iterator[Path | None]:
        """What was kept, in a file for as long as it is read."""
        content = self.get(key)
        if content is None:
            yield None
            return
        with NamedTemporaryFile(prefix="nexus-blob-") as file:
            file.write(content)
            file.flush()
            yield Path(file.name)

    def delete(self, key: str) -> None:
        """Let it go."""
        self._contents.pop(key, None)


class NoCache:
    """Forgets at once: for programs that end soon."""

    def get(self, tenant_id: int, key: str) -> None:
        """Nothing."""
        del tenant_id, key

    def put(self, tenant_id: int, key: str, value: bytes, lifetime: timedelta) -> None:
        """Let it go."""
        del tenant_id, key, value, lifetime


@dataclass(frozen=True, slots=True)
class Access:
    """How a unit of work reaches the database: ``mode``, ``role``, the timeout and ``by_index`` as in ``db.engines``."""

    mode: str = "write"
    role: str = "app"
    timeout_seconds: float | None = None
    by_index: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts one process shares: built once by ``config.build``, closed at its end."""

    settings: Settings
    engines: Engines
    keys: Keys
    channels: Mapping[str, Channel]
    clock: Clock = field(default_factory=SystemClock)
    rng: Random = field(default_factory=Random)
    telemetry: Telemetry = field(default_factory=NullTelemetry)
    doorbell: Doorbell = field(default_factory=MemoryDoorbell)
    blobs: BlobStore = field(default_factory=MemoryBlobs)
    cache: Cache = field(default_factory=NoCache)
    hub: EventHub = HUB
    #: What the plugins of this process added; those who are asked for by name are above.
    plugins: PluginRegistry = field(default_factory=PluginRegistry)
    switches: Switches = field(default_factory=Switches)
    accounts: Accounts = field(default_factory=Accounts)
    #: Of accounts, by tenants: their servers may take their time, and threads that wait for them answer nobody else.
    trials: Trials = field(default_factory=lambda: Trials(_MOST_TRIALS))

    def channel_settings(self, session: Session, channel: str, *, secrets: bool = True) -> Mapping[str, Any] | None:
        """What the session's tenant set for the plugin of a channel, as :meth:`settings_of`."""
        return self.settings_of(session, self.plugin_of(channel), secrets=secrets)

    def settings_of(self, session: Session, plugin: Plugin | None, *, secrets: bool = True) -> Mapping[str, Any] | None:
        """What the session's tenant set for a plugin, at most a second old.

        Args:
            session: of the tenant.
            plugin: as :meth:`plugin_of` answers.
            secrets: ``False`` for what is written down anywhere.

        Returns:
            Empty for what is built in; nothing where the tenant has the plugin not on.

        Raises:
            SecretsUnreadable: their key is gone.
        """
        if plugin is None:
            return {}
        found = self.switches.of(session).get(plugin.name)
        if found is None or found.secrets is None or not secrets:
            return None if found is None else found.settings
        return {**found.settings, **self.keys.vault.open(found.secrets, plugin_place(tenant_of(session), found.id))}

    def account_settings(self, tenant_id: int, account: Account) -> dict[str, Any]:
        """What a tenant set for an account, with its secrets.

        Raises:
            SecretsUnreadable: their key is gone.
        """
        return {**account.config, **self.keys.vault.open(account.secrets, account_place(tenant_id, account.id))}

    def plugin_of(self, name: str, kind: Capability = Capability.CHANNEL) -> Plugin | None:
        """The plugin that a tenant has to have on for a channel, or for another kind of thing; nothing for what is built in."""
        plugin = self.plugins.owner_of(kind, name)
        return None if plugin is None or plugin.is_builtin else plugin

    @contextmanager
    def work(
        self,
        tenant_id: int | None,
        actor: Actor = SYSTEM,
        *,
        mode: str = "write",
        role: str = "worker",
        request_id: str | None = None,
        by_index: bool = False,
    ) -> Iterator["Context"]:
        """One transaction of its own: commits when the block ends well.

        ``request_id`` is that of the web request it belongs to, if it does. ``by_index`` is for work that looks rows up and
        goes through no table (``db.by_index``).
        """
        manager = transaction.TransactionManager(explicit=True)
        manager.begin()
        context = Context(self, tenant_id, actor, manager, Access(mode, role, by_index=by_index), request_id)
        try:
            yield context
        except BaseException:
            manager.abort()
            raise
        else:
            manager.commit()
        finally:
            context.close()

    def close(self) -> None:
        """Let go of connections, and undo what plugins did to the process."""
        self.engines.dispose()
        self.plugins.close()


class Context:
    """One unit of work: whose rows, who acts, when, and the session that commits it all or nothing."""

    def __init__(
        self,
        runtime: Runtime,
        tenant_id: int | None,
        actor: Actor,
        manager: ITransactionManager,
        access: Access,
        request_id: str | None = None,
    ) -> None:
        self.runtime = runtime
        self.tenant_id = tenant_id
        self.actor = actor
        self.request_id = request_id or uuid4().hex
        self._manager = manager
        self._access = access
        self._session: TenantSession | None = None

    @property
    def session(self) -> TenantSession:
        """The tenant's session; the transaction begins with the first statement."""
        if self._session is None:
            access = self._access
            self._session = open_session(
                getattr(self.runtime.engines, access.role),
                tenant_id=self.tenant_id,
                mode=access.mode,
                manager=self._manager,
                timeout_seconds=access.timeout_seconds,
                by_index=access.by_index,
            )
        return self._session

    @property
    def now(self) -> datetime:
        """The present moment by the injected clock (UTC)."""
        return self.runtime.clock.now()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once the transaction is durable, and not at all if it is not.

        A failing action is logged and does not stop the next: nothing that matters may depend on it.
        """
        self._manager.get().addAfterCommitHook(_guarded, (action,))

    def emit(self, event: Event) -> None:
        """Tell subscribers of this process: now those who may refuse it, after the commit the others."""
        self.runtime.hub.before(event)
        self.after_commit(lambda: self.runtime.hub.after(event))

    def ring(self, queue: str) -> None:
        """Wake workers after commit; what is lost here is found again by their polling."""
        tenant_id = self.tenant_id or 0
        self.after_commit(lambda: self.runtime.doorbell.ring(tenant_id, queue))

    def close(self) -> None:
        """Give the connection back."""
        if self._session is not None:
            self._session.close()


def _guarded(committed: bool, action: Callable[[], Any]) -> None:  # noqa: FBT001 - the hook's signature
    if not committed:
        return
    try:
        action()
    except Exception:  # isolation boundary: the transaction is done, the next action must run
        log.exception("after_commit_action_failed")
