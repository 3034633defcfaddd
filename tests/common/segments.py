"""Segments in tests: what workers do about them, and what is in them."""

from typing import Any

from sqlalchemy import select

from nexus_marketing.db.models import SegmentChange, SegmentMember, Tenant
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.segments.records import (
    create_segment,
)
from nexus_marketing.services.segments.refresh import recalculate_requested
from nexus_marketing.services.segments.upkeep import keep_segments
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS

FIELDS = {"signup": "date", "seen": "datetime", "plan": "text"}


def settle(runtime: Runtime) -> None:
    """Let workers do everything that waits."""
    for _ in range(60):
        if not (
            fire_due(runtime, TIMERS)
            + keep_segments(runtime)
            + recalculate_requested(runtime)
            + finish_removals(runtime)
        ):
            return
    raise AssertionError("the workers do not come to an end")


def members(runtime: Runtime, tenant_id: int, segment_id: int) -> set[int]:
    with runtime.work(tenant_id, mode="read") as ctx:
        return set(ctx.session.scalars(select(SegmentMember.lead_id).where(SegmentMember.segment_id == segment_id)))


def changes(runtime: Runtime, tenant_id: int, segment_id: int) -> list[tuple[int, str, str]]:
    with runtime.work(tenant_id, mode="read") as ctx:
        rows = ctx.session.scalars(
            select(SegmentChange).where(SegmentChange.segment_id == segment_id).order_by(SegmentChange.id)
        )
        return [(row.lead_id, row.change, row.cause) for row in rows]


def create(runtime: Runtime, tenant_id: int, **data: Any) -> int:
    with runtime.work(tenant_id) as ctx:
        return create_segment(ctx, {"name": "s", **data}).id


def declare(runtime: Runtime, tenant_id: int) -> None:
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, tenant_id).settings = {"fields": FIELDS}
