"""All models, so that one import fills the metadata."""

from nexus_marketing.db.models.actions import CampaignListener, TakenAction
from nexus_marketing.db.models.audit import AuditEntry, AuditUntold, AuditValue
from nexus_marketing.db.models.campaigns import Campaign, History
from nexus_marketing.db.models.channels import ChannelAccount
from nexus_marketing.db.models.definitions import CampaignDefinition, DefinitionVersion
from nexus_marketing.db.models.deliveries import (
    Delivery,
    DeliveryChunk,
    ProviderReport,
    Send,
    SenderWarmUp,
    SendFeedback,
    SendGrant,
)
from nexus_marketing.db.models.engagements import (
    Engagement,
    EngagementAttachment,
    EngagementComment,
    EngagementDelta,
    EngagementRollup,
    EventSeen,
    Hit,
    PublicEvent,
    RecipientEngagement,
)
from nexus_marketing.db.models.escalations import Escalation
from nexus_marketing.db.models.imports import (
    LeadImport,
    LeadImportChange,
    LeadImportError,
    LeadImportPiece,
    LeadImportProfile,
)
from nexus_marketing.db.models.journeys import (
    Journey,
    JourneyApproval,
    JourneyArrival,
    JourneyListener,
    JourneyRun,
    JourneyStep,
    JourneyVersion,
)
from nexus_marketing.db.models.leads import Lead, LeadField, LeadKey, LeadRemoval
from nexus_marketing.db.models.plugins import TenantPlugin
from nexus_marketing.db.models.preflights import Preflight
from nexus_marketing.db.models.privacy import Consent, Suppression
from nexus_marketing.db.models.renders import RenderBlock
from nexus_marketing.db.models.scoring import (
    Score,
    ScoreContribution,
    ScoreCrossing,
    ScoreMark,
    ScoreRecompute,
    ScoreValue,
    ScoreVersion,
)
from nexus_marketing.db.models.segments import Segment, SegmentChange, SegmentMark, SegmentMember
from nexus_marketing.db.models.templates import Template, TemplateVersion
from nexus_marketing.db.models.tenants import ApiKey, IdempotencyKey, Member, Tenant, Worker
from nexus_marketing.db.models.timers import Timer

__all__ = [
    "ApiKey",
    "AuditEntry",
    "AuditUntold",
    "AuditValue",
    "Campaign",
    "CampaignDefinition",
    "CampaignListener",
    "ChannelAccount",
    "Consent",
    "DefinitionVersion",
    "Delivery",
    "DeliveryChunk",
    "Engagement",
    "EngagementAttachment",
    "EngagementComment",
    "EngagementDelta",
    "EngagementRollup",
    "Escalation",
    "EventSeen",
    "History",
    "Hit",
    "IdempotencyKey",
    "Journey",
    "JourneyApproval",
    "JourneyArrival",
    "JourneyListener",
    "JourneyRun",
    "JourneyStep",
    "JourneyVersion",
    "Lead",
    "LeadField",
    "LeadImport",
    "LeadImportChange",
    "LeadImportError",
    "LeadImportPiece",
    "LeadImportProfile",
    "LeadKey",
    "LeadRemoval",
    "Member",
    "Preflight",
    "ProviderReport",
    "PublicEvent",
    "RecipientEngagement",
    "RenderBlock",
    "Score",
    "ScoreContribution",
    "ScoreCrossing",
    "ScoreMark",
    "ScoreRecompute",
    "ScoreValue",
    "ScoreVersion",
    "Segment",
    "SegmentChange",
    "SegmentMark",
    "SegmentMember",
    "Send",
    "SendFeedback",
    "SendGrant",
    "SenderWarmUp",
    "Suppression",
    "TakenAction",
    "Template",
    "TemplateVersion",
    "Tenant",
    "TenantPlugin",
    "Timer",
    "Worker",
]
