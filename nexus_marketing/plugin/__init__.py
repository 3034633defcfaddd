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
from nexus_marketing.core.contracts import (
    AddressKind,
    AdoptingStorage,
    Capabilities,
    Channel,
    ChannelSession,
    Content,
    DeferringStorage,
    DefinitionSource,
    Journal,
    Outcome,
    OutcomeKind,
    Storage,
    Submission,
)
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
    ChannelsJoined,
    Event,
)
from nexus_marketing.core.hub import subscribe
from nexus_marketing.core.memory import MemoryStorage

__all__ = [
    "AddressKind",
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
    "Capabilities",
    "Channel",
    "ChannelSession",
    "ChannelsJoined",
    "ConfigurationError",
    "Conflict",
    "Content",
    "Decision",
    "DeferringStorage",
    "DefinitionSource",
    "Event",
    "HistoryEntry",
    "HistoryPage",
    "Journal",
    "MemoryStorage",
    "NexusError",
    "NotFound",
    "Outcome",
    "OutcomeKind",
    "Problem",
    "StaleVersion",
    "Storage",
    "StorageUnsupported",
    "Submission",
    "TransitionRefused",
    "Unavailable",
    "ValidationError",
    "entry_document",
    "read_entry",
    "read_state",
    "state_document",
    "subscribe",
]
