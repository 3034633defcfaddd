"""Campaigns for conformance suites: decisions made by the engine, as a program would make them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any, Final

from nexus_marketing.core.campaigns import (
    NOTHING,
    CampaignAction,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.definitions import Definition, parse_definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import StaleVersion
from nexus_marketing.core.storages import Storage

#: When the campaigns of a suite begin: a moment with every digit of its microseconds.
BEGINNING: Final = datetime(2026, 3, 2, 10, 30, 59, 123_457, UTC)


def definition_of(key: CampaignKey) -> Definition:
    """What a program would have declared under this name."""
    return parse_definition({"name": f"The {key.name[:100]}", "channels": ["email"]}, code=key.name)


def draft(key: CampaignKey) -> CampaignState:
    """A campaign that is declared and not stored."""
    return lifecycle.new_state(definition_of(key), key, BEGINNING)


def moved(state: CampaignState, action: str, data: Mapping[str, Any] = NOTHING, **words: Any) -> Decision:
    """The decision to take a move, an hour after the last change."""
    definition = definition_of(state.key)
    now = (state.updated_at or BEGINNING) + timedelta(hours=1)
    move = Move(action, now, data, **words)
    return lifecycle.decide(definition, lifecycle.prospect(definition, state, move), move)


def recorded(state: CampaignState, event: str, **words: Any) -> Decision:
    """The decision to write an event into the history, a second after the last change."""
    return lifecycle.record(state, event, Move(event, (state.updated_at or BEGINNING) + timedelta(seconds=1), **words))


def launched(storage: Storage, key: CampaignKey, data: Mapping[str, Any] = NOTHING) -> CampaignState:
    """A campaign that was launched in this storage."""
    return storage.commit(key, 0, moved(draft(key), CampaignAction.LAUNCH, data))


def lived(key: CampaignKey, lines: int) -> tuple[CampaignState, list[HistoryEntry]]:
    """A campaign with a history of so many lines, stored nowhere: what an object has kept itself."""
    decision = moved(draft(key), CampaignAction.LAUNCH)
    entries = [decision.entry]
    while len(entries) < lines:
        decision = recorded(decision.state, "email_opened", metadata={"number": len(entries)})
        entries.append(decision.entry)
    return decision.state, entries


def kept(state: CampaignState | None) -> CampaignState | None:
    """A state without what is told once and not kept."""
    return None if state is None else replace(state, notices=())


def whole_history(storage: Storage, key: CampaignKey, limit: int = 1_000) -> list[HistoryEntry]:
    """Every line of a history, page by page."""
    lines: list[HistoryEntry] = []
    while page := storage.history(key, HistoryPage(lines[-1].version if lines else 0, limit)):
        lines += page
    return lines


def race(attempts: Sequence[Callable[[], Any]]) -> tuple[list[Any], list[StaleVersion]]:
    """Let every attempt begin at the same moment; answers what the winners got, and what the losers heard."""
    barrier = Barrier(len(attempts))

    def run(attempt: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return attempt()
        except StaleVersion as error:
            return error

    with ThreadPoolExecutor(len(attempts)) as pool:
        answers = list(pool.map(run, attempts))
    losers = [each for each in answers if isinstance(each, StaleVersion)]
    return [each for each in answers if not isinstance(each, StaleVersion)], losers
