"""Segments: audiences by rule, by hand, or frozen (BEHAVIOUR.md 5.3)."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.conditions import InSegment, dependencies, parse, to_json
from nexus_marketing.core.conditions.tree import leaves
from nexus_marketing.core.deliveries import OPEN_SENDS
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.segments import SegmentCause, SegmentKind, levels, names_read, segments_read
from nexus_marketing.core.values import canonical
from nexus_marketing.db.conditions import cost_class
from nexus_marketing.db.models import Campaign, Segment, Send
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.queries.upkeep import lock_rules, moves_of, note_moves
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record, record_bulk
from nexus_marketing.services.segments.budget import budget_for
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.segments.rules import RULED, named, readers_of, rule_schema
from nexus_marketing.services.versions import find_to_change

KINDS: Final = tuple(SegmentKind)


def create_segment(ctx: Context, data: Mapping[str, Any]) -> Segment:
    """Write down a segment; one with a rule is computed by the workers right after commit.

    Args:
        data: ``name``, ``kind`` (one of ``SegmentKind``), ``conditions`` (text or
            JSON) or, for a static one, ``lead_ids``.

    Raises:
        ConditionError: what is wrong with the condition and where.
        Conflict: the name is taken.
    """
    values = canonical(dict(data))
    kind = values.get("kind") or ("static" if values.get("lead_ids") is not None else "dynamic")
    segment = Segment(name=values["name"], kind=kind, created_at=ctx.now, updated_at=ctx.now, version=1)
    has_rule = _apply(ctx, segment, values)
    segment.pending = "build" if has_rule else None
    ctx.session.add(segment)
    _flush_name(ctx, segment.name)
    _after_change(ctx, segment, values.get("lead_ids"), is_computed=has_rule)
    record(ctx, "segment.created", "segment", segment.id, {"name": (None, segment.name), "kind": (None, kind)})
    return segment


def update_segment(
    ctx: Context, segment_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> Segment:
    """Change a segment; another rule is another membership, computed right after commit.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ConditionError: what is wrong with the condition and where.
        Conflict: the name is taken, or it is a snapshot that was taken by its rule.
    """
    segment = find_to_change(ctx, Segment, segment_id, expected_version)
    values = canonical(dict(data))
    before = {name: getattr(segment, name) for name in ("name", "conditions") if name in values}
    segment.name = values.get("name", segment.name)
    if values.get("kind", segment.kind) != segment.kind:
        raise ValidationError.at("kind", "fixed", f"A {segment.kind} segment stays {segment.kind}: create another one.")
    is_another = _apply(ctx, segment, values)
    if is_another and segment.pending is None:
        segment.pending = "rule"
    segment.version += 1
    segment.updated_at = ctx.now
    _flush_name(ctx, segment.name)
    _after_change(ctx, segment, values.get("lead_ids"), is_computed=is_another)
    changes = {name: (before[name], getattr(segment, name)) for name in before}
    record(ctx, "segment.updated", "segment", segment.id, changes)
    return segment


def change_members(ctx: Context, segment_id: int, *, add: Sequence[int] = (), remove: Sequence[int] = ()) -> Segment:
    """Put leads into a static segment and take others out; ids that are no lead of the tenant are left out.

    Raises:
        Conflict: the segment is dynamic: its rule decides.
    """
    segment = find_to_change(ctx, Segment, segment_id)
    if segment.kind != SegmentKind.STATIC:
        raise Conflict(f"The rule of a {segment.kind} segment decides who is in it: change its conditions instead.")
    came = queries.add_members(ctx.session, segment_id, sorted(add), segment.generation)
    went = queries.remove_members(ctx.session, segment_id, sorted(remove))
    moves = moves_of(segment_id, came, went)
    note_moves(ctx.session, moves, SegmentCause.HAND)
    mark_leads(ctx, [*came, *went], [f"segment:{segment_id}"])
    _recount(ctx, segment)
    manifest = sha256(f"add {sorted(add)} remove {sorted(remove)}".encode()).digest()
    record_bulk(ctx, "segment.members_changed", "segment", segment_id, len(add) + len(remove), manifest)
    return segment


def delete_segment(ctx: Context, segment_id: int, *, expected_version: int | None = None) -> None:
    """Remove a segment and its membership.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: campaigns or other segments refer to it; names them.
    """
    segment = find_to_change(ctx, Segment, segment_id, expected_version)
    if ctx.session.scalars(select(Send.id).where(Send.segment_id == segment_id, Send.status.in_(OPEN_SENDS))).first():
        raise Conflict("A send to this segment is under way: wait for its end or cancel the campaign first.")
    users = ctx.session.scalars(select(Campaign.id).where(Campaign.segment_id == segment_id).limit(10)).all()
    if users:
        named = ", ".join(str(each) for each in users)
        raise Conflict(f"Campaigns use this segment: {named}. Point them elsewhere first.", campaigns=list(users))
    readers = readers_of(ctx, segment_id)
    if readers:
        named = ", ".join(f"{name!r} ({id_})" for id_, name in readers[:10])
        raise Conflict(
            f"Segments read this one: {named}. Change their conditions first.", segments=[r[0] for r in readers]
        )
    ctx.session.delete(segment)
    record(ctx, "segment.deleted", "segment", segment_id, {"name": (segment.name, None)})


def request_recalculation(ctx: Context, segment_id: int) -> Segment:
    """Ask the workers to compute membership afresh; what is shown until then says its ``as_of``.

    Raises:
        Conflict: it is a snapshot: it stays as it was taken.
    """
    segment = find_to_change(ctx, Segment, segment_id)
    if segment.kind == SegmentKind.SNAPSHOT and segment.pending is None:
        raise Conflict("A snapshot stays as it was taken: take another one.")
    segment.requested_at = ctx.now
    ctx.ring("segments")
    return segment


def references(ctx: Context, segment_id: int) -> list[dict[str, Any]]:
    """What would not work without the segment, as ``type``, ``id`` and ``name``.

    Raises:
        NotFound: there is no such segment.
    """
    find(ctx.session, Segment, segment_id)
    campaigns = ctx.session.execute(
        select(Campaign.id, Campaign.name).where(Campaign.segment_id == segment_id).order_by(Campaign.id).limit(100)
    )
    found = [{"type": "campaign", "id": str(row.id), "name": row.name} for row in campaigns]
    return found + [{"type": "segment", "id": str(id_), "name": name} for id_, name in readers_of(ctx, segment_id)]


def _apply(ctx: Context, segment: Segment, values: Mapping[str, Any]) -> bool:
    """Whether the segment has another rule now."""
    if segment.kind not in KINDS:
        said = f"{segment.kind!r} is no kind: use {', '.join(KINDS[:-1])} or {KINDS[-1]}."
        raise ValidationError.at("kind", "unknown_kind", said)
    if segment.kind == SegmentKind.STATIC:
        if values.get("conditions") is not None:
            raise ValidationError.at("conditions", "not_for_static", "A static segment has lead_ids, no conditions.")
        return False
    if values.get("lead_ids") is not None:
        said = f"A {segment.kind} segment has conditions, no lead_ids."
        raise ValidationError.at("lead_ids", f"not_for_{segment.kind}", said)
    if "conditions" not in values and segment.conditions is not None:
        return False
    if segment.kind == SegmentKind.SNAPSHOT and segment.conditions is not None:
        raise Conflict("A snapshot stays as it was taken: take another one with these conditions.")
    return _set_rule(ctx, segment, values.get("conditions"))


def _set_rule(ctx: Context, segment: Segment, spelling: Any) -> bool:
    if spelling is None:
        raise ValidationError.at(
            "conditions", "required", f"A {segment.kind} segment needs conditions, as text or JSON."
        )
    schema = rule_schema(ctx)
    condition = named(ctx, parse(spelling, schema, "conditions"))
    if segment.kind == SegmentKind.COMPOSITE and not all(isinstance(each, InSegment) for each in leaves(condition)):
        said = "A composite segment is made of in_segment(…) alone: make a dynamic one of other conditions."
        raise ValidationError.at("conditions", "not_composite", said)
    before, segment.conditions = segment.conditions, dict(to_json(condition))
    segment.cost_class = str(cost_class(condition, schema))
    if segment.kind in RULED and before != segment.conditions:
        budget_for(ctx, segment.cost_class, segment.id)
    segment.depends_on = names_read(dependencies(condition, schema), schema)
    read = segments_read(segment.depends_on)
    if read:
        lock_rules(ctx.session)  # two edits at once would each see no circle
        found = ctx.session.execute(select(Segment.id, Segment.depends_on).where(Segment.conditions.is_not(None)))
        levels({row.id: segments_read(row.depends_on) for row in found} | {segment.id or 0: read})
    return before != segment.conditions


def _after_change(ctx: Context, segment: Segment, lead_ids: Sequence[Any] | None, *, is_computed: bool) -> None:
    if is_computed:
        segment.requested_at = ctx.now
        ctx.session.flush()
        ctx.ring("segments")
    elif lead_ids is not None:
        wanted = {int(each) for each in lead_ids}
        present = set(queries.member_ids(ctx.session, segment.id))
        change_members(ctx, segment.id, add=sorted(wanted - present), remove=sorted(present - wanted))
    elif segment.kind == SegmentKind.STATIC:
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
