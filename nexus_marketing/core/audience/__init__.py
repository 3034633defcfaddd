"""Leads as values: the normal form of each field, and files of them."""

from nexus_marketing.core.audience.custom import FieldRule, read_rule
from nexus_marketing.core.audience.exporting import EXPORTED, WORDS, is_our_own, joined_tags, neutral
from nexus_marketing.core.audience.fields import (
    LEAD_FIELDS,
    MAX_TAGS,
    complete_names,
    normalise_email_address,
    normalise_field,
    normalise_lead,
    plain_email,
)
from nexus_marketing.core.audience.files import ConsentWord, Converter, RowReader
from nexus_marketing.core.audience.headers import Column, match_header
from nexus_marketing.core.audience.importing import (
    AT_WORK,
    CONSENT_TARGETS,
    OPTIONS,
    ColumnPolicy,
    ImportOptions,
    ImportStatus,
    Rules,
)
from nexus_marketing.core.audience.merging import (
    MERGE_FIELDS,
    MergePolicy,
    RemovalKind,
    mailbox,
    merged_values,
    read_policy,
)
from nexus_marketing.core.audience.objects import ObjectReader

__all__ = [
    "AT_WORK",
    "CONSENT_TARGETS",
    "EXPORTED",
    "LEAD_FIELDS",
    "MAX_TAGS",
    "MERGE_FIELDS",
    "OPTIONS",
    "WORDS",
    "Column",
    "ColumnPolicy",
    "ConsentWord",
    "Converter",
    "FieldRule",
    "ImportOptions",
    "ImportStatus",
    "MergePolicy",
    "ObjectReader",
    "RemovalKind",
    "RowReader",
    "Rules",
    "complete_names",
    "is_our_own",
    "joined_tags",
    "mailbox",
    "match_header",
    "merged_values",
    "neutral",
    "normalise_email_address",
    "normalise_field",
    "normalise_lead",
    "plain_email",
    "read_policy",
    "read_rule",
]
