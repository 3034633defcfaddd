"""The public API for plugins and for programs that listen: contracts, events, ``subscribe``.

Usable without Pyramid and without a database (Phase 1):

>>> from nexus_marketing.plugin import CampaignLaunched, subscribe
>>> end = subscribe(CampaignLaunched, lambda event: print("launched", event.key.name))
>>> end()

Everything that is not re-exported here or in
:mod:`nexus_marketing` is internal.
"""

from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    CampaignStatus,
    Decision,
    HistoryEntry,
    HistoryPage,
    entry_document,
    read_entry,
    read_state,
    state_document,
)
from nexus_marketing.core.contracts import AdoptingStorage, DeferringStorage, DefinitionSource, Storage
from nexus_marketing.core.errors import (
    ConfigurationError,
    Conflict,
    NexusError,
    NotFound,
    Problem,
    StaleVersion,
    StorageUnsupported,
    TransitionRefused,
    Unavailable,
    ValidationError,
)
from nexus_marketing.core.events import (
    CampaignCancelled,
    CampaignCompleted,
    CampaignCreated,
    CampaignEvent,
    CampaignHookFailed,
    CampaignLaunched,
    CampaignMoved,
    CampaignPaused,
    CampaignResumed,
    CampaignStarted,
    Event,
)
from nexus_marketing.core.hub import subscribe
from nexus_marketing.core.memory import MemoryStorage

__all__ = [
    "AdoptingStorage",
    "CampaignCancelled",
    "CampaignCompleted",
    "CampaignCreated",
    "CampaignEvent",
    "CampaignFilter",
    "CampaignHookFailed",
    "CampaignKey",
    "CampaignLaunched",
    "CampaignMoved",
    "CampaignPaused",
    "CampaignResumed",
    "CampaignStarted",
    "CampaignState",
    "CampaignStatus",
    "ConfigurationError",
    "Conflict",
    "Decision",
    "DeferringStorage",
    "DefinitionSource",
    "Event",
    "HistoryEntry",
    "HistoryPage",
    "MemoryStorage",
    "NexusError",
    "NotFound",
    "Problem",
    "StaleVersion",
    "Storage",
    "StorageUnsupported",
    "TransitionRefused",
    "Unavailable",
    "ValidationError",
    "entry_document",
    "read_entry",
    "read_state",
    "state_document",
    "subscribe",
]
