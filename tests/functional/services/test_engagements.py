"""Reported events: taken in by batches, once each, with counters that are exact."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.events import EngagementsTracked
from nexus_marketing.db.models import AuditEntry, Engagement, EngagementDelta, EngagementRollup, EventSeen
from nexus_marketing.db.queries.counters import differences
from nexus_marketing.db.queries.event_batches import append_deltas, forget_event_days
from nexus_marketing.db.queries.partitions import keep_ahead
from nexus_marketing.runtime import Runtime
from nexus_marketing.services import counters
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.counters import fold_counters, reconcile_counters
from nexus_marketing.services.engagements import record_engagements, touched_by
from tests.common.factories import make_campaign, make_leads, make_tenant

pytestmark = pytest.mark.req("US-016", "FR-P2-007")


def take_in(runtime: Runtime, tenant: int, *rows: Any) -> list[dict[str, Any]]:
    with runtime.work(tenant, SYSTEM, role="app") as ctx:
        return record_engagements(ctx, rows)


def statuses(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["status"] for answer in answers]


def count(runtime: Runtime, tenant: int, model: Any) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(model)) or 0


def stored(runtime: Runtime, tenant: int) -> list[Engagement]:
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(Engagement).order_by(Engagement.id)))


def test_a_batch_is_one_audit_row_and_each_row_is_answered(runtime: Runtime, tenant: int) -> None:
    leads = make_leads(runtime, tenant, 3)
    rows = [{"type": "conversion", "lead_id": str(each), "event_id": f"e{each}"} for each in leads]
    answers = take_in(runtime, tenant, *rows, {"type": "conversion", "lead_id": "99"}, 7, rows[0])
    assert statuses(answers) == ["accepted"] * 3 + ["rejected"] * 2 + ["duplicate"]
    assert [answers[n]["errors"][0]["code"] for n in (3, 4)] == ["not_found", "not_an_object"]
    with runtime.work(tenant, mode="read") as ctx:
        entries = ctx.session.scalars(select(AuditEntry).where(AuditEntry.action == "engagements.recorded")).all()
    assert [entry.body["count"]["after"] for entry in entries] == [3]


def test_a_large_batch_is_answered_as_a_small_one(runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant, external_id="crm-1")
    named = {"type": "conversion", "lead_id": str(lead)}
    rows: list[Any] = [{**named, "event_id": f"e{number}"} for number in range(120)]
    rows[3] = {**named, "event_id": "späte"}  # refers to nobody and leaves its id to row 110
    rows[3]["lead_id"] = "999"
    rows[5] = {**named, "event_id": "e5", "nonsense": 1}
    rows[100] = {"type": "conversion", "external_id": "crm-1", "event_id": "e2"}
    rows[105] = {"type": "conversion", "external_id": "nobody"}
    rows[108] = {**named, "campaign_id": "77"}
    rows[110] = {**named, "event_id": "späte"}
    rows[115] = []
    odd = {3: "rejected", 5: "rejected", 100: "duplicate", 105: "rejected", 108: "rejected", 115: "rejected"}
    assert statuses(take_in(runtime, tenant, *rows)) == [odd.get(number, "accepted") for number in range(120)]
    assert [row.lead_id for row in stored(runtime, tenant)] == [lead] * 114
    again = [{**named, "event_id": id_} for id_ in ("e5", "e3", "e119", "späte")]
    assert statuses(take_in(runtime, tenant, *again)) == ["accepted", "accepted", "duplicate", "duplicate"]


def test_leads_are_named_by_id_external_id_or_address(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant, external_id="crm-1", email="Ann@Example.org")
    make_leads(runtime, other_tenant, external_id="crm-2", email="bob@example.org")
    names = [{"lead_id": str(lead)}, {"external_id": "crm-1"}, {"email": "ANN@example.org"}]
    strangers = [
        {"external_id": "crm-2"},
        {"email": "bob@example.org"},
        {"external_id": "crm-1", "lead_id": str(lead)},
        {},
    ]
    answers = take_in(runtime, tenant, *({"type": "conversion", **name} for name in [*names, *strangers]))
    assert statuses(answers) == ["accepted"] * 3 + ["rejected"] * 4
    assert [row.lead_id for row in stored(runtime, tenant)] == [lead] * 3


def test_a_custom_event_has_a_name_and_properties(runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    order = {"type": "custom", "name": "order_placed", "lead_id": str(lead), "properties": {"total": 12.0, "sku": "Ä"}}
    assert statuses(take_in(runtime, tenant, order)) == ["accepted"]
    (row,) = stored(runtime, tenant)
    assert (row.type, row.name, row.attributes, row.words) == (
        "custom",
        "order_placed",
        {"total": 12, "sku": "Ä"},
        "12 ä",
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"type": "custom"}, "name"),
        ({"type": "custom", "name": "conversion"}, "name"),
        ({"type": "custom", "name": "Order Placed"}, "name"),
        ({"type": "custom", "name": "x", "metadata": {"a": 1}}, "metadata"),
        ({"name": "x"}, "name"),
        ({"properties": {"a": 1}}, "properties"),
        ({"type": "order_placed"}, "type"),
        ({"tracked_at": "yesterday"}, "tracked_at"),
        ({"tracked_at": "2026-02-30T10:00:00Z"}, "tracked_at"),
        ({"tracked_at": "2026-01-01T10:00:00Z"}, "tracked_at"),
        ({"tracked_at": "2026-03-02T10:06:00Z"}, "tracked_at"),
        ({"metadata": {"a": 2**60}}, "metadata.a"),
        ({"metadata": {"a": "x\x00"}}, "metadata.a"),
        ({"notes": "x\x00"}, "notes"),
        ({"lead_id": None}, "lead_id"),
        ({"event_id": ""}, "event_id"),
        ({"verdict": "human"}, "verdict"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_bad_row_is_told_where(runtime: Runtime, tenant: int, change: dict[str, Any], path: str) -> None:
    (lead,) = make_leads(runtime, tenant)
    (answer,) = take_in(runtime, tenant, {"type": "conversion", "lead_id": str(lead), "event_id": "e", **change})
    assert answer["status"] == "rejected"
    assert answer["errors"][0]["path"] == path
    assert count(runtime, tenant, EventSeen) == 0  # what is mended may be sent again


def test_an_agent_is_judged_and_not_kept(runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    agents = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Googlebot/2.1",
        "GoogleImageProxy",
    ]
    take_in(runtime, tenant, *({"type": "page_visited", "lead_id": str(lead), "user_agent": agent} for agent in agents))
    assert [row.verdict for row in stored(runtime, tenant)] == ["human", "machine", "unknown"]
    assert all("Gecko" not in str(vars(row)) for row in stored(runtime, tenant))


def test_an_event_id_is_taken_once_for_as_long_as_it_is_kept(runtime: Runtime, tenant: int, clock: FakeClock) -> None:
    (lead,) = make_leads(runtime, tenant)
    row = {"type": "conversion", "lead_id": str(lead), "event_id": "e"}
    take_in(runtime, tenant, row)
    clock.advance(days=10)
    assert statuses(take_in(runtime, tenant, row)) == ["duplicate"]
    assert count(runtime, tenant, Engagement) == 1


def test_two_tenants_may_use_one_event_id(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    for each in (tenant, other_tenant):
        (lead,) = make_leads(runtime, each)
        assert statuses(take_in(runtime, each, {"type": "conversion", "lead_id": str(lead), "event_id": "e"})) == [
            "accepted"
        ]


def test_a_copy_on_the_other_side_of_midnight_waits_for_the_first(
    postgres_only_runtime: Runtime, clock: FakeClock
) -> None:
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    (lead,) = make_leads(runtime, tenant)
    row = {"type": "conversion", "lead_id": str(lead), "event_id": "e"}
    answers: list[list[dict[str, Any]]] = []
    clock.advance(hours=13, minutes=59, seconds=59)
    with runtime.work(tenant, role="app") as ctx:
        record_engagements(ctx, [row])
        clock.advance(seconds=2)
        second = threading.Thread(target=lambda: answers.append(take_in(runtime, tenant, row)))
        second.start()
        second.join(0.3)
        assert answers == []
    second.join(10)
    assert statuses(answers[0]) == ["duplicate"]


def test_days_of_event_ids_are_forgotten(runtime: Runtime, tenant: int, clock: FakeClock) -> None:
    keep_ahead(runtime.engines.worker, clock.now().date())
    (lead,) = make_leads(runtime, tenant)
    take_in(runtime, tenant, {"type": "conversion", "lead_id": str(lead), "event_id": "old"})
    clock.advance(days=1)
    take_in(runtime, tenant, {"type": "conversion", "lead_id": str(lead), "event_id": "new"})
    with runtime.work(None) as ctx:
        forget_event_days(ctx.session, clock.now().date())
    with runtime.work(tenant, mode="read") as ctx:
        assert list(ctx.session.scalars(select(EventSeen.event_id))) == ["new"]


def test_what_a_batch_touches_is_known(runtime: Runtime, tenant: int) -> None:
    leads = make_leads(runtime, tenant, 2)
    heard: list[EngagementsTracked] = []
    stop = runtime.hub.subscribe(EngagementsTracked, heard.append)
    take_in(
        runtime,
        tenant,
        {"type": "conversion", "lead_id": str(leads[0])},
        {"type": "custom", "name": "order_placed", "lead_id": str(leads[1])},
        {"type": "conversion", "lead_id": "99999"},
    )
    stop()
    assert [(event.lead_ids, event.names) for event in heard] == [
        (frozenset(leads), frozenset({"conversion", "order_placed"}))
    ]
    assert touched_by([]).lead_ids == frozenset()


class TestCounters:
    def rows(self, runtime: Runtime, tenant: int, number: int = 6) -> int:
        campaign = make_campaign(runtime, tenant)
        (lead,) = make_leads(runtime, tenant, external_id=f"x{campaign}", email=f"x{campaign}@example.org")
        kinds = ["conversion", "page_visited", "form_submitted"]
        take_in(
            runtime,
            tenant,
            *(
                {
                    "type": kinds[n % 3],
                    "lead_id": str(lead),
                    "campaign_id": str(campaign) if n % 2 else None,
                    "tracked_at": f"2026-03-0{1 + n % 2}T09:00:00Z",
                }
                for n in range(number)
            ),
        )
        return campaign

    def test_they_are_exact_before_and_after_the_fold(self, runtime: Runtime, tenant: int) -> None:
        campaign = self.rows(runtime, tenant)
        with runtime.work(tenant, mode="read") as ctx:
            before = campaign_analytics(ctx, campaign)["engagements"]
        assert fold_counters(runtime, tenant) > 0
        assert count(runtime, tenant, EngagementDelta) == 0
        with runtime.work(tenant, mode="read") as ctx:
            assert campaign_analytics(ctx, campaign)["engagements"] == before
            assert sum(sum(each.values()) for each in before.values()) == 3
        assert reconcile_counters(runtime, tenant) == []

    def test_a_fold_misses_nothing_that_commits_late(self, runtime: Runtime, tenant: int) -> None:
        if runtime.engines.dialect == "sqlite":
            pytest.skip("one writer at a time")
        (lead,) = make_leads(runtime, tenant)
        row = {"type": "conversion", "lead_id": str(lead)}
        with runtime.work(tenant, role="app") as late:
            record_engagements(late, [row])
            for _ in range(100):
                take_in(runtime, tenant, row)
            assert fold_counters(runtime, tenant) == 100
        assert fold_counters(runtime, tenant) == 1
        assert reconcile_counters(runtime, tenant) == []

    def test_wrong_ones_are_found_and_mended(self, runtime: Runtime, tenant: int) -> None:
        self.rows(runtime, tenant)
        fold_counters(runtime, tenant)
        with runtime.work(tenant) as ctx:
            row = ctx.session.scalars(select(EngagementRollup).order_by(EngagementRollup.type)).first()
            assert row is not None
            row.hits += 5
        found = reconcile_counters(runtime, tenant)
        assert [each.hits for each in found] == [-5]
        assert reconcile_counters(runtime, tenant, repair=True) == found
        assert reconcile_counters(runtime, tenant) == []
        fold_counters(runtime, tenant)
        assert reconcile_counters(runtime, tenant) == []

    def test_two_repairs_at_once_do_not_both_count(self, runtime: Runtime, tenant: int) -> None:
        self.rows(runtime, tenant)
        with runtime.work(tenant) as ctx:
            append_deltas(
                ctx.session,
                [{"campaign_id": 0, "day": "2026-03-02", "type": "x", "verdict": "human", "hits": 1, "recipients": 0}],
            )
        with runtime.work(tenant, mode="read") as ctx:
            found = differences(ctx.session)
        reconcile_counters(runtime, tenant, repair=True)
        with pytest.raises(Conflict, match="same time"), runtime.work(tenant) as ctx:
            counters._repair(ctx, found, None)
        assert reconcile_counters(runtime, tenant) == []

    def test_other_tenants_are_not_counted(self, runtime: Runtime, tenant: int, other_tenant: int) -> None:
        self.rows(runtime, other_tenant)
        assert fold_counters(runtime, tenant) == 0
        assert reconcile_counters(runtime, tenant) == []


def test_partitions_hold_what_clients_may_send(postgres_only_runtime: Runtime, clock: FakeClock) -> None:
    tenant = make_tenant(postgres_only_runtime)
    (lead,) = make_leads(postgres_only_runtime, tenant)
    keep_ahead(postgres_only_runtime.engines.worker, clock.now().date())
    oldest = (clock.now() - timedelta(days=35)).isoformat()
    row = {"type": "conversion", "lead_id": str(lead)}
    take_in(postgres_only_runtime, tenant, {**row, "tracked_at": oldest}, {**row, "event_id": "e"})
    with postgres_only_runtime.engines.owner.begin() as connection:
        for table in ("marketing_engagements_default", "marketing_event_seen_default"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0
