"""A campaign's life in words: its key, its state, what was decided about it, and the one form all of it is kept in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

from nexus_marketing.core.errors import Problem
from nexus_marketing.core.values import canonical_datetime, parse_datetime

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class CampaignStatus(StrEnum):
    """The requirements' statuses; a definition's own stages map to them (DESIGN.md 4.17)."""

    DRAFT = "draft"
    QUEUED = "queued"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class CampaignAction(StrEnum):
    """What may be asked of every campaign; a definition may add moves of its own."""

    LAUNCH = "launch"
    #: From queued to active, when its time has come.
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    CANCEL = "cancel"


class MessageClass(StrEnum):
    """Decides consent, caps and what happens to an ambiguous hand-over."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"


FINAL_STATUSES: Final = frozenset({CampaignStatus.COMPLETED, CampaignStatus.CANCELLED})
#: The event by which a history begins when a campaign is written down before it is launched.
CREATED: Final = "created"


@dataclass(frozen=True, slots=True)
class CampaignKey:
    """Which campaign of which subject: with the tenant, the one marketing state there is (BR-007)."""

    subject_type: str
    subject_id: str
    name: str

    def __str__(self) -> str:
        return f"{self.subject_type} {self.subject_id} {self.name}".replace("  ", " ")

    @property
    def id(self) -> str:
        """The same 32 hexadecimal digits in every storage, so that a move between them keeps ids."""
        text = f"{self.subject_type}\0{self.subject_id}\0{self.name}"
        return blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class CampaignState:
    """What is known of a campaign at one version.

    ``data`` are the launch data over the definition's own; ``counters`` count recorded events by name.
    ``resumes_to`` is the stage a pause left. ``definition`` names the published version it runs on
    (``code@version``), nothing where the definition is the program's own. Times are aware UTC.
    """

    key: CampaignKey
    id: str
    title: str
    stage: str
    status: CampaignStatus
    version: int
    data: Mapping[str, Any] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    definition: str | None = None
    resumes_to: str | None = None
    reason: str | None = None
    starts_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    #: What a storage could not do for it, told once and not kept.
    notices: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a campaign's history; ``version`` is the one it made, and with the campaign its key.

    ``before`` and ``after`` hold ``stage`` and ``status``; ``before`` is empty where the campaign began.
    """

    version: int
    event: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    actor: str
    at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    campaign: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be written, all of it or nothing: the next state and the line of history that says so.

    ``moves`` tells a move from a recorded event. ``program`` is the definition's document where it comes
    from the program and says more than the six statuses do: whoever looks at the campaign later needs it.
    ``attended`` are the moves that the program has code for, which nobody may take without it.
    """

    action: str
    state: CampaignState
    entry: HistoryEntry
    moves: bool = True
    program: Mapping[str, Any] | None = None
    attended: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Which lines of a history: ``limit`` of them after version ``after``, oldest first."""

    after: int = 0
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class CampaignFilter:
    """Which campaigns: of a subject, in some statuses; at most ``limit``, ordered by key."""

    subject_type: str | None = None
    subject_id: str | None = None
    statuses: frozenset[CampaignStatus] = frozenset()
    limit: int = 10_000

    def admits(self, state: CampaignState) -> bool:
        """Whether a campaign is among those meant, for storages that cannot ask their server."""
        return (
            self.subject_type in {None, state.key.subject_type}
            and self.subject_id in {None, state.key.subject_id}
            and (not self.statuses or state.status in self.statuses)
        )


_MOMENTS: Final = ("starts_at", "started_at", "completed_at", "created_at", "updated_at")
_TEXTS: Final = ("definition", "resumes_to", "reason")


def state_document(state: CampaignState) -> dict[str, Any]:
    """A state as JSON: the form of every storage that keeps documents."""
    document: dict[str, Any] = {
        "subject_type": state.key.subject_type,
        "subject_id": state.key.subject_id,
        "name": state.key.name,
        "id": state.id,
        "title": state.title,
        "stage": state.stage,
        "status": str(state.status),
        "version": state.version,
        "data": dict(state.data),
        "counters": dict(state.counters),
    }
    for name in _TEXTS:
        if (text := getattr(state, name)) is not None:
            document[name] = text
    for name in _MOMENTS:
        if (moment := getattr(state, name)) is not None:
            document[name] = canonical_datetime(moment)
    return document


def read_state(document: Mapping[str, Any]) -> CampaignState:
    """A state from its document.

    Raises:
        KeyError, ValueError: the document is not one of :func:`state_document`.
    """
    optional: dict[str, Any] = {name: document[name] for name in _TEXTS if name in document}
    optional.update({name: parse_datetime(document[name]) for name in _MOMENTS if name in document})
    return CampaignState(
        key=CampaignKey(document["subject_type"], document["subject_id"], document["name"]),
        id=document["id"],
        title=document["title"],
        stage=document["stage"],
        status=CampaignStatus(document["status"]),
        version=document["version"],
        data=dict(document["data"]),
        counters=dict(document["counters"]),
        **optional,
    )


def entry_document(entry: HistoryEntry) -> dict[str, Any]:
    """A line of history as JSON."""
    return {
        "version": entry.version,
        "event": entry.event,
        "before": dict(entry.before),
        "after": dict(entry.after),
        "actor": entry.actor,
        "at": canonical_datetime(entry.at),
        "metadata": dict(entry.metadata),
        "campaign": entry.campaign,
    }


def read_entry(document: Mapping[str, Any]) -> HistoryEntry:
    """A line of history from its document."""
    return HistoryEntry(**{**document, "at": parse_datetime(document["at"])})
