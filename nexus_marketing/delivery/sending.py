"""A worker thread's part in sending: find a send with work, claim a chunk, hand it over."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import Account
from nexus_marketing.core.contracts import AddressKind, Channel
from nexus_marketing.core.deliveries import DeliveryState, SendStatus, SkipReason
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.pacing.breaker import Breaker
from nexus_marketing.core.pacing.turns import Turns, WaitingSend
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.deliveries import (
    ChunkClaim,
    Recipient,
    chunk_rows,
    claim_chunk,
    sends_with_work,
    set_account,
)
from nexus_marketing.db.queries.planning import set_send_status
from nexus_marketing.db.queries.settling import Settlement, settle
from nexus_marketing.db.retry import DATABASE_ERRORS, cause_of, is_transient
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.admission import Admission
from nexus_marketing.delivery.composing import Composer, load_content
from nexus_marketing.delivery.gate import Decided, Gate
from nexus_marketing.delivery.handover import ChunkHandOver, ChunkResult, Parts
from nexus_marketing.delivery.journal import HandOverJournal
from nexus_marketing.delivery.outcomes import withheld
from nexus_marketing.delivery.pace import Pace
from nexus_marketing.delivery.patience import LONGEST_SECONDS
from nexus_marketing.delivery.renders import keep
from nexus_marketing.delivery.ways import NO_SESSION, Chosen, Prepared, Ways, asker_of, via
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PREPARED_SENDS = 32
_TURN_SECONDS = 1.0
Groups = frozenset[str | None]
Result = TypeVar("Result")
Unwanted = Callable[[Runtime, int, int, Sequence[int]], AbstractSet[int]]


class Served(NamedTuple):
    """What came of a turn: how many chunks, and what of the send may be tried at once, see ``WaitingSend.groups``."""

    chunks: int
    left: Groups = frozenset()
    #: A rate was found used up.
    limited: bool = False


NOTHING: Final = Served(0)


@dataclass(slots=True)
class Sender:
    """Belongs to one thread: its journal, its prepared sends, its turn among tenants."""

    runtime: Runtime
    stopping: Callable[[], bool]
    #: Of a journey's send, by tenant and send: who of these is not to be written to any more.
    unwanted: Unwanted | None = None
    #: By which channels it sends.
    serves: Callable[[str], bool] = lambda _: True
    worker_id: str = field(default_factory=lambda: uuid4().hex)
    _journal: HandOverJournal | None = None
    _prepared: "OrderedDict[tuple[int, int], Prepared]" = field(default_factory=OrderedDict)
    _ways: Ways = field(init=False)
    _pace: Pace = field(default_factory=Pace)
    _turns: Turns = field(default_factory=Turns)
    #: The chunk before, while its last commit is under way.
    _closing: ChunkHandOver | None = None
    #: What the journal tells was not given back: it began, and its last commit was not seen.
    _is_open: bool = False
    #: Until when nothing of a send may leave of what was known to wait, by the monotonic clock.
    _not_before: dict[tuple[int, int], tuple[float, Groups]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ways = Ways(self.runtime)

    def work(self) -> int:
        """Hand over chunks for about a second, to each whose turn it is; answers how many."""
        chunks = 0
        until = monotonic() + _TURN_SECONDS
        waiting = self._waiting()
        if waiting:
            self._own_journal()  # where there is no room for it, nothing is begun, and no send is to blame
        try:
            while waiting and not self.stopping() and monotonic() < until:
                send = self._turns.next(waiting.values())
                served = self._safely(send.key, partial(self._serve, send), NOTHING)
                chunks += served.chunks
                if served.left:
                    waiting[send.key] = send._replace(groups=served.left)
                else:
                    del waiting[send.key]
                if served.limited:
                    waiting = {key: each for key, each in waiting.items() if not self._rests(each)}
        finally:
            self._see_closed()
        return chunks

    @property
    def pause_seconds(self) -> float:
        """How long until a send that found no room may go on; endless where all did."""
        return max(0.01, min((until for until, _ in self._not_before.values()), default=float("inf")) - monotonic())

    def close(self) -> None:
        """End of the thread: the journal is removed, unless the database was away when what it tells was to be settled."""
        for prepared in self._prepared.values():
            prepared.close()
        if self._journal is not None:
            self._journal.close(is_needed=self._is_open)

    def _waiting(self) -> dict[tuple[int, int], WaitingSend]:
        """Sends with work of which something may leave."""
        found: dict[tuple[int, int], WaitingSend] = {}
        with open_session(self.runtime.engines.worker, tenant_id=None, mode="read") as session:
            for row in sends_with_work(session):
                groups = frozenset({row.waits_for})
                send = WaitingSend(row.tenant_id, row.id, row.channel, row.message_class, groups)
                if self.serves(send.channel):
                    known = found.setdefault(send.key, send)
                    found[send.key] = known._replace(groups=known.groups | send.groups)
        now = monotonic()
        self._not_before = {key: rest for key, rest in self._not_before.items() if rest[0] > now}
        self._turns.keep({send.tenant_id for send in found.values()})
        return {key: send for key, send in found.items() if not self._rests(send)}

    def _rests(self, send: WaitingSend) -> bool:
        """Whether it is known that nothing of a send may leave now: a rate is used up."""
        now = monotonic()
        until, groups = self._not_before.get(send.key, (now, frozenset()))
        if until > now and send.groups <= groups:
            return True
        lane, is_marketing = (send.tenant_id, send.channel), not send.is_transactional
        wait = self._ways.patience.everybody_waits(lane, now, is_marketing=is_marketing)
        if wait:
            self._not_before[send.key] = now + wait, send.groups
        return bool(wait)

    def _safely(self, key: tuple[int, int], step: Callable[[], Result], failed: Result) -> Result:
        """One send that cannot be sent is paused with its reason and keeps nobody else waiting."""
        tenant_id, send_id = key
        try:
            return step()
        except DATABASE_ERRORS as error:
            if is_transient(error):
                raise
            reason = type(cause_of(error)).__name__
        except NexusError as error:
            reason = error.message
        except Exception as error:  # isolation boundary: whatever is wrong with this send is its own affair
            log.exception("send_failed", tenant_id=tenant_id, send_id=send_id)
            reason = type(error).__name__
        prepared = self._prepared.pop((tenant_id, send_id), None)
        if prepared is not None:
            reason = self._ways.told(prepared, reason)
            prepared.close()
        self.runtime.telemetry.count("delivery.send_failed")
        log.error("send_paused", tenant_id=tenant_id, send_id=send_id, reason=reason)
        self._set_status(tenant_id, send_id, SendStatus.PAUSED, f"cannot be sent: {reason}"[:200])
        return failed

    def _serve(self, send: WaitingSend) -> Served:
        prepared = self._look_up(send)
        if prepared is None:
            return NOTHING
        picked, group, rest_seconds = self._ways.pick(prepared, send.lane, send.groups)
        if rest_seconds:
            return self._rest(send, rest_seconds)
        if self._ways.finds_full(prepared, picked, group):
            return Served(0, send.groups, limited=True)
        self.runtime.telemetry.point("delivery.claim.before")
        try:
            prepared.session_for(self.runtime, picked)  # before the transaction: a channel may connect
            claimed = self._claim(prepared, send, picked, group)
        except NexusError as error:
            # Only an account whose settings nobody can use: nothing of the claim is left.
            if picked is None or not self._ways.has_other(prepared, send.lane, picked):
                raise
            self._ways.refused(prepared, send.lane, picked, error.message)
            return Served(1, send.groups)
        self._see_closed()
        if claimed is None:
            return Served(0, send.groups - {group})
        claim, parts, (account, decided), is_whole = claimed
        parts.journal.begin(claim)
        self._is_open = True
        self.runtime.telemetry.point("delivery.claim.after")
        decided, withdrawn = self._still_wanted(parts, decided)
        hand_over = ChunkHandOver(parts, claim, decided.passing, self._admission(parts, decided, account), is_whole)
        hand_over.known += withdrawn
        if self.runtime.settings.keep_renders_days and decided.is_limited:
            hand_over.before_first = partial(self._keep, parts, claim, decided.passing)
        result = hand_over.run()
        self._is_open = hand_over.is_closing
        self._closing = hand_over if self._is_open else None
        return self._learn(send, prepared, account, result)

    def _see_closed(self) -> None:
        """Wait for the last commit of the chunk before, which was under way while the next one was claimed."""
        closing, self._closing = self._closing, None
        if closing is not None:
            key = closing.claim.tenant_id, closing.claim.send_id
            self._is_open = not self._safely(key, closing.see_closed, failed=False)

    def _rest(self, send: WaitingSend, seconds: float) -> Served:
        """Nothing of what waits of a send may leave for so long."""
        self._not_before[send.key] = monotonic() + min(seconds, LONGEST_SECONDS), send.groups
        return Served(0, frozenset(), limited=True)

    def _learn(self, send: WaitingSend, prepared: Prepared, account: Account | None, result: ChunkResult) -> Served:
        """What a chunk says of its account and its send, and what may go on at once."""
        if result.sender_failed is not None:
            result.sender_failed = self._ways.told(prepared, result.sender_failed)
        result.said = self._ways.told(prepared, result.said) if result.said else ""
        self._ways.heard(prepared, send.lane, account, result)
        may_go_on = result.gives_way or (
            result.sender_failed is not None and self._ways.has_other(prepared, send.lane, account)
        )
        if result.must_stop and (result.tripped is not None or not may_go_on):
            self._hold(*send.key, result)
        if result.limited:
            by = "send" if result.limited_by_own else "shared"
            self.runtime.telemetry.count("delivery.limited", channel=send.channel, by=by)
        if not (result.limited or result.waits_for):
            return Served(1, send.groups)
        left = send._replace(groups=send.groups | result.waits_for)
        rest_seconds = self._ways.rest_seconds(prepared, send.lane, left.groups)
        return self._rest(left, rest_seconds) if rest_seconds else Served(1, left.groups, limited=True)

    def _still_wanted(self, parts: Parts, decided: Decided) -> tuple[Decided, list[Settlement]]:
        """Whom a journey still wants to write to, asked once more right before anything leaves; the others are settled."""
        content = parts.gate.content
        if not content.is_of_journey or self.unwanted is None or not decided.passing:
            return decided, []
        seqs = [row.seq for row in decided.passing]
        gone = self.unwanted(self.runtime, content.tenant_id, content.send_id, seqs)
        withdrawn = [
            withheld(Settlement(row.seq, DeliveryState.SKIPPED, SkipReason.CANCELLED, attempts=row.attempts), row.mark)
            for row in decided.passing
            if row.seq in gone
        ]
        return decided._replace(passing=[row for row in decided.passing if row.seq not in gone]), withdrawn

    def _admission(self, parts: Parts, decided: Decided, account: Account | None) -> Admission:
        content = parts.gate.content
        return Admission(
            self.runtime.engines.worker,
            asker_of(content, account),
            decided.rates,
            content.address_kind is AddressKind.EMAIL,
            self._ways.patience,
            monotonic,
            self.runtime.rng,
            parts.via,
            decided.own_rates,
        )

    def _claim(
        self, prepared: Prepared, send: WaitingSend, picked: Account | None, group: str | None
    ) -> tuple[ChunkClaim, Parts, Chosen, bool] | None:
        """Lease, gate and settle whom the gate refuses: one transaction; answers also whether that is the whole chunk."""
        tenant_id, send_id = send.key
        engine, lease = self.runtime.engines.worker, self.runtime.settings.lease.total_seconds()
        with open_session(engine, tenant_id=tenant_id, mode="durable") as session, session.begin():
            number = None if picked is None else picked.id
            claim = claim_chunk(session, send_id, self.worker_id, lease, number, group)
            if claim is None:
                return None
            parts = prepared.parts
            most = self._ways.most(prepared, picked, group)
            rows = chunk_rows(session, claim, parts.gate.content.address_kind, parts.composer.columns, most)
            decided = parts.gate.decide(session, rows)
            chosen = self._ways.choose(session, prepared, send.lane, picked, decided)
            account, decided = chosen
            if account is not None and account.id != number:
                set_account(session, claim, account.id)
            has_other = self._ways.has_other(prepared, send.lane, account)
            opened = prepared.session_for(self.runtime, account)
            parts = replace(parts, session=opened, via=via(account), has_other=has_other)
            settle(session, send_id, decided.settled)
            parts.composer.at = self.runtime.clock.now().replace(microsecond=0)
            # Where a rate may leave no room, nothing is kept until somebody leaves.
            if self.runtime.settings.keep_renders_days and not decided.is_limited:
                keep(session, claim, decided.passing, parts.composer)
            return claim, parts, chosen, most is None or len(rows) < most

    def _keep(self, parts: Parts, claim: ChunkClaim, rows: Sequence[Recipient]) -> None:
        with open_session(self.runtime.engines.worker, tenant_id=claim.tenant_id) as session, session.begin():
            keep(session, claim, rows, parts.composer)

    def _look_up(self, send: WaitingSend) -> Prepared | None:
        """What was prepared for a send, if the tenant's switch and settings are still those it was prepared with."""
        key, (tenant_id, send_id) = send.key, send.key
        with open_session(self.runtime.engines.worker, tenant_id=tenant_id, mode="read") as session:
            settings = self.runtime.channel_settings(session, send.channel)
            if key in self._prepared and self._prepared[key].settings != settings:
                self._prepared.pop(key).close()
            found = None if settings is None else self._prepared.get(key) or self._prepare(session, send_id, settings)
            if found is not None:
                self._prepared[key] = found
                self._ways.find(session, found, send.lane)
        if found is None:
            self._set_status(tenant_id, send_id, SendStatus.PAUSED, "plugin_missing")
            return None
        self._prepared.move_to_end(key)
        while len(self._prepared) > _PREPARED_SENDS:
            self._prepared.popitem(last=False)[1].close()
        return found

    def _prepare(self, session: Session, send_id: int, settings: Mapping[str, Any]) -> Prepared | None:
        send = find(session, Send, send_id)
        channel = self.runtime.channels.get(send.channel)
        if channel is None:
            return None
        content = load_content(session, send, channel.capabilities.address_kind)
        parts = Parts(
            runtime=self.runtime,
            gate=Gate(self.runtime.keys, content, self.runtime.rng),
            composer=Composer(self.runtime, content),
            session=NO_SESSION,
            journal=self._own_journal(),
            pace=self._pace,
            max_in_flight=_max_in_flight(channel),
            is_repeatable=channel.capabilities.supports_idempotency,
            stopping=self.stopping,
            breaker=Breaker(content.max_bounced),
        )
        return Prepared(parts, channel, settings)

    def _own_journal(self) -> HandOverJournal:
        if self._journal is None:
            folder = self.runtime.settings.state_dir / "journal"
            self._journal = HandOverJournal(folder / f"{self.worker_id}.journal")
        return self._journal

    def _hold(self, tenant_id: int, send_id: int, result: ChunkResult) -> None:
        """The sender itself is refused (login, quota, policy), or too many recipients are: stop and say why.

        Whoever resumes the send gives it a new chance: what the breaker saw is forgotten.
        """
        reason = result.tripped if result.sender_failed is None else f"sender_refused: {result.sender_failed}"
        log.error("send_stopped_itself", tenant_id=tenant_id, send_id=send_id, reason=reason)
        self.runtime.telemetry.count("delivery.send_stopped_itself")
        self._prepared.pop((tenant_id, send_id)).close()
        self._set_status(tenant_id, send_id, SendStatus.PAUSED, (reason or "")[:200])

    def _set_status(self, tenant_id: int, send_id: int, status: SendStatus, reason: str) -> None:
        engine = self.runtime.engines.worker
        with open_session(engine, tenant_id=tenant_id) as session, session.begin():
            if find(session, Send, send_id, lock=True).status == SendStatus.RUNNING:
                set_send_status(session, send_id, status, reason)


def _max_in_flight(channel: Channel) -> int:
    return max(1, channel.capabilities.max_in_flight)
