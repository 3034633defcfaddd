"""What storages of JSON texts have in common: the texts, and the names that tenants may have."""

import re
from typing import Final

import orjson

from nexus_marketing.core.campaigns import (
    CampaignState,
    HistoryEntry,
    entry_document,
    read_entry,
    read_state,
    state_document,
)
from nexus_marketing.core.errors import ConfigurationError

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def state_text(state: CampaignState) -> bytes:
    """A state as JSON text."""
    return orjson.dumps(state_document(state))


def state_from(text: bytes | str) -> CampaignState:
    """A state from its JSON text."""
    return read_state(orjson.loads(text))


def entry_text(entry: HistoryEntry) -> bytes:
    """A line of history as JSON text."""
    return orjson.dumps(entry_document(entry))


def entry_from(text: bytes | str) -> HistoryEntry:
    """A line of history from its JSON text."""
    return read_entry(orjson.loads(text))


def tenant_name(tenant: str) -> str:
    """A tenant's name as a part of keys.

    Raises:
        ConfigurationError: it has characters that keys give a meaning to.
    """
    if not _TENANT.match(tenant):
        raise ConfigurationError(f"{tenant!a} is no tenant: use 1 to 63 letters, digits, '-', '_' and '.'.")
    return tenant
