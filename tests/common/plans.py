"""Reads the plan of every statement that the worker role runs in tests (DATABASE.md, Worker statements).

The worker's policy lets every row through, so that its statements keep their indexes; what keeps tenants
apart is a ``tenant_id`` condition on each scan. The plan shows it whatever the statement was written in.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Engine, event

#: Functions that look across tenants on purpose, and the indexes by which they may: all of them small.
SWEEPS: Mapping[str, frozenset[str]] = {
    "sends_to_plan": frozenset({"ix_marketing_sends_working", "uq_marketing_sends_open"}),
    "old_blocks": frozenset({"ix_marketing_render_blocks_at"}),
    "sends_with_work": frozenset(
        {
            "ix_marketing_sends_working",
            "uq_marketing_sends_open",
            "ix_marketing_delivery_chunks_open",
            "ix_marketing_delivery_chunks_waiting",
        }
    ),
    "sends_with_due_rows": frozenset({"ix_marketing_sends_working", "ix_marketing_deliveries_due"}),
    "sends_without_work": frozenset(
        {"ix_marketing_sends_working", "ix_marketing_delivery_chunks_open", "ix_marketing_deliveries_due"}
    ),
    "expired_chunks": frozenset({"ix_marketing_delivery_chunks_leased"}),
    "cancelled_sends": frozenset({"ix_marketing_sends_unsettled"}),
    "sends_to_report": frozenset(
        {"ix_marketing_sends_unreported", "ix_marketing_sends_working", "uq_marketing_sends_open"}
    ),
    "launches_to_join": frozenset({"ix_marketing_sends_joining"}),
    "messages_to_tell": frozenset({"ix_marketing_deliveries_untold"}),
    "preflights_waiting": frozenset({"ix_marketing_preflights_waiting"}),
    "campaigns_to_tick": frozenset({"ix_marketing_campaigns_tick"}),
    "claim_timers": frozenset({"ix_marketing_timers_due"}),
    "dead_timers": frozenset({"ix_marketing_timers_dead"}),
    "tenants_with_marks": frozenset({"pk_marketing_segment_marks"}),
    "segments_to_refresh": frozenset({"ix_marketing_segments_requested"}),
    "lead_work": frozenset(
        {
            "ix_marketing_lead_removals_unfinished",
            "ix_marketing_lead_imports_at_work",
            "ix_marketing_lead_imports_upload",
            "ix_marketing_lead_imports_traces",
        }
    ),
    # Queues that are emptied every few seconds.
    "queued_work": frozenset(
        {
            "ix_marketing_hits_tenant_id_at",
            "pk_marketing_public_events",
            "ix_marketing_provider_reports_due",
            "pk_marketing_engagement_deltas",
            "ix_marketing_engagement_deltas_campaign",
            "ix_marketing_audit_untold_sink",
            "uq_marketing_timers_tenant_id_type_key",
        }
    ),
    "scoring_work": frozenset(
        {
            "pk_marketing_score_marks",
            "ix_marketing_score_marks_tenant_id_lead_id",
            "ix_marketing_score_recomputes_unfinished",
            "ix_marketing_scores_removed",
        }
    ),
    "answers_before": frozenset({"ix_marketing_idempotency_keys_created_at"}),
}
#: Small indexes of one table that hold the same rows or nearly: on tables that are almost empty they cost the planner the
#: same, and whichever it takes, a sweep that may read by one of them may read by the others.
ALIKE: tuple[frozenset[str], ...] = (
    frozenset({"ix_marketing_sends_working", "uq_marketing_sends_open"}),
    frozenset({"ix_marketing_delivery_chunks_leased", "ix_marketing_delivery_chunks_open"}),
    frozenset({"pk_marketing_engagement_deltas", "ix_marketing_engagement_deltas_campaign"}),
    frozenset({"pk_marketing_score_marks", "ix_marketing_score_marks_tenant_id_lead_id"}),
)
#: Judges of the whole database: run by the chaos suite, by ``doctor`` and for monitors, not by workers.
JUDGES = frozenset(
    {
        "broken_invariants",
        "waiting_chunks",
        "overdue_retries",
        "abandoned_chunks",
        "stopped_sends",
        "stopped_sends_by_reason",
        "ill_accounts",
        "ill_actions",
        "failed_runs",
        "open_escalations",
        "slow_compensations",
    }
)

_CONDITIONS = ("Index Cond", "Filter", "Recheck Cond", "TID Cond")
_PLANNED = ("select", "insert", "update", "delete", "with", "merge")
_TENANT_TABLES = """
SELECT c.relname, coalesce(p.relname, c.relname) FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A scan that a tenant condition is missing from."""

    table: str
    node: str
    caller: str | None
    statement: str

    def __str__(self) -> str:
        who = f" in {self.caller}()" if self.caller else ""
        return f"{self.node} of {self.table} without a tenant_id condition{who}: {' '.join(self.statement.split())}"


@dataclass(slots=True)
class PlanWatch:
    """Explains each distinct statement once, on the connection and in the transaction that runs it."""

    tenant_tables: Mapping[str, str]
    seen: set[tuple[str, str | None]] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def on(cls, worker: Engine, owner: Engine) -> "PlanWatch":
        """Watch an engine; ``owner`` reads the catalogue."""
        with owner.connect() as connection:
            watch = cls({str(name): str(parent) for name, parent in connection.exec_driver_sql(_TENANT_TABLES)})
        event.listen(worker, "before_cursor_execute", watch.before_statement)
        return watch

    def before_statement(
        self, _connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _executemany: bool
    ) -> None:
        """Explain a statement that is new (SQLAlchemy's ``before_cursor_execute``)."""
        key = (statement, sweep_caller())
        if key in self.seen or not statement.lstrip().lower().startswith(_PLANNED):
            return
        self.seen.add(key)
        values = parameters[0] if isinstance(parameters, list | tuple) and parameters else parameters
        try:
            plan = explain(cursor.connection, statement, values)
        except psycopg.Error:
            if cursor.connection.pgconn.pipeline_status:
                raise  # perhaps that of a statement before it, which is told only once
            return  # the statement itself is wrong and will say so
        self.findings.extend(self.judge(plan, statement, key[1]))

    def judge(self, plan: Mapping[str, Any], statement: str, caller: str | None) -> Iterator[Finding]:
        """What is wrong with one plan."""
        if caller in JUDGES:
            return
        allowed = indexes_for(caller)
        for node in nodes(plan):
            table = self.tenant_tables.get(str(node.get("Relation Name")))
            if table is None or not str(node["Node Type"]).endswith("Scan"):
                continue
            if any(re.search(r"\btenant_id\b", str(node.get(each, ""))) for each in _CONDITIONS):
                continue
            if node["Node Type"] == "Tid Scan" and caller in SWEEPS:
                continue  # rows that another part of the statement has found, where this judges how
            used = set(indexes_of(node))
            if not used or not used <= allowed:
                how = f"{node['Node Type']} by {', '.join(sorted(used))}" if used else str(node["Node Type"])
                yield Finding(table, how, caller, statement)

    def take(self) -> list[Finding]:
        """The findings since the last call."""
        taken, self.findings = self.findings, []
        return taken


def indexes_for(caller: str | None) -> frozenset[str]:
    """By which indexes a function may look across tenants."""
    named = SWEEPS.get(caller or "", frozenset())
    return named.union(*(alike for alike in ALIKE if alike & named))


def explain(connection: psycopg.Connection[Any], statement: str, values: Any) -> dict[str, Any]:
    """The plan as PostgreSQL would run it on large tables: with an index wherever one fits.

    Inside a savepoint, so that neither the setting nor a statement that fails is felt afterwards. One command at a
    time, because the connection may be in pipeline mode.
    """
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT nexus_plan", prepare=False)
        cursor.execute("SET LOCAL enable_seqscan = off", prepare=False)
        try:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", values, prepare=False)
            row = cursor.fetchone()
        finally:
            cursor.execute("ROLLBACK TO nexus_plan", prepare=False)
            cursor.execute("RELEASE nexus_plan", prepare=False)
    assert row is not None
    found = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's nodes, the plan itself first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes_of(scan: Mapping[str, Any]) -> Iterator[str]:
    """The indexes of one scan: its own, or those of the bitmaps below it."""
    if "Index Name" in scan:
        yield str(scan["Index Name"])
    for child in scan.get("Plans", ()):
        if str(child["Node Type"]).startswith("Bitmap"):
            yield from indexes_of(child)


def sweep_caller() -> str | None:
    """The function that called ``run_for_all``, if one did: sweeps are known by their names."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "run_for_all":
            caller = frame.f_back
            while caller is not None and caller.f_code.co_name.startswith("<"):  # a comprehension's own frame
                caller = caller.f_back
            return caller.f_code.co_name if caller is not None else None
        frame = frame.f_back  # type: ignore[assignment]
    return None
