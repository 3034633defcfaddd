"""Connections that are kept so that providers can report: one for each account of a channel that listens.

Every worker process keeps its own, so that none has to be there. Where a provider allows fewer, it decides who has them;
the others try again, and one that ends makes room for another.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from nexus_marketing.core.accounts import Account, AccountHealth, unspoken
from nexus_marketing.core.contracts import IN_USE, Line, LineState, ListeningChannel, ProviderEvent
from nexus_marketing.core.errors import NexusError
from nexus_marketing.db.queries.accounts import accounts_to_hear, note_health
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Keeps a tenant's events for good: of which channel, and who told them.
Keep = Callable[[int, str, str, Sequence[ProviderEvent]], Any]
_AGAIN_SECONDS: Final = 60.0
#: Parting waits for an answer.
_PARTING_AT_ONCE: Final = 16


@dataclass(slots=True)
class _Heard:
    """An account that is listened to; without a line its settings cannot be used, or nothing comes by them."""

    tenant_id: int
    account: Account
    line: Line | None
    secrets: Sequence[Any] = field(repr=False)
    #: It did not work at the last look; and what people were told of that here, once: of another host it may be true no more.
    was_away: bool = False
    told: AccountHealth | None = None
    _since: float = field(default_factory=monotonic)

    @property
    def is_stale(self) -> bool:
        """Whether it is to be found out again if there is a line: its plugin may be on now, its secrets readable."""
        return self.line is None and monotonic() - self._since > _AGAIN_SECONDS


@dataclass(slots=True)
class Listening:
    """Belongs to one thread of a process."""

    runtime: Runtime
    keep: Keep
    _heard: dict[tuple[int, int], _Heard] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether any channel here listens."""
        return any(True for _ in self._channels())

    def tend(self) -> int:
        """Open lines to accounts that are new or changed, close those to accounts that are off or gone; answers how many
        are open.
        """
        found: dict[tuple[int, int], tuple[ListeningChannel, Account]] = {}
        with open_session(self.runtime.engines.worker, tenant_id=None, mode="read") as session:
            for name, channel in self._channels():
                for tenant_id, account in accounts_to_hear(session, name):
                    found[tenant_id, account.id] = channel, account
        for key, heard in list(self._heard.items()):
            if key not in found or found[key][1].version != heard.account.version or heard.is_stale:
                self._close(key)
        for key, (channel, account) in found.items():
            if key in self._heard:
                self._heard[key].account = account
            else:
                self._heard[key] = self._open(key[0], channel, account)
        return sum(self._look(each) for each in self._heard.values())

    def close(self) -> None:
        """Part from everybody."""
        if self._heard:
            with ThreadPoolExecutor(_PARTING_AT_ONCE, "nexus-parting") as threads:
                list(threads.map(self._close, list(self._heard)))

    def _channels(self) -> Iterator[tuple[str, ListeningChannel]]:
        for name, channel in self.runtime.channels.items():
            if isinstance(channel, ListeningChannel):
                yield name, channel

    def _open(self, tenant_id: int, channel: ListeningChannel, account: Account) -> _Heard:
        line, secrets = None, list[Any]()
        about = (tenant_id, account.type, str(account.config.get("provider") or ""))
        try:
            settings = self._settings(tenant_id, account)
            if settings is not None:
                secrets = [value for name, value in settings.items() if name not in account.config]
                line = channel.listen(settings, lambda events: self.keep(*about, events))
        except NexusError as error:
            # Whoever sends by it says so where people look; here it is one that nothing comes by.
            said = unspoken(error.message[:200], secrets)
            log.warning("account_not_heard", tenant_id=tenant_id, account_id=account.id, reason=said)
        except Exception:  # isolation boundary: a plugin's fault is its own account's
            log.exception("plugin_failed", channel=account.type)
        return _Heard(tenant_id, account, line, secrets)

    def _settings(self, tenant_id: int, account: Account) -> dict[str, Any] | None:
        """As they are sent by; nothing where the channel's plugin is off for the tenant."""
        with open_session(self.runtime.engines.worker, tenant_id=tenant_id, mode="read") as session:
            of_plugin = self.runtime.channel_settings(session, account.type)
        own = self.runtime.account_settings(tenant_id, account)
        return None if of_plugin is None else {**own, **of_plugin}

    def _close(self, key: tuple[int, int]) -> None:
        line = self._heard.pop(key).line
        if line is not None:
            try:
                line.close()
            except Exception:  # isolation boundary, as above
                log.exception("plugin_failed", channel="")

    def _look(self, heard: _Heard) -> bool:
        if heard.line is None:
            return False
        state = heard.line.state()
        if state.is_open:
            heard.was_away = False
            # That messages are refused is not disproved by a line.
            if heard.account.health == AccountHealth.UNREACHABLE or (
                heard.told is AccountHealth.REFUSED and heard.account.health == AccountHealth.REFUSED
            ):
                self._note(heard, AccountHealth.OK, None)
            heard.told = None
        elif state.said and state.code != IN_USE:
            # One that cannot be reached may be starting anew: it is told of at the second look.
            if state.is_refused or heard.was_away:
                self._tell(heard, state)
            heard.was_away = True
        return state.is_open

    def _tell(self, heard: _Heard, state: LineState) -> None:
        health = AccountHealth.REFUSED if state.is_refused else AccountHealth.UNREACHABLE
        if heard.account.health != health and heard.told is not health:
            log.warning("account_ill", tenant_id=heard.tenant_id, account_id=heard.account.id, health=str(health))
            self.runtime.telemetry.count("listening.away", channel=heard.account.type, health=str(health))
            self._note(heard, health, unspoken(state.said[:200], heard.secrets))
        heard.told = health

    def _note(self, heard: _Heard, health: AccountHealth, reason: str | None) -> None:
        runtime, tenant_id = self.runtime, heard.tenant_id
        with open_session(runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
            note_health(session, heard.account, runtime.clock.now(), health, reason)
        runtime.accounts.forget(tenant_id)
