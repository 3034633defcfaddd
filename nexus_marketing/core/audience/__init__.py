"""Leads as values: the normal form of each field, and files of them."""

from nexus_marketing.core.audience.custom import FieldRule, read_rule
from nexus_marketing.core.audience.fields import (
    LEAD_FIELDS,
    MAX_TAGS,
    complete_names,
    normalise_email_address,
    normalise_field,
    normalise_lead,
    plain_email,
)
from nexus_marketing.core.audience.files import Column, ConsentWord, Converter, RowReader, match_header
from nexus_marketing.core.audience.merging import (
    MERGE_FIELDS,
    MergePolicy,
    RemovalKind,
    mailbox,
    merged_values,
    read_policy,
)

__all__ = [
    "LEAD_FIELDS",
    "MAX_TAGS",
    "MERGE_FIELDS",
    "Column",
    "ConsentWord",
    "Converter",
    "FieldRule",
    "MergePolicy",
    "RemovalKind",
    "RowReader",
    "complete_names",
    "mailbox",
    "match_header",
    "merged_values",
    "normalise_email_address",
    "normalise_field",
    "normalise_lead",
    "plain_email",
    "read_policy",
    "read_rule",
]
