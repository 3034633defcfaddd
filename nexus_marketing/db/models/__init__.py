"""All models, so that one import fills the metadata."""

from nexus_marketing.db.models.audit import AuditEntry, AuditValue
from nexus_marketing.db.models.campaigns import Campaign, History
from nexus_marketing.db.models.definitions import CampaignDefinition, DefinitionVersion
from nexus_marketing.db.models.deliveries import Delivery, DeliveryChunk, Send
from nexus_marketing.db.models.engagements import Engagement, EventSeen, Hit, RecipientEngagement
from nexus_marketing.db.models.leads import Lead, LeadImport, LeadImportError
from nexus_marketing.db.models.privacy import Consent, Suppression
from nexus_marketing.db.models.segments import Segment, SegmentMember
from nexus_marketing.db.models.templates import ChannelAccount, Template, TemplateVersion
from nexus_marketing.db.models.tenants import ApiKey, IdempotencyKey, Member, Tenant, Worker

__all__ = [
    "ApiKey",
    "AuditEntry",
    "AuditValue",
    "Campaign",
    "CampaignDefinition",
    "ChannelAccount",
    "Consent",
    "DefinitionVersion",
    "Delivery",
    "DeliveryChunk",
    "Engagement",
    "EventSeen",
    "History",
    "Hit",
    "IdempotencyKey",
    "Lead",
    "LeadImport",
    "LeadImportError",
    "Member",
    "RecipientEngagement",
    "Segment",
    "SegmentMember",
    "Send",
    "Suppression",
    "Template",
    "TemplateVersion",
    "Tenant",
    "Worker",
]
