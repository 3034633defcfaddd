"""Segments: audiences by rule or by hand, kept as membership rows (BEHAVIOUR.md 5.3)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import (
    AllOf,
    Condition,
    Evaluation,
    FieldRef,
    Leaf,
    Operator,
    Schema,
    parse,
    to_json,
)
from nexus_marketing.core.conditions import lead_schema as standard_schema
from nexus_marketing.core.deliveries import OPEN_SENDS
from nexus_marketing.core.errors import Conflict, NexusError, ValidationError
from nexus_marketing.core.values import canonical
from nexus_marketing.db.conditions import compile_condition, cost_class
from nexus_marketing.db.models import Campaign, Segment, Send
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record, record_bulk
from nexus_marketing.services.fields import declared_fields
from nexus_marketing.services.versions import find_to_change
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

KINDS = ("dynamic", "static")
#: Rows per transaction on SQLite, whose only writer must be free for others (DATABASE.md).
_PIECE = 2_000


def lead_schema(ctx: Context) -> Schema:
    """The names that this tenant's conditions may use: the lead's and those its settings declare."""
    return standard_schema(declared_fields(ctx))


def create_segment(ctx: Context, data: Mapping[str, Any]) -> Segment:
    """Write down a segment; a dynamic one is computed by the workers right after commit.

    Args:
        data: ``name``, ``kind`` (``dynamic`` or ``static``), ``conditions`` (text or JSON; dynamic only)
            and ``lead_ids`` (static only).

    Raises:
        ConditionError: what is wrong with the condition and where.
        Conflict: the name is taken.
    """
    values = canonical(dict(data))
    kind = values.get("kind") or ("static" if values.get("lead_ids") is not None else "dynamic")
    segment = Segment(name=values["name"], kind=kind, created_at=ctx.now, updated_at=ctx.now, version=1)
    _apply(ctx, segment, values)
    ctx.session.add(segment)
    _flush_name(ctx, segment.name)
    _after_change(ctx, segment, values.get("lead_ids"))
    record(ctx, "segment.created", "segment", segment.id, {"name": (None, segment.name), "kind": (None, kind)})
    return segment


def update_segment(
    ctx: Context, segment_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> Segment:
    """Change a segment; another rule is another membership, computed right after commit.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ConditionError: what is wrong with the condition and where.
    """
    segment = find_to_change(ctx, Segment, segment_id, expected_version)
    values = canonical(dict(data))
    before = {name: getattr(segment, name) for name in ("name", "conditions") if name in values}
    segment.name = values.get("name", segment.name)
    if values.get("kind", segment.kind) != segment.kind:
        raise ValidationError.at("kind", "fixed", f"A {segment.kind} segment stays {segment.kind}: create another one.")
    _apply(ctx, segment, values)
    segment.version += 1
    segment.updated_at = ctx.now
    _flush_name(ctx, segment.name)
    _after_change(ctx, segment, values.get("lead_ids"))
    changes = {name: (before[name], getattr(segment, name)) for name in before}
    record(ctx, "segment.updated", "segment", segment.id, changes)
    return segment


def change_members(ctx: Context, segment_id: int, *, add: Sequence[int] = (), remove: Sequence[int] = ()) -> Segment:
    """Put leads into a static segment and take others out; ids that are no lead of the tenant are left out.

    Raises:
        Conflict: the segment is dynamic: its rule decides.
    """
    segment = find_to_change(ctx, Segment, segment_id)
    if segment.kind != "static":
        raise Conflict("The rule of a dynamic segment decides who is in it: change its conditions instead.")
    queries.add_members(ctx.session, segment_id, sorted(add), segment.generation)
    queries.remove_members(ctx.session, segment_id, sorted(remove))
    _recount(ctx, segment)
    manifest = sha256(f"add {sorted(add)} remove {sorted(remove)}".encode()).digest()
    record_bulk(ctx, "segment.members_changed", "segment", segment_id, len(add) + len(remove), manifest)
    return segment


def delete_segment(ctx: Context, segment_id: int, *, expected_version: int | None = None) -> None:
    """Remove a segment and its membership.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: campaigns refer to it; names them.
    """
    segment = find_to_change(ctx, Segment, segment_id, expected_version)
    if ctx.session.scalars(select(Send.id).where(Send.segment_id == segment_id, Send.status.in_(OPEN_SENDS))).first():
        raise Conflict("A send to this segment is under way: wait for its end or cancel the campaign first.")
    users = ctx.session.scalars(select(Campaign.id).where(Campaign.segment_id == segment_id).limit(10)).all()
    if users:
        named = ", ".join(str(each) for each in users)
        raise Conflict(f"Campaigns use this segment: {named}. Point them elsewhere first.", campaigns=list(users))
    ctx.session.delete(segment)
    record(ctx, "segment.deleted", "segment", segment_id, {"name": (segment.name, None)})


def request_recalculation(ctx: Context, segment_id: int) -> Segment:
    """Ask the workers to compute membership afresh; what is shown until then says its ``as_of``."""
    segment = find_to_change(ctx, Segment, segment_id)
    segment.requested_at = ctx.now
    ctx.ring("segments")
    return segment


def recalculate_requested(runtime: Runtime) -> int:
    """Compute every segment that somebody asked for; answers how many."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = queries.segments_to_refresh(session)
    for row in waiting:
        try:
            refresh(runtime, row.tenant_id, row.id)
        except NexusError as error:
            # A rule that cannot be computed any more must not stop the others, nor be tried for ever.
            _note_failure(runtime, row.tenant_id, row.id, error)
    return len(waiting)


def recalculate(ctx: Context, segment_id: int) -> Segment:
    """Bring a segment's membership in line with its rule, in the caller's transaction.

    For what must be right at once; workers use :func:`refresh`, which on SQLite writes in pieces.

    Raises:
        ConditionError: the rule no longer fits the tenant's fields.
    """
    segment = find_to_change(ctx, Segment, segment_id)
    started = time.monotonic()
    if segment.kind == "dynamic":
        if ctx.runtime.engines.dialect == "sqlite":
            _write(ctx, segment, _difference(ctx, segment))
        else:
            test = _compiled(ctx, segment, _condition(ctx, segment))
            queries.refresh_by_diff(ctx.session, segment_id, test, segment.generation + 1)
    _finish(ctx, segment, ctx.now, started)
    return segment


def refresh(runtime: Runtime, tenant_id: int, segment_id: int) -> int:
    """Bring a segment's membership in line with its rule as of now; answers the number of members.

    One diff statement in one transaction on PostgreSQL. On SQLite joiners and leavers are written in
    pieces, joiners first, so that readers never see fewer than those who stay. A rule that was edited
    meanwhile stays asked for: what was computed of the old one is not called current (LESSONS.md 25).
    """
    if runtime.engines.dialect != "sqlite":
        with runtime.work(tenant_id, SYSTEM) as ctx:
            return recalculate(ctx, segment_id).lead_count
    started = time.monotonic()
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        as_of, segment = ctx.now, find(ctx.session, Segment, segment_id)
        change = _NO_CHANGE
        if segment.kind == "dynamic":
            change = _difference(ctx, segment)
    for piece in _pieces(change)[:-1]:
        with runtime.work(tenant_id, SYSTEM) as ctx:
            _write(ctx, segment, piece)
    with runtime.work(tenant_id, SYSTEM) as ctx:
        current = find_to_change(ctx, Segment, segment_id)
        if current.version == segment.version:
            _write(ctx, segment, _pieces(change)[-1])
            _finish(ctx, current, as_of, started)
        return current.lead_count


@dataclass(frozen=True, slots=True)
class _Change:
    """Who joins and who leaves, ascending."""

    joiners: Sequence[int] = ()
    leavers: Sequence[int] = ()


_NO_CHANGE = _Change()


def _difference(ctx: Context, segment: Segment) -> _Change:
    condition = _condition(ctx, segment)
    test = _compiled(ctx, segment, condition)
    scan = not _names_few(condition, lead_schema(ctx))
    return _Change(
        queries.joiners(ctx.session, segment.id, test, scan=scan), queries.leavers(ctx.session, segment.id, test)
    )


def _names_few(condition: Condition, schema: Schema) -> bool:
    """Whether a condition asks for single values of an indexed field, so that an index finds few leads."""
    if isinstance(condition, AllOf):
        return any(_names_few(term, schema) for term in condition.terms)
    if not isinstance(condition, Leaf) or condition.operator not in (Operator.EQUAL, Operator.IN):
        return False
    return isinstance(condition.subject, FieldRef) and schema.resolve(condition.subject.name).indexed


def _write(ctx: Context, segment: Segment, change: _Change) -> None:
    queries.add_members(ctx.session, segment.id, change.joiners, segment.generation + 1)
    queries.remove_members(ctx.session, segment.id, change.leavers)


def _pieces(change: _Change) -> list[_Change]:
    """Joiners first; at least one piece, perhaps empty."""
    came, went = change.joiners, change.leavers
    if len(came) + len(went) <= _PIECE:
        return [change]
    pieces = [_Change(joiners=came[start : start + _PIECE]) for start in range(0, len(came), _PIECE)]
    return pieces + [_Change(leavers=went[start : start + _PIECE]) for start in range(0, len(went), _PIECE)]


def _finish(ctx: Context, segment: Segment, as_of: datetime, started: float) -> None:
    segment.generation += 1
    segment.lead_count = queries.count_members(ctx.session, segment.id)
    segment.as_of, segment.error = as_of, None
    if segment.requested_at is not None and segment.requested_at <= as_of:
        segment.requested_at = None  # asked for again meanwhile: computed again
    segment.duration_ms = int((time.monotonic() - started) * 1000)
    ctx.session.flush()


def _condition(ctx: Context, segment: Segment) -> Condition:
    return parse(segment.conditions, lead_schema(ctx), "conditions")


def _compiled(ctx: Context, segment: Segment, condition: Condition) -> Any:
    dialect = ctx.runtime.engines.dialect
    zones = queries.zones_present(ctx.session) if _needs_zones(segment.conditions) else ()
    return compile_condition(
        condition, lead_schema(ctx), queries.LEAD_COLUMNS, dialect, Evaluation(ctx.now), zones=zones
    )


def _needs_zones(document: Any) -> bool:
    return "local_today" in str(document)


def _apply(ctx: Context, segment: Segment, values: Mapping[str, Any]) -> None:
    if segment.kind not in KINDS:
        raise ValidationError.at("kind", "unknown_kind", f"{segment.kind!r} is no kind: use {' or '.join(KINDS)}.")
    if segment.kind == "static":
        if values.get("conditions") is not None:
            raise ValidationError.at("conditions", "not_for_static", "A static segment has lead_ids, no conditions.")
        return
    if values.get("lead_ids") is not None:
        raise ValidationError.at("lead_ids", "not_for_dynamic", "A dynamic segment has conditions, no lead_ids.")
    if "conditions" in values or segment.conditions is None:
        segment.conditions, segment.cost_class = _checked(ctx, values.get("conditions"))


def _checked(ctx: Context, spelling: Any) -> tuple[dict[str, Any], str]:
    if spelling is None:
        raise ValidationError.at("conditions", "required", "A dynamic segment needs conditions, as text or JSON.")
    schema = lead_schema(ctx)
    condition: Condition = parse(spelling, schema, "conditions")
    return dict(to_json(condition)), str(cost_class(condition, schema))


def _after_change(ctx: Context, segment: Segment, lead_ids: Sequence[Any] | None) -> None:
    if segment.kind == "dynamic":
        request_recalculation(ctx, segment.id)
        return
    if lead_ids is not None:
        wanted = {int(each) for each in lead_ids}
        present = set(queries.member_ids(ctx.session, segment.id))
        change_members(ctx, segment.id, add=sorted(wanted - present), remove=sorted(present - wanted))
        return
    _recount(ctx, segment)


def _recount(ctx: Context, segment: Segment) -> None:
    segment.lead_count = queries.count_members(ctx.session, segment.id)
    segment.as_of = ctx.now
    ctx.session.flush()


def _flush_name(ctx: Context, name: str) -> None:
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"name: there is a segment {name!r} already; choose another name.", field="name") from error


def _note_failure(runtime: Runtime, tenant_id: int, segment_id: int, error: NexusError) -> None:
    log.error("segment_refresh_failed", tenant_id=tenant_id, segment_id=segment_id, error=str(error))
    with runtime.work(tenant_id, SYSTEM) as ctx:
        segment = find_to_change(ctx, Segment, segment_id)
        segment.error, segment.requested_at = str(error)[:500], None
