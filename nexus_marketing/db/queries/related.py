"""Rows that belong to many parents at once: one statement per level, for GraphQL's loaders."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Text, TextualSelect, bindparam, cast, func, select, text
from sqlalchemy.orm import Session

from nexus_marketing.db.models import Lead, Segment, SegmentMember
from nexus_marketing.db.queries.resources.leads import LEADS
from nexus_marketing.db.queries.rowsets import as_rows, is_postgresql, rowset
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import Json, UtcDateTime

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
_SHOWN = tuple(name for name in LEADS.fields if name not in LEADS.ids)
_LEADS_OF_SEGMENTS = (
    select(
        _RANKED.c.segment_id,
        cast(_LEADS.id, Text).label("id"),
        cast(_LEADS.owner_id, Text).label("owner_id"),
        *(_LEADS[name] for name in _SHOWN),
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


_SHOWN_EVENT = """
CAST(e.id AS text) AS id, e.type, e.name, CAST(e.lead_id AS text) AS lead_id, CAST(e.campaign_id AS text) AS campaign_id,
e.channel, e.verdict, e.notes, e.metadata, e.tracked_at
"""
_NEWEST = """
SELECT {shown} FROM marketing_engagements e
WHERE e.tenant_id = :tenant_id AND e.{owner} = {parent} {of_type}ORDER BY e.tracked_at DESC, e.id DESC LIMIT :row_limit
"""
#: SQLite puts at most 500 selects together.
_PIECE = 200


def newest_engagements(session: Session, owner: str, ids: Sequence[int], type_: str | None, limit: int) -> Rows:
    """The newest engagements of each lead or campaign (``owner`` is one of our column names)."""
    bound: dict[str, Any] = {"row_limit": limit} | ({} if type_ is None else {"type": type_})
    one = {"shown": _SHOWN_EVENT, "owner": owner, "of_type": "" if type_ is None else "AND e.type = :type "}
    found: dict[int, list[dict[str, Any]]] = {}
    if is_postgresql(session):
        each = _NEWEST.format(parent="s.id", **one)
        statement = f"SELECT s.id AS parent, n.* FROM {rowset(session, {'id': 'bigint'})} CROSS JOIN LATERAL ({each}) n"
        rows = as_rows([{"id": id_} for id_ in ids])
        return _grouped(run(session, _typed(statement), {**bound, "rows": rows}, writes=False))
    for start in range(0, len(ids), _PIECE):
        names = {f"id_{number}": id_ for number, id_ in enumerate(ids[start : start + _PIECE])}
        parts = (f"SELECT :{name} AS parent, n.* FROM ({_NEWEST.format(parent=f':{name}', **one)}) n" for name in names)
        found |= _grouped(run(session, _typed(" UNION ALL ".join(parts)), {**bound, **names}, writes=False))
    return found


def _typed(statement: str) -> TextualSelect:
    return text(statement).columns(metadata=Json, tracked_at=UtcDateTime)
