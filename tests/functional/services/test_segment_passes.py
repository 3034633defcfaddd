"""Segments that wait together are computed in one pass over the leads (PostgreSQL), with the same outcome."""

from typing import Any

import pytest
from sqlalchemy import update

from nexus_marketing.core.events import SegmentChanged
from nexus_marketing.db.models import Lead, Segment, Tenant
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments.records import request_recalculation, update_segment
from nexus_marketing.services.segments.refresh import recalculate_requested
from tests.common.factories import make_leads, make_tenant
from tests.common.segments import changes, create, members, settle
from tests.common.statements import statements_of

pytestmark = pytest.mark.req("FR-P2-012", "US-012", "PR-007")

RULES = ("score > 2", "score > 5", "not score > 5", "metadata.plan == 'pro'")


def build(runtime: Runtime, tenant: int) -> tuple[list[int], list[int]]:
    ids = make_leads(runtime, tenant, 10)
    return ids, [create(runtime, tenant, name=f"s{n}", conditions=rule) for n, rule in enumerate(RULES)]


def expected(ids: list[int]) -> list[set[int]]:
    return [set(ids[2:]), set(ids[5:]), set(ids[:5]), set()]


def test_each_gets_its_own_members(runtime: Runtime, tenant: int) -> None:
    ids, segments = build(runtime, tenant)
    with statements_of(runtime) as sent:
        assert recalculate_requested(runtime) == 4
    scans = [each for each, _ in sent if "FULL OUTER JOIN" in each]
    assert len(scans) == (1 if runtime.engines.dialect == "postgresql" else 0)
    assert [members(runtime, tenant, each) for each in segments] == expected(ids)
    with runtime.work(tenant, mode="read") as ctx:
        rows = [ctx.session.get_one(Segment, (tenant, each)) for each in segments]
        assert [(row.lead_count, row.generation, row.pending) for row in rows] == [
            (8, 1, None),
            (5, 1, None),
            (5, 1, None),
            (0, 1, None),
        ]


def test_joiners_leavers_and_their_readers_are_told_apart(runtime: Runtime, tenant: int) -> None:
    ids, segments = build(runtime, tenant)
    reader = create(runtime, tenant, name="reader", conditions="in_segment('s1')")
    settle(runtime)
    told: list[SegmentChanged] = []
    runtime.hub.subscribe(SegmentChanged, told.append)
    with runtime.work(tenant, role="owner") as ctx:
        ctx.session.execute(update(Lead).where(Lead.id == ids[0]).values(score=99))
        ctx.session.execute(update(Lead).where(Lead.id == ids[9]).values(score=0))
    with runtime.work(tenant) as ctx:
        for each in segments:
            request_recalculation(ctx, each)
    recalculate_requested(runtime)
    moved = {(each.segment_id, each.entered, each.left) for each in told}
    assert moved == {(segments[0], 1, 1), (segments[1], 1, 1), (segments[2], 1, 1)}
    noted = sorted(changes(runtime, tenant, segments[2]))
    assert noted == [(ids[0], "left", "refresh"), (ids[9], "entered", "refresh")]
    settle(runtime)
    assert members(runtime, tenant, reader) == {ids[0], *ids[5:9]}


def test_an_edit_meanwhile_holds_up_none_of_the_others(
    postgres_only_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    ids, segments = build(runtime, tenant)
    join = queries.refresh_by_diff

    def edited_meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(queries, "refresh_by_diff", join)
        runtime.clock.advance(seconds=1)  # type: ignore[attr-defined]
        with runtime.work(tenant) as other:
            update_segment(other, segments[0], {"conditions": "score > 8"})
        return join(*given)

    monkeypatch.setattr(queries, "refresh_by_diff", edited_meanwhile)
    assert recalculate_requested(runtime) == 4
    wanted = [set(ids[8:]), *expected(ids)[1:]]
    assert [members(runtime, tenant, each) for each in segments] == wanted


def test_one_that_cannot_be_computed_is_told_and_holds_up_none(runtime: Runtime, tenant: int) -> None:
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, tenant).settings = {"fields": {"seats": "number"}}
    broken = create(runtime, tenant, name="broken", conditions="seats > 5")
    ids, segments = build(runtime, tenant)
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, tenant).settings = {}
    assert recalculate_requested(runtime) == 5
    assert [members(runtime, tenant, each) for each in segments] == expected(ids)
    with runtime.work(tenant, mode="read") as ctx:
        assert "seats" in (ctx.session.get_one(Segment, (tenant, broken)).error or "")
