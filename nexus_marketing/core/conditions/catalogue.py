"""The names every tenant has: the lead's columns, the campaign's data and the engine's measures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nexus_marketing.core.conditions.schema import Field, Folding, Schema
from nexus_marketing.core.conditions.tree import FieldType

_T, _N, _D = FieldType.TEXT, FieldType.NUMBER, FieldType.DATETIME
LEAD_FIELDS: Final = (
    Field("id", _N, indexed=True),
    Field("email", _T, folded="email_norm", folding=Folding.EMAIL),
    Field("email_norm", _T, indexed=True),
    Field("external_id", _T, indexed=True),
    Field("name", _T),
    Field("first_name", _T),
    Field("last_name", _T),
    Field("phone", _T),
    Field("country", _T),
    Field("locale", _T),
    Field("time_zone", _T),
    Field("score", _N, indexed=True),
    Field("created_at", _D, indexed=True),
    Field("updated_at", _D),
    Field("tags", FieldType.LIST),
    Field("metadata", FieldType.JSON),
)
LEAD_ALIASES: Final = {"lead_score": "score", "location": "country", "timezone": "time_zone", "email_address": "email"}
MEASURES: Final = {"emails_sent": _N, "engagement_rate": _N, "lead_score": _N}


def lead_schema(custom: Mapping[str, FieldType] | None = None) -> Schema:
    """The lead's names plus a tenant's declared fields, which live in ``metadata`` under their name."""
    declared = custom or {}
    bare = (Field(name, kind, ("metadata", name)) for name, kind in declared.items())
    inside = (Field(f"metadata.{name}", kind, ("metadata", name)) for name, kind in declared.items())
    return Schema.of(LEAD_FIELDS, LEAD_ALIASES).extended((*inside, *bare))


#: What a condition on an event may name; any other name is a key of its metadata.
EVENTS: Final = replace(
    Schema.of(
        (
            Field("at", _D, ("tracked_at",)),
            Field("type", _T),
            Field("name", _T),
            Field("channel", _T),
            Field("campaign_id", _N),
            Field("link", _N),
            Field("metadata", FieldType.JSON),
            # What custom events call their metadata.
            Field("properties", FieldType.JSON, ("metadata",)),
        )
    ),
    open_field="metadata",
)


def segment_schema(custom: Mapping[str, FieldType] | None = None) -> Schema:
    """The lead's names, and facts: events, segments, consent."""
    return replace(lead_schema(custom), events=EVENTS)


def scope_fields(scope: str, declared: Mapping[str, FieldType]) -> tuple[Field, ...]:
    """The fields of ``data.``, ``campaign.`` or ``event.``: kept in the record under the scope's name."""
    return tuple(Field(f"{scope}.{name}", kind, (scope, name)) for name, kind in declared.items())


def campaign_schema(data: Mapping[str, FieldType], custom: Mapping[str, FieldType] | None = None) -> Schema:
    """Names of guards, triggers and escalation: the lead's, ``data.`` with the measures, open ``campaign.``/``event.``."""
    scopes = (Field("campaign", FieldType.JSON), Field("event", FieldType.JSON))
    return lead_schema(custom).extended((*scopes, *scope_fields("data", {**MEASURES, **data})))
