"""Rows that belong to many parents at once: one statement per level, for GraphQL's loaders."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Text, bindparam, cast, func, select
from sqlalchemy.orm import Session

from nexus_marketing.db.models import Lead, Segment, SegmentMember
from nexus_marketing.db.tenancy import run

_LEADS, _SEGMENTS, _MEMBERS = Lead.__table__.c, Segment.__table__.c, SegmentMember.__table__.c
_TENANT: BindParameter[Any] = bindparam("tenant_id")

_SEGMENTS_OF_LEADS = (
    select(
        _MEMBERS.lead_id,
        cast(_SEGMENTS.id, Text).label("id"),
        _SEGMENTS.name,
        _SEGMENTS.conditions,
        _SEGMENTS.lead_count,
    )
    .where(
        _MEMBERS.tenant_id == _TENANT,
        _MEMBERS.lead_id.in_(bindparam("lead_ids", expanding=True)),
        _SEGMENTS.tenant_id == _MEMBERS.tenant_id,
        _SEGMENTS.id == _MEMBERS.segment_id,
    )
    .order_by(_MEMBERS.lead_id, _SEGMENTS.id)
)
_RANKED = (
    select(
        _MEMBERS.tenant_id,
        _MEMBERS.segment_id,
        _MEMBERS.lead_id,
        func.row_number().over(partition_by=_MEMBERS.segment_id, order_by=_MEMBERS.lead_id).label("place"),
    )
    .where(_MEMBERS.tenant_id == _TENANT, _MEMBERS.segment_id.in_(bindparam("segment_ids", expanding=True)))
    .subquery()
)
_LEADS_OF_SEGMENTS = (
    select(
        _RANKED.c.segment_id,
        cast(_LEADS.id, Text).label("id"),
        _LEADS.email,
        _LEADS.name,
        _LEADS.score,
        _LEADS.metadata,
    )
    .where(
        _LEADS.tenant_id == _RANKED.c.tenant_id,
        _LEADS.id == _RANKED.c.lead_id,
        _RANKED.c.place <= bindparam("row_limit"),
    )
    .order_by(_RANKED.c.segment_id, _RANKED.c.place)
)

Rows = Mapping[int, list[dict[str, Any]]]


def segments_of_leads(session: Session, lead_ids: Sequence[int]) -> Rows:
    """The segments of each lead."""
    return _grouped(run(session, _SEGMENTS_OF_LEADS, {"lead_ids": list(lead_ids)}, writes=False))


def leads_of_segments(session: Session, segment_ids: Sequence[int], limit: int) -> Rows:
    """The first leads of each segment."""
    parameters = {"segment_ids": list(segment_ids), "row_limit": limit}
    return _grouped(run(session, _LEADS_OF_SEGMENTS, parameters, writes=False))


def _grouped(result: Any) -> Rows:
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    names = list(result.keys())[1:]
    for parent, *values in result:
        found[parent].append(dict(zip(names, values, strict=True)))
    return found
