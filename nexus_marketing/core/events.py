"""What happened, as typed values; the requirements' names are used in webhooks.

Events carry ids, never personal data. Subscribers hear of them before the commit (and may refuse it)
or after it (and then only of what is durable): :class:`nexus_marketing.core.hub.EventHub`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from nexus_marketing.core.campaigns import CampaignAction, CampaignKey


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment (UTC); ``tenant_id`` is nothing where there are no tenants."""

    name: ClassVar[str] = "marketing.event"
    tenant_id: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class CampaignEvent(Event):
    """Something happened to a campaign.

    ``campaign_id`` is its id in the storage that holds it; ``key`` says which subject it is about, where
    it is about one.
    """

    campaign_id: str
    key: CampaignKey | None = None
    actor: str = "system"


class CampaignCreated(CampaignEvent):
    """A campaign was written down."""

    name: ClassVar[str] = "marketing.campaign.created"


class CampaignLaunched(CampaignEvent):
    """It was launched: active, or queued until its time comes."""

    name: ClassVar[str] = "marketing.campaign.launched"


class CampaignStarted(CampaignEvent):
    """Its time came: a queued campaign is active."""

    name: ClassVar[str] = "marketing.campaign.started"


class CampaignPaused(CampaignEvent):
    """Nothing more leaves until it is resumed."""

    name: ClassVar[str] = "marketing.campaign.paused"


class CampaignResumed(CampaignEvent):
    """It goes on where it stopped."""

    name: ClassVar[str] = "marketing.campaign.resumed"


class CampaignCompleted(CampaignEvent):
    """It ended as it should."""

    name: ClassVar[str] = "marketing.campaign.completed"


class CampaignCancelled(CampaignEvent):
    """Given up; what was not handed over never will be."""

    name: ClassVar[str] = "marketing.campaign.cancelled"


@dataclass(frozen=True, slots=True)
class CampaignMoved(CampaignEvent):
    """It took a move of its definition's own, named by ``action``."""

    name: ClassVar[str] = "marketing.campaign.moved"
    action: str = ""


@dataclass(frozen=True, slots=True)
class CampaignHookFailed(CampaignEvent):
    """An ``after_*`` hook raised: the move stands, what the hook was to do did not happen."""

    name: ClassVar[str] = "marketing.campaign.hook_failed"
    hook: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ChannelsJoined(CampaignEvent):
    """As many channels of a launch are through as the campaign waits for; told once for each launch.

    ``launch_id`` is its first send, ``channels`` are those that were through.
    """

    name: ClassVar[str] = "marketing.campaign.channels_joined"
    launch_id: str = ""
    channels: tuple[str, ...] = ()


class CampaignFailed(CampaignEvent):
    """It failed: nothing more of it leaves, and what it did is taken back where its definition says how."""

    name: ClassVar[str] = "marketing.campaign.failed"


#: What the engine calls a failure; nobody can ask for it as a move.
FAIL: Final = "fail"
_BY_ACTION: dict[str, type[CampaignEvent]] = {
    CampaignAction.LAUNCH: CampaignLaunched,
    CampaignAction.START: CampaignStarted,
    CampaignAction.PAUSE: CampaignPaused,
    CampaignAction.RESUME: CampaignResumed,
    CampaignAction.COMPLETE: CampaignCompleted,
    CampaignAction.CANCEL: CampaignCancelled,
    FAIL: CampaignFailed,
}


@dataclass(frozen=True, slots=True)
class CampaignAlerted(CampaignEvent):
    """Somebody is to look at a campaign: ``member_id`` where it is known who, and why."""

    name: ClassVar[str] = "marketing.campaign.alerted"
    member_id: int | None = None
    reason: str = ""


def campaign_event(
    action: str, *, tenant_id: int | None, at: datetime, campaign_id: str, key: CampaignKey | None, actor: str
) -> CampaignEvent:
    """The event of a move: one of the requirements' names, or :class:`CampaignMoved`."""
    kind = _BY_ACTION.get(action)
    if kind is None:
        return CampaignMoved(tenant_id, at, campaign_id, key, actor, action)
    return kind(tenant_id, at, campaign_id, key, actor)


@dataclass(frozen=True, slots=True)
class LeadEvent(Event):
    """Something happened to a lead."""

    lead_id: int


class LeadCreated(LeadEvent):
    """A lead was added."""

    name: ClassVar[str] = "marketing.lead.created"


class LeadUpdated(LeadEvent):
    """A lead was changed."""

    name: ClassVar[str] = "marketing.lead.updated"


@dataclass(frozen=True, slots=True)
class LeadsImported(Event):
    """A piece of a file came in; stands for the events of its leads, which may start journeys or not."""

    name: ClassVar[str] = "marketing.leads.imported"
    import_id: int
    created: int
    updated: int
    trigger_journeys: bool


@dataclass(frozen=True, slots=True)
class LeadMerged(LeadEvent):
    """Another lead, ``merged_id``, was the same person and is this one now."""

    name: ClassVar[str] = "marketing.lead.merged"
    merged_id: int


class LeadErased(LeadEvent):
    """A lead was erased: whoever got its data from here is to forget it too (GDPR 19)."""

    name: ClassVar[str] = "marketing.lead.erased"


@dataclass(frozen=True, slots=True)
class LeadScored(LeadEvent):
    """A lead's score, ``score`` by name, is another one."""

    name: ClassVar[str] = "marketing.lead.scored"
    score: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class ScoreThresholdCrossed(LeadScored):
    """A lead's score crossed a threshold, ``direction`` up or down; told once per crossing.

    ``before`` is the score from which it came, ``after`` the one at which it is.
    """

    name: ClassVar[str] = "marketing.lead.score_crossed"
    threshold: str
    direction: str


class LeadUnsubscribed(LeadEvent):
    """A lead wants no more marketing on a channel."""

    name: ClassVar[str] = "marketing.lead.unsubscribed"


@dataclass(frozen=True, slots=True)
class SegmentChanged(Event):
    """Leads entered or left a segment; stands for all that did at this moment."""

    name: ClassVar[str] = "marketing.segment.changed"
    segment_id: int
    entered: int
    left: int


@dataclass(frozen=True, slots=True)
class EngagementsTracked(Event):
    """Leads did something; stands for the events of a batch. ``names`` are types, or custom events' own names."""

    name: ClassVar[str] = "marketing.engagements.tracked"
    lead_ids: frozenset[int]
    names: frozenset[str]
