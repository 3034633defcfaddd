"""The campaigns of one object: the calls a program makes, the same on every storage (BR-006, BR-007)."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

from nexus_marketing.core.campaigns import (
    NOTHING,
    CampaignAction,
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.declared import declared_campaigns, refuse_unknown, the_only, understood
from nexus_marketing.core.definitions import Definition, Handlers
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.engine.views import CampaignView
from nexus_marketing.core.errors import ConfigurationError, Problem, StorageUnsupported, ValidationError
from nexus_marketing.core.events import CampaignEvent, CampaignHookFailed, campaign_event
from nexus_marketing.core.home import HOME
from nexus_marketing.core.inline import InlineStorage, inline_storage
from nexus_marketing.core.mixin import lock_of, subject_identity
from nexus_marketing.core.promotion import KeptCampaign
from nexus_marketing.core.storages import Storage

log = logging.getLogger(__name__)

_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Campaign:
    """One campaign at hand: what it is, where it stands, and where it is kept."""

    key: CampaignKey
    definition: Definition
    handlers: Handlers
    state: CampaignState
    storage: Storage


class Marketing:
    """Launches, pauses, resumes and ends the campaigns of one object, and knows their history.

    ``name`` may be left out where one campaign is declared. ``actor`` is ``kind:id`` and goes into the
    history; so does ``metadata``, which must be JSON.
    """

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self._inline: InlineStorage | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles of an object take no manager along; theirs is made when it is asked for."""
        return (type(None), ())

    def launch_campaign(
        self,
        name: str | Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        actor: str = "system",
        metadata: Mapping[str, Any] = NOTHING,
    ) -> CampaignView:
        """Launch a campaign: active at once, or queued until its ``start_date`` or its condition.

        Args:
            name: of the campaign; where one is declared, the data may come first.
            data: launch data, held against the definition's ``dataSchema``; ``start_date`` (date or aware
                datetime), ``target_segment``, ``budget`` and ``currency`` are known to every campaign.

        Raises:
            ValidationError: every fault of the data, with its path.
            TransitionRefused: it was launched before, or a guard says no.
            StaleVersion: another call was first.
        """
        if isinstance(name, Mapping):
            return self.move(CampaignAction.LAUNCH, None, data=name, actor=actor, metadata=metadata)
        return self.move(CampaignAction.LAUNCH, name, data=data or NOTHING, actor=actor, metadata=metadata)

    def pause(self, name: str | None = None, **words: Any) -> CampaignView:
        """Hold a campaign; ``actor``, ``reason`` and ``metadata`` as in :meth:`move`."""
        return self.move(CampaignAction.PAUSE, name, **words)

    def resume(self, name: str | None = None, **words: Any) -> CampaignView:
        """Go on where a pause stopped it."""
        return self.move(CampaignAction.RESUME, name, **words)

    def complete(self, name: str | None = None, **words: Any) -> CampaignView:
        """End a campaign as it should end."""
        return self.move(CampaignAction.COMPLETE, name, **words)

    def cancel(self, name: str | None = None, **words: Any) -> CampaignView:
        """Give a campaign up."""
        return self.move(CampaignAction.CANCEL, name, **words)

    def move(
        self,
        action: str,
        name: str | None = None,
        *,
        data: Mapping[str, Any] = NOTHING,
        actor: str = "system",
        reason: str | None = None,
        metadata: Mapping[str, Any] = NOTHING,
    ) -> CampaignView:
        """Take any move of the campaign's definition, its own ones included.

        Guards and ``before_*`` hooks run before anything is written; what they raise leaves the state
        as it was. ``after_*`` hooks run when it is durable; what they raise is in ``problems`` of the
        answer, in the log and in an event, and undoes nothing.
        """
        campaign = self._at_hand(name)
        return self._take(campaign, Move(action, HOME.clock.now(), _plain(data), actor, reason, metadata))

    def can(self, action: str, name: str | None = None, data: Mapping[str, Any] = NOTHING) -> bool:
        """Whether a move is possible now; changes nothing, tells nobody."""
        return not self.why_not(action, name, data)

    def why_not(self, action: str, name: str | None = None, data: Mapping[str, Any] = NOTHING) -> tuple[Problem, ...]:
        """Every reason why a move is not possible now; empty where it is."""
        campaign = self._at_hand(name)
        move = Move(action, HOME.clock.now(), _plain(data))
        try:
            seen = lifecycle.prospect(campaign.definition, campaign.state, move)
        except ValidationError as error:
            return tuple(error.problems)
        return tuple(lifecycle.refusals(campaign.definition, seen, move, campaign.handlers, self.subject))

    def campaigns(self) -> list[CampaignView]:
        """Every campaign that is declared or was ever stored, by name."""
        declared = set(declared_campaigns(self.subject))
        stored = {state.key.name for state in self._find()}
        found = []
        for name in sorted(declared | stored):
            if name in declared:
                found.append(self.campaign(name))
            else:
                found += [CampaignView(each, self.subject) for each in self._find() if each.key.name == name]
        return found

    def active_campaigns(self) -> list[CampaignView]:
        """Those that run."""
        return [each for each in self.campaigns() if each.is_active()]

    def campaign(self, name: str | None = None) -> CampaignView:
        """One campaign as it is now; a draft where it was never launched."""
        return CampaignView(self._at_hand(name).state, self.subject)

    def history(self, name: str | None = None) -> list[HistoryEntry]:
        """What happened, oldest first: to one campaign, or to all of the object."""
        names = (
            [name]
            if name is not None
            else sorted({*declared_campaigns(self.subject), *(s.key.name for s in self._find())})
        )
        lines = [line for each in names for line in self._lines(each)]
        return lines if len(names) == 1 else sorted(lines, key=lambda line: (line.at, line.campaign, line.version))

    def record(
        self,
        event: str,
        name: str | None = None,
        *,
        count: int = 1,
        actor: str = "system",
        metadata: Mapping[str, Any] = NOTHING,
    ) -> CampaignView:
        """Write an event into a campaign's history and count it.

        ``email_sent``, ``email_opened`` and ``email_clicked`` feed the measures ``data.emails_sent`` and
        ``data.engagement_rate`` that conditions read. Moves that become possible happen with :meth:`tick`.

        Raises:
            ValidationError: the event has no name, or the count is not positive.
        """
        if not 0 < len(str(event)) <= 100:
            raise ValidationError.at(
                "event", "not_acceptable", f"{event!a} is no event's name: use 1 to 100 characters."
            )
        if type(count) is not int or count < 1:
            raise ValidationError.at("count", "not_acceptable", f"{count!a} is no count: use 1 or more.")
        campaign = self._at_hand(name)
        move = Move(event, HOME.clock.now(), actor=actor, metadata=metadata)
        decision = lifecycle.record(campaign.state, event, move, count)
        return CampaignView(campaign.storage.commit(campaign.key, campaign.state.version, decision), self.subject)

    def tick(self, now: datetime | None = None) -> list[CampaignView]:
        """Take every move whose time has come: queued campaigns start, conditions end what they end.

        A worker does this for campaigns in the database; programs without one call it now and then.

        Args:
            now: the moment, aware; the clock's where it is left out.

        Returns:
            The campaigns that moved, and those whose hook or subscriber refused it, with the reason in
            ``problems``.
        """
        moment = now or HOME.clock.now()
        if moment.tzinfo is None:
            raise ValidationError.at(
                "now", "not_canonical", f"{moment.isoformat()} has no time zone: use an aware datetime."
            )
        names = [each for each in sorted(declared_campaigns(self.subject)) if self._at_hand(each).state.version]
        return [view for name in names for view in self._ticked(name, moment)]

    def kept(self) -> list[KeptCampaign]:
        """What the object itself keeps of its campaigns: documents for ``campaigns promote``.

        Raises:
            ConfigurationError: the object has no id by which a database could know it.
        """
        kind, id_ = subject_identity(self.subject)
        if not id_:
            raise _without_id(kind)
        states = self._own().find(CampaignFilter())
        found = (self._kept(CampaignKey(kind, id_, state.key.name)) for state in states)
        return [each for each in found if each is not None]

    def promote(self) -> list[CampaignView]:
        """Move what the object kept itself into the storage of this process now, not with the next call.

        A second time changes nothing. Ids and every line of history stay.

        Raises:
            StorageUnsupported: campaigns are kept on the objects, or in a storage that takes nothing over.
        """
        storage = self._storage()
        if storage is self._inline or not hasattr(storage, "adopt"):
            raise StorageUnsupported(
                f"{type(storage).__name__} takes no campaigns over: connect the program to the database first "
                "(nexus_marketing.connect), or hand over files to `nexus-marketing campaigns promote`."
            )
        states = [self._load(storage, each.state.key) for each in self.kept()]
        return [CampaignView(state, self.subject) for state in states if state is not None]

    def _ticked(self, name: str, now: datetime) -> Iterator[CampaignView]:
        campaign = self._at_hand(name)
        moved: CampaignView | None = None
        for _ in campaign.definition.stages:  # a circle of conditions ends here
            action = lifecycle.due(campaign.definition, campaign.state, now)
            if action is None:
                break
            try:
                moved = self._take(campaign, Move(action, now))
            except Exception as error:  # noqa: BLE001 - one campaign's hook must not stop the others
                problem = Problem(f"campaigns.{name}", "move_refused", f"{action} did not happen: {error}")
                moved = CampaignView(campaign.state, self.subject, (problem,))
                break
            campaign = self._at_hand(name)
        if moved is not None:
            yield moved

    def _take(self, campaign: _Campaign, move: Move) -> CampaignView:
        state = campaign.state
        seen = lifecycle.prospect(campaign.definition, state, move)
        decision = lifecycle.decide(campaign.definition, seen, move, campaign.handlers, self.subject)
        event = campaign_event(
            move.action,
            tenant_id=getattr(campaign.storage, "tenant_id", None),
            at=move.now,
            campaign_id=state.id,
            key=campaign.key,
            actor=move.actor,
        )
        view = CampaignView(seen, self.subject)
        for hook in campaign.handlers.hooks.get(f"before_{move.action}", ()):
            self._callable(hook)(view)
        HOME.hub.before(event)
        stored = campaign.storage.commit(campaign.key, state.version, decision)
        return self._followed(campaign, event, replace(decision, state=stored))

    def _followed(self, campaign: _Campaign, event: CampaignEvent, decision: Decision) -> CampaignView:
        """After the commit: hooks, then subscribers; at once, or when the surrounding transaction is durable."""
        view = CampaignView(decision.state, self.subject, decision.state.notices)
        hooks = campaign.handlers.hooks.get(f"after_{decision.action}", ())
        follow = partial(self._follow, hooks, view, event)
        defer = getattr(campaign.storage, "after_commit", None)
        if defer is None:
            follow()
        else:
            defer(follow)
        return view

    def _follow(self, hooks: tuple[Any, ...], view: CampaignView, event: CampaignEvent) -> None:
        for hook in hooks:
            try:
                self._callable(hook)(view)
            except Exception as error:
                name = getattr(hook, "__qualname__", str(hook))
                log.exception("hook %s failed after %s", name, event.name)
                text = f"{name} failed with {type(error).__name__}: {error}. The campaign is {view.stage} all the same."
                view.problems = (*view.problems, Problem("hooks", "hook_failed", text))
                HOME.hub.after(
                    CampaignHookFailed(
                        event.tenant_id, event.at, event.campaign_id, event.key, event.actor, name, type(error).__name__
                    )
                )
        HOME.hub.after(event)

    def _callable(self, hook: Any) -> Any:
        """A hook as it was given: a callable, or the name of a method of the object, called without arguments more."""
        if not isinstance(hook, str):
            return hook
        method = getattr(self.subject, hook, None)
        if not callable(method):
            raise ConfigurationError(
                f"The hook {hook!a} is no method of {type(self.subject).__name__}: define it, or give a callable."
            )
        return method

    def _at_hand(self, name: str | None) -> _Campaign:
        declared = declared_campaigns(self.subject)
        if name is None:
            name = the_only(declared)
        storage = self._storage()
        key = self._key(name, storage)
        config = declared.get(name)
        state = self._load(storage, key)
        pinned = None if state is None else state.definition
        if pinned is not None and not hasattr(storage, "definition"):
            raise _unsupported(key, f"runs on {pinned}", f"{type(storage).__name__} keeps no definitions")
        # What was launched on the program's own definition goes on as it began.
        unpinned = state is not None and state.version > 0 and pinned is None
        published = None if unpinned else getattr(storage, "definition", _nothing)(name, pinned)
        if config is None and published is None:
            refuse_unknown(name, declared)
        own, handlers = understood(name, config) if config is not None else (None, Handlers())
        definition = published or own
        if definition is None:
            refuse_unknown(name, declared)
        if state is None:
            state = lifecycle.new_state(definition, key, HOME.clock.now())
        return _Campaign(key, definition, handlers, state, storage)

    def _load(self, storage: Storage, key: CampaignKey) -> CampaignState | None:
        """The state, taken over from the object where the process's storage does not have it yet."""
        state = storage.load(key)
        if state is not None or storage is self._inline:
            return state
        kept = self._kept(key)
        if kept is None:
            return None
        adopt = getattr(storage, "adopt", None)
        if adopt is None:
            raise _unsupported(key, "is kept on its object", f"{type(storage).__name__} takes nothing over")
        adopted: CampaignState = adopt(kept.state, kept.history, kept.program, kept.attended)
        return adopted

    def _kept(self, key: CampaignKey) -> KeptCampaign | None:
        """What the object itself kept of a campaign, and what somebody needs who goes on with it."""
        state = self._own().load(key)
        if state is None:
            return None
        lines = self._own().history(key, HistoryPage(limit=state.version))
        config = declared_campaigns(self.subject).get(key.name)
        definition, handlers = (None, Handlers()) if config is None else understood(key.name, config)
        program = None if definition is None else definition.document
        return KeptCampaign(replace(state, key=key, id=key.id), lines, program, handlers.attended)

    def _lines(self, name: str) -> Iterator[HistoryEntry]:
        storage = self._storage()
        key = self._key(name, storage)
        self._load(storage, key)
        after = 0
        while page := storage.history(key, HistoryPage(after, _PAGE)):
            yield from page
            after = page[-1].version

    def _find(self) -> list[CampaignState]:
        storage = self._storage()
        kind, id_ = subject_identity(self.subject)
        return list(storage.find(CampaignFilter(kind, id_)))

    def _storage(self) -> Storage:
        return HOME.resolve() or self._own()

    def _own(self) -> InlineStorage:
        own = self._inline
        if own is None:
            made = inline_storage(self.subject)
            with lock_of(self.subject):  # of two threads that come first, one's stays: it is told apart by identity
                own = self._inline = self._inline or made
        return own

    def _key(self, name: str, storage: Storage) -> CampaignKey:
        kind, id_ = subject_identity(self.subject)
        if not id_ and storage is not self._inline:
            raise _without_id(kind)
        return CampaignKey(kind, id_, name)


def _without_id(kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"This {kind} has no id, and its campaigns are to be kept outside of it: save it first, or define "
        "marketing_subject_id."
    )


def _unsupported(key: CampaignKey, fact: str, obstacle: str) -> StorageUnsupported:
    """Going on would be by other rules, or from the beginning: it is refused instead."""
    return StorageUnsupported(
        f"The campaign {key} {fact}, and {obstacle}: move it into the database with nexus-marketing campaigns promote."
    )


def _nothing(_code: str, _reference: str | None) -> Definition | None:
    return None


def _plain(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Amounts as decimals are text in JSON."""
    if not isinstance(data, Mapping):
        raise ValidationError.at("data", "wrong_type", f"Launch data are a mapping, not a {type(data).__name__}.")
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in data.items()}
