"""Leads as values: the normal form of each field, and files of them."""

from nexus_marketing.core.audience.fields import (
    LEAD_FIELDS,
    complete_names,
    normalise_email_address,
    normalise_field,
    normalise_lead,
    plain_email,
)
from nexus_marketing.core.audience.files import Column, ConsentWord, Converter, RowReader, match_header

__all__ = [
    "LEAD_FIELDS",
    "Column",
    "ConsentWord",
    "Converter",
    "RowReader",
    "complete_names",
    "match_header",
    "normalise_email_address",
    "normalise_field",
    "normalise_lead",
    "plain_email",
]
