"""By which account a send's messages leave, and what is seen of accounts on the way (BEHAVIOUR.md 5.2, Circuit breakers).

Whoever may have got a message by one account gets no copy by another: a repetition waits for the account it began with.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import (
    Account,
    AccountHealth,
    Rota,
    account_mark,
    marked_account,
    unspoken,
)
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import Channel, ChannelSession, Journal, Outcome, Submission
from nexus_marketing.core.deliveries import DeliveryState, HoldReason
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.pacing.rates import RateLimit, account_limits, as_sender
from nexus_marketing.core.pacing.turns import Lane
from nexus_marketing.db.queries.accounts import note_health
from nexus_marketing.db.queries.deliveries import Recipient, marked_codes
from nexus_marketing.db.queries.rates import Asker, used_up
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery.composing import SendContent
from nexus_marketing.delivery.gate import Decided
from nexus_marketing.delivery.handover import ChunkResult, Parts
from nexus_marketing.delivery.patience import Patience, concerning
from nexus_marketing.delivery.senders import accounts_for, watched
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger, scrub

log = get_logger(__name__)

#: How soon somebody is looked at again whose message has to leave by an account that is not the one of this chunk.
_OTHER_ACCOUNT_SECONDS: Final = 5.0
#: From so many failures in a row on people are told: one may be a server that starts anew.
_TOLD_AT: Final = 2
#: Recipients that are read at once at least: reading costs little beside a claim.
_FEWEST: Final = 32


@dataclass(slots=True)
class Prepared:
    """What is made once for a send: its parts, the settings it was made with, and a session for each account."""

    parts: Parts
    channel: Channel
    #: Of the channel's plugin, secrets among them.
    settings: Mapping[str, Any] = field(repr=False)
    accounts: Sequence[Account] = ()
    #: As they were found with the last claim: those of the channel and of all its accounts, and those of the send alone.
    rates: Sequence[RateLimit] = ()
    own_rates: Sequence[RateLimit] = ()
    #: What was waited for by the chunk that was claimed last.
    group: str | None = None
    sessions: dict[int | None, tuple[int, ChannelSession]] = field(default_factory=dict)

    @property
    def content(self) -> SendContent:
        """What is sent."""
        return self.parts.gate.content

    def close(self) -> None:
        """Let go of the sessions."""
        while self.sessions:
            self.sessions.popitem()[1][1].close()

    def session_for(self, runtime: Runtime, account: Account | None) -> ChannelSession:
        """The channel opened with an account as it is now; without one, with what the send pinned.

        Raises:
            NexusError: the channel refuses the settings, or their secrets cannot be read.
        """
        key, version = (None, 0) if account is None else (account.id, account.version)
        known = self.sessions.get(key)
        if known is not None and known[0] == version:
            return known[1]
        if known is not None:
            self.sessions.pop(key)[1].close()
        content = self.content
        own = content.sender if account is None else runtime.account_settings(content.tenant_id, account)
        settings = {**own, **self.settings}
        session = self.channel.open(settings, content.content(runtime.settings.public_url))
        opened = watched(runtime, self.channel.name, session)
        self.sessions[key] = version, opened
        return opened


class _NoSession:
    """Of parts that have no account yet."""

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Nothing leaves before an account is chosen."""
        raise AssertionError(f"{len(batch)} messages without an account for {journal}")

    def withdraw(self) -> None:
        """Nothing was begun."""

    def close(self) -> None:
        """Nothing is open."""


NO_SESSION: Final = _NoSession()


class Chosen(NamedTuple):
    """The account of a claim, and what that means for its recipients."""

    account: Account | None
    decided: Decided


class Picked(NamedTuple):
    """By which account messages leave, and of which chunks: those that wait for the rate of a domain, or for none."""

    account: Account | None
    group: str | None
    #: Nothing may leave for so long.
    rest_seconds: float = 0.0


@dataclass(slots=True)
class Ways:
    """Belongs to one worker thread."""

    runtime: Runtime
    patience: Patience = field(default_factory=Patience)
    _rotas: dict[Lane, Rota] = field(default_factory=dict)
    #: By lane and account: version and health that were seen last.
    _seen: dict[tuple[Lane, int], tuple[int, str]] = field(default_factory=dict)

    def find(self, session: Session, prepared: Prepared, lane: Lane) -> None:
        """Bring the accounts that may carry a send up to date, at most a second late.

        Raises:
            NoAccount: the send pinned a server of its own, and there is no such account any more.
        """
        content = prepared.content
        accounts = self.runtime.accounts.of(session).get(content.channel, ())
        prepared.accounts = accounts_for(prepared.channel, accounts, content.sender)
        for account in prepared.accounts:
            self._look(lane, account)

    def pick(self, prepared: Prepared, lane: Lane, groups: Collection[str | None]) -> Picked:
        """Whose turn it is, and what kind of chunk's; or for how many seconds nothing may leave.

        Args:
            prepared: the send.
            lane: its lane.
            groups: what its chunks wait for: of the domains that have room one after the other has a turn, and what waits
                for none of them.
        """
        account, waits = None, self._waits(prepared, groups)
        if prepared.accounts:
            account = self._rota(lane).pick(prepared.accounts, monotonic(), partial(_has_room, waits))
        found = waits[None if account is None else account.id] if account or not prepared.accounts else {}
        ready = sorted((group for group, wait in found.items() if not wait), key=_named)
        if not ready:
            return Picked(None, None, max(0.01, self.rest_seconds(prepared, lane, groups)))
        group = next((each for each in ready if _named(each) > _named(prepared.group)), ready[0])
        prepared.group = group
        return Picked(account, group)

    def rest_seconds(self, prepared: Prepared, lane: Lane, groups: Collection[str | None]) -> float:
        """For how long none of these may leave by any account; 0 where one may now."""
        waits = self._waits(prepared, groups)
        if not prepared.accounts:
            return min(waits[None].values())
        rota, now = self._rota(lane), monotonic()
        if rota.choices(prepared.accounts, now, partial(_has_room, waits)):
            return 0.0
        rests = [max(rota.wait(each, now), min(waits[each.id].values())) for each in prepared.accounts]
        return min(each for each in rests if each)

    def finds_full(self, prepared: Prepared, account: Account | None, group: str | None) -> bool:
        """Look before a claim, where there was no room, whether there is some again: not everybody who waited finds it."""
        asker, now = asker_of(prepared.content, account), monotonic()
        about = (asker, prepared.rates, prepared.own_rates)
        if not self.patience.was_full(*about, group, now):
            return False
        self.patience.learn(asker, used_up(self.runtime.engines.worker, *about), now)
        return self.patience.wait(*about, group, now) > 0.0

    def most(self, prepared: Prepared, account: Account | None, group: str | None) -> int | None:
        """How many recipients of a chunk are worth a look: few more than a window holds, where that is little.

        Of one that may hold recipients of several domains all.
        """
        asker = asker_of(prepared.content, account)
        if group is None and any(each.domains for each in prepared.rates):
            return None
        found = [each.most(is_marketing=asker.is_marketing) for each in concerning(prepared.rates, asker, group)]
        found += [each.count for each in prepared.own_rates]
        return max(_FEWEST, 2 * min(found)) if found else None

    def choose(
        self, session: Session, prepared: Prepared, lane: Lane, picked: Account | None, decided: Decided
    ) -> Chosen:
        """The account of a claim, whose recipients with a repetition due have the first word; the others of these wait.

        One whose account is off or gone is left ``unknown``: nobody can say whether the message arrived.
        """
        limits = [limit for each in prepared.accounts for limit in account_limits(each.rates, each.id)]
        decided = decided._replace(rates=[*decided.rates, *limits]) if limits else decided
        prepared.rates, prepared.own_rates = decided.rates, decided.own_rates
        marked = [row for row in decided.passing if row.mark is not None]
        held = [each.seq for each in decided.settled if each.reason == HoldReason.AMBIGUOUS]
        if not (marked or held):
            return Chosen(picked, decided)
        codes = marked_codes(session, prepared.content.send_id, [*(row.seq for row in marked), *held])
        began = {seq: marked_account(code) for seq, code in codes.items()}
        there = {each.id: each for each in prepared.accounts}
        ready = (there.get(began.get(row.seq) or 0) for row in marked)
        now, rota = monotonic(), self._rota(lane)
        waits = self._waits(prepared, {prepared.group})
        able = (each for each in ready if each is not None and rota.is_ready(each, now) and _has_room(waits, each))
        account = next(able, picked)
        number = None if account is None else account.id
        elsewhere = {row.seq for row in marked if began.get(row.seq) not in (None, number)}
        # What keeps its mark keeps the account beside it.
        settled = [each._replace(code=codes.get(each.seq, each.code)) for each in decided.settled]
        settled += [self._not_now(row, codes[row.seq], there) for row in marked if row.seq in elsewhere]
        passing = [row for row in decided.passing if row.seq not in elsewhere]
        return Chosen(account, decided._replace(passing=passing, settled=settled))

    def has_other(self, prepared: Prepared, lane: Lane, account: Account | None) -> bool:
        """Whether what this account cannot carry may leave by another."""
        return account is not None and self._rota(lane).has_other(prepared.accounts, account, monotonic())

    def heard(self, prepared: Prepared, lane: Lane, account: Account | None, result: ChunkResult) -> None:
        """Learn from a chunk."""
        if account is None:
            return
        if result.sender_failed is not None:
            self.refused(prepared, lane, account, f"{result.sender_failed} {result.said}".strip())
        elif result.unreached:
            failures = self._rota(lane).unreachable(account, monotonic())
            self.runtime.telemetry.count("delivery.account_unreachable", channel=account.type)
            if failures >= _TOLD_AT and not result.in_use:
                self._note(prepared, account, AccountHealth.UNREACHABLE, result.said)
        elif result.answered:
            self._rota(lane).answered(account)
            if result.accepted:
                self._note(prepared, account, AccountHealth.OK, None)

    def refused(self, prepared: Prepared, lane: Lane, account: Account, reason: str) -> None:
        """Others have its turns for a while."""
        self._rota(lane).refused(account, monotonic())
        self.runtime.telemetry.count("delivery.account_refused", channel=account.type)
        self._note(prepared, account, AccountHealth.REFUSED, reason)

    def told(self, prepared: Prepared, said: str) -> str:
        """What others' code and other people's servers say, as people may read it: no secret of the tenant's, no address."""
        plugin = self.runtime.plugin_of(prepared.channel.name)
        names = prepared.channel.capabilities.secret_settings
        names = names if plugin is None else names | plugin.manifest.secrets
        hidden = [prepared.settings[name] for name in prepared.settings.keys() & names]
        for account in prepared.accounts:
            with suppress(NexusError):  # what nobody can read nobody repeats
                own = self.runtime.account_settings(prepared.content.tenant_id, account)
                hidden += [own[name] for name in own.keys() - account.config.keys()]
        return scrub(unspoken(said, hidden))

    def _waits(self, prepared: Prepared, groups: Collection[str | None]) -> dict[int | None, dict[str | None, float]]:
        """By account and domain: for how many seconds there is no room."""
        now, found = monotonic(), dict[int | None, dict[str | None, float]]()
        for account in prepared.accounts or (None,):
            asker = asker_of(prepared.content, account)
            found[asker.account] = {
                group: self.patience.wait(asker, prepared.rates, prepared.own_rates, group, now) for group in groups
            }
        return found

    def _not_now(self, row: Recipient, code: str | None, there: Mapping[int, Account]) -> Settlement:
        if marked_account(code) not in there:
            return Settlement(row.seq, DeliveryState.UNKNOWN, row.mark, None, row.attempts)
        wait = _OTHER_ACCOUNT_SECONDS * self.runtime.rng.uniform(1.0, 1.5)
        return Settlement(row.seq, DeliveryState.PLANNED, row.mark, code, row.attempts, due_in_seconds=wait)

    def _look(self, lane: Lane, account: Account) -> None:
        key, seen = (lane, account.id), (account.version, account.health)
        before = self._seen.get(key)
        if before == seen:
            return
        self._seen[key] = seen
        rota = self._rota(lane)
        if before is not None and (before[0] != account.version or account.health == AccountHealth.OK):
            rota.changed(account.id)
        if account.health == AccountHealth.REFUSED:
            rota.refused(account, monotonic())

    def _note(self, prepared: Prepared, account: Account, health: AccountHealth, reason: str | None) -> None:
        """Tell people, where it is news."""
        if account.health == health:
            return
        tenant_id = prepared.content.tenant_id
        said = None if reason is None else self.told(prepared, reason[:200])
        if health is not AccountHealth.OK:
            log.warning("account_ill", tenant_id=tenant_id, account_id=account.id, health=str(health))
        with open_session(self.runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
            note_health(session, account, self.runtime.clock.now(), health, said)
        self.runtime.accounts.forget(tenant_id)

    def _rota(self, lane: Lane) -> Rota:
        return self._rotas.setdefault(lane, Rota())


def asker_of(content: SendContent, account: Account | None) -> Asker:
    """Who asks for a send's messages by an account."""
    sender = as_sender(content.sender.get("from_email"))
    is_marketing = content.message_class is MessageClass.MARKETING
    number = None if account is None else account.id
    return Asker(content.tenant_id, content.channel, sender, is_marketing, number, content.send_id)


def _has_room(waits: Mapping[int | None, Mapping[str | None, float]], account: Account) -> bool:
    return not all(waits[account.id].values())


def _named(group: str | None) -> str:
    return group or ""


def via(account: Account | None) -> str | None:
    """What is written beside a recipient whose message may have left by an account."""
    return None if account is None else account_mark(account.id)
