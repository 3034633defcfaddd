"""Segments on both databases: rules, hands, and what a refresh leaves."""

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import ConditionError, Conflict, NotFound, StaleVersion, ValidationError
from nexus_marketing.db.files import alone_at
from nexus_marketing.db.models import Lead, Segment, SegmentMember, Tenant
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments import refresh as segment_refresh
from nexus_marketing.services.segments.records import (
    change_members,
    delete_segment,
    update_segment,
)
from nexus_marketing.services.segments.refresh import recalculate_requested, refresh
from nexus_marketing.services.segments.rules import Rule
from tests.common.factories import make_campaign, make_leads, make_tenant
from tests.common.segments import create, members
from tests.common.statements import statements_of

pytestmark = pytest.mark.req("FR-P2-003", "FR-P2-012", "US-012")


def test_a_rule_decides_who_is_in_it(runtime: Runtime, tenant: int) -> None:
    ids = make_leads(runtime, tenant, 30)
    segment_id = create(runtime, tenant, conditions="score >= 20 AND NOT country == 'DE'")
    assert recalculate_requested(runtime) == 1
    assert members(runtime, tenant, segment_id) == set(ids[19:])
    with runtime.work(tenant, mode="read") as ctx:
        segment = ctx.session.scalars(select(Segment)).one()
        assert (segment.lead_count, segment.generation, segment.error, segment.requested_at) == (11, 1, None, None)
    assert recalculate_requested(runtime) == 0


def test_a_refresh_writes_joiners_and_leavers_only(runtime: Runtime, tenant: int) -> None:
    ids = make_leads(runtime, tenant, 10)
    segment_id = create(runtime, tenant, conditions="score > 5")
    refresh(runtime, tenant, segment_id)
    with runtime.work(tenant) as ctx:
        for lead in ctx.session.scalars(select(Lead).where(Lead.id.in_([ids[0], ids[9]]))):
            lead.score = 100 - lead.score
            lead.score = 0 if lead.id == ids[9] else lead.score
    assert refresh(runtime, tenant, segment_id) == 5
    assert members(runtime, tenant, segment_id) == {ids[0], *ids[5:9]}
    with runtime.work(tenant, mode="read") as ctx:
        rows = {row.lead_id: row.generation for row in ctx.session.scalars(select(SegmentMember))}
    assert rows[ids[0]] == 2
    assert rows[ids[5]] == 1


def test_both_spellings_mean_the_same(runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 20)
    document = {
        "logic": "AND",
        "conditions": [
            {"field": "lead_score", "operator": ">", "value": 5},
            {"field": "country", "operator": "in", "value": ["US", "CA"]},
        ],
    }
    one = create(runtime, tenant, name="json", conditions=document)
    two = create(runtime, tenant, name="text", conditions="lead_score > 5 AND country in ['US', 'CA']")
    recalculate_requested(runtime)
    assert members(runtime, tenant, one) == members(runtime, tenant, two) != set()


@pytest.mark.parametrize(
    ("condition", "said"),
    [("scor > 5", "score"), ("score > ", "character"), ("score > 'x'", "number"), ("country matches '(a+)+$['", "")],
)
def test_a_wrong_rule_is_refused_with_its_place(runtime: Runtime, tenant: int, condition: str, said: str) -> None:
    with pytest.raises(ConditionError) as refused:
        create(runtime, tenant, conditions=condition)
    assert said in str(refused.value)
    assert all(problem.path.startswith("conditions") for problem in refused.value.problems)


def test_static_segments_hold_whom_they_are_given(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    ids = make_leads(runtime, tenant, 5)
    foreign = make_leads(runtime, other_tenant, 1)
    segment_id = create(runtime, tenant, kind="static", lead_ids=[str(each) for each in (*ids[:3], *foreign)])
    assert members(runtime, tenant, segment_id) == set(ids[:3])
    with runtime.work(tenant) as ctx:
        update_segment(ctx, segment_id, {"lead_ids": [str(ids[4])]})
    assert members(runtime, tenant, segment_id) == {ids[4]}
    assert refresh(runtime, tenant, segment_id) == 1


def test_kinds_do_not_mix(runtime: Runtime, tenant: int) -> None:
    for data in ({"kind": "static", "conditions": "score > 1"}, {"kind": "dynamic", "lead_ids": ["1"]}, {}):
        with pytest.raises(ValidationError):
            create(runtime, tenant, **data)


def test_stale_versions_and_taken_names_are_refused(runtime: Runtime, tenant: int) -> None:
    segment_id = create(runtime, tenant, conditions="score > 1")
    with pytest.raises(StaleVersion) as stale, runtime.work(tenant) as ctx:
        update_segment(ctx, segment_id, {"name": "new"}, expected_version=7)
    assert stale.value.context["current"] == 1
    with pytest.raises(Conflict, match="another name"):
        create(runtime, tenant, conditions="score > 2")


def test_a_segment_in_use_stays(runtime: Runtime, tenant: int) -> None:
    segment_id = create(runtime, tenant, conditions="score > 1")
    campaign_id = make_campaign(runtime, tenant, segment_id=segment_id)
    with pytest.raises(Conflict, match=str(campaign_id)), runtime.work(tenant) as ctx:
        delete_segment(ctx, segment_id)


def test_another_tenants_segment_does_not_exist(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    segment_id = create(runtime, tenant, conditions="score > 1")
    with pytest.raises(NotFound), runtime.work(other_tenant) as ctx:
        update_segment(ctx, segment_id, {"name": "mine"})


def test_large_refreshes_on_sqlite_come_in_pieces(sqlite_only_runtime: Runtime) -> None:
    tenant_id = make_tenant(sqlite_only_runtime)
    make_leads(sqlite_only_runtime, tenant_id, 4_500)
    segment_id = create(sqlite_only_runtime, tenant_id, conditions="score >= 0")
    assert refresh(sqlite_only_runtime, tenant_id, segment_id) == 4_500


def test_members_come_and_go_by_hand(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    ids = make_leads(runtime, tenant, 4)
    foreign = make_leads(runtime, other_tenant, 1)
    segment_id = create(runtime, tenant, kind="static", lead_ids=[str(ids[0])])
    with runtime.work(tenant) as ctx:
        assert change_members(ctx, segment_id, add=[*ids[1:3], *foreign], remove=[ids[0]]).lead_count == 2
    assert members(runtime, tenant, segment_id) == set(ids[1:3])
    dynamic = create(runtime, tenant, name="d", conditions="score > 1")
    with pytest.raises(Conflict, match="rule"), runtime.work(tenant) as ctx:
        change_members(ctx, dynamic, add=ids)


def test_declared_fields_are_names_of_conditions(runtime: Runtime, tenant: int) -> None:
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get(Tenant, tenant).settings = {"fields": {"seats": "number"}}
    ids = make_leads(runtime, tenant, 3, attributes={"seats": 7})
    segment_id = create(runtime, tenant, conditions="seats > 5 AND metadata.seats < 8")
    refresh(runtime, tenant, segment_id)
    assert members(runtime, tenant, segment_id) == set(ids)


def test_what_is_asked_for_during_a_refresh_is_computed_again(
    runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = make_leads(runtime, tenant, 10)
    segment_id = create(runtime, tenant, conditions="score > 2")
    compiled = Rule.test

    def edited_meanwhile(rule, ctx):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(Rule, "test", compiled)
        runtime.clock.advance(seconds=1)  # type: ignore[attr-defined]
        with runtime.work(tenant) as other:
            update_segment(other, segment_id, {"conditions": "score > 8"})
        return compiled(rule, ctx)

    monkeypatch.setattr(Rule, "test", edited_meanwhile)
    refresh(runtime, tenant, segment_id)
    assert recalculate_requested(runtime) == 1
    assert members(runtime, tenant, segment_id) == set(ids[8:])
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.get(Segment, (tenant, segment_id)).pending is None


def test_readers_never_see_fewer_than_those_who_stay(
    sqlite_only_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = sqlite_only_runtime
    tenant_id = make_tenant(runtime)
    ids = make_leads(runtime, tenant_id, 60)
    segment_id = create(runtime, tenant_id, conditions="score <= 40")
    refresh(runtime, tenant_id, segment_id)
    with runtime.work(tenant_id) as ctx:
        update_segment(ctx, segment_id, {"conditions": "score > 20"})
    monkeypatch.setattr(segment_refresh, "PIECE", 5)
    seen: list[set[int]] = []
    write = segment_refresh._Pieces._write

    def watched(*parts: object) -> None:
        seen.append(members(runtime, tenant_id, segment_id))
        write(*parts)  # type: ignore[arg-type]

    monkeypatch.setattr(segment_refresh._Pieces, "_write", watched)
    refresh(runtime, tenant_id, segment_id)
    assert len(seen) == 8
    assert all(set(ids[20:40]) <= each for each in seen)
    assert members(runtime, tenant_id, segment_id) == set(ids[20:])


def test_a_rule_that_fits_no_longer_is_told_and_not_tried_for_ever(runtime: Runtime, tenant: int) -> None:
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get(Tenant, tenant).settings = {"fields": {"seats": "number"}}
    segment_id = create(runtime, tenant, conditions="seats > 5")
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get(Tenant, tenant).settings = {}
    assert recalculate_requested(runtime) == 1
    with runtime.work(tenant, mode="read") as ctx:
        segment = ctx.session.get(Segment, (tenant, segment_id))
        assert "seats" in segment.error
    assert recalculate_requested(runtime) == 0


@pytest.mark.parametrize("condition", ["external_id == 'crm-77'", "email == 'Person77@example.org' ignoring case"])
def test_a_refresh_finds_few_leads_through_their_index(postgres_only_runtime: Runtime, condition: str) -> None:
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    make_leads(runtime, tenant_id, 4_000)
    with runtime.work(tenant_id) as ctx:
        lead = ctx.session.scalars(select(Lead).where(Lead.email_norm == "person77@example.org")).one()
        lead.external_id = "crm-77"
    with runtime.engines.owner.connect() as connection:
        connection.connection.dbapi_connection.execute("ANALYZE marketing_leads")
    segment_id = create(runtime, tenant_id, conditions=condition)
    with statements_of(runtime) as ran:
        assert refresh(runtime, tenant_id, segment_id) == 1
    statement, parameters = next(each for each in ran if "matching" in each[0])
    with runtime.engines.worker.connect() as connection, connection.connection.cursor() as cursor:
        plan = "\n".join(row[0] for row in cursor.execute(f"EXPLAIN {statement}", parameters))
    assert "Index" in plan
    assert "Seq Scan on marketing_leads" not in plan


class TestAComputationThatWasCutOff:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """Where a segment is computed in several transactions."""
        return sqlite_only_runtime

    def test_keeps_nobody_waiting(self, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch) -> None:
        make_leads(runtime, tenant, 10)
        segment_id = create(runtime, tenant, conditions="score > 5")

        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(segment_refresh.queries, "joiners", die)
            with pytest.raises(KeyboardInterrupt):
                refresh(runtime, tenant, segment_id)
        assert refresh(runtime, tenant, segment_id) == 5

    def test_of_two_at_once_one_is_told_to_ask_again(self, runtime: Runtime, tenant: int) -> None:
        make_leads(runtime, tenant, 10)
        segment_id = create(runtime, tenant, conditions="score > 5")
        with alone_at(runtime.engines.worker, f"segment-{tenant}-{segment_id}") as is_alone:
            assert is_alone
            assert refresh(runtime, tenant, segment_id) is None
        assert refresh(runtime, tenant, segment_id) == 5
