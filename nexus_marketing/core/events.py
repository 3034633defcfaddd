"""What happened, as typed values; the requirements' names are used in webhooks.

Events leave a unit of work after its commit and carry ids, never personal data.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a tenant's data at a moment (UTC)."""

    name: ClassVar[str] = "marketing.event"
    tenant_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class CampaignEvent(Event):
    """Something happened to a campaign."""

    campaign_id: int


class CampaignCreated(CampaignEvent):
    """A campaign was written down."""

    name: ClassVar[str] = "marketing.campaign.created"


class CampaignLaunched(CampaignEvent):
    """Its audience is being planned from now on."""

    name: ClassVar[str] = "marketing.campaign.launched"


class CampaignPaused(CampaignEvent):
    """Nothing more leaves until it is resumed."""

    name: ClassVar[str] = "marketing.campaign.paused"


class CampaignResumed(CampaignEvent):
    """It goes on where it stopped."""

    name: ClassVar[str] = "marketing.campaign.resumed"


class CampaignCompleted(CampaignEvent):
    """Every recipient of every send is in a final state."""

    name: ClassVar[str] = "marketing.campaign.completed"


class CampaignCancelled(CampaignEvent):
    """Given up; what was not handed over never will be."""

    name: ClassVar[str] = "marketing.campaign.cancelled"


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
    """A piece of a file came in; stands for the events of its leads."""

    name: ClassVar[str] = "marketing.leads.imported"
    import_id: int
    created: int
    updated: int


class LeadUnsubscribed(LeadEvent):
    """A lead wants no more marketing on a channel."""

    name: ClassVar[str] = "marketing.lead.unsubscribed"
