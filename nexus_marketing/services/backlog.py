"""What waits and what stands still, as gauges: asked of the database when a monitor looks."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row

from nexus_marketing.db.queries.accounts import ill_accounts
from nexus_marketing.db.queries.backlog import (
    abandoned_chunks,
    overdue_retries,
    stopped_sends_by_reason,
    waiting_chunks,
)
from nexus_marketing.db.queries.timers import dead_timers
from nexus_marketing.db.queries.troubles import failed_runs, ill_actions, open_escalations
from nexus_marketing.db.queries.workers import seconds_since_worker
from nexus_marketing.runtime import Runtime

#: Of a gauge that tells that something is wrong, more does not tell more.
_MOST: Final = 1000
Gauge = tuple[str, str, list[tuple[dict[str, str], float]]]


def backlog_gauges(runtime: Runtime) -> list[Gauge]:
    """Name, meaning and values with their labels; over all tenants."""
    with runtime.work(None, mode="read", role="worker") as ctx:
        waiting, overdue = waiting_chunks(ctx.session), overdue_retries(ctx.session)
        abandoned, stopped = abandoned_chunks(ctx.session), stopped_sends_by_reason(ctx.session)
        timers = dead_timers(ctx.session, _MOST)
        actions, runs = ill_actions(ctx.session), failed_runs(ctx.session)
        escalations, accounts = open_escalations(ctx.session), ill_accounts(ctx.session)
    silence = seconds_since_worker(runtime.engines.app)
    return [
        _one("queue_sends", "Running sends with work that nobody holds", waiting.sends),
        _one("queue_chunks", "Pieces of up to 500 recipients that nobody holds", waiting.chunks),
        _one("queue_chunks_for_domains", "Pieces of recipients who wait for the rate of a domain", waiting.for_domains),
        _one("queue_oldest_seconds", "Age of the oldest send with such a piece", waiting.seconds),
        _one("retries_overdue", "Recipients who are due again", overdue.rows),
        _one("retries_overdue_seconds", "Since when the first of them has been due", overdue.seconds),
        _one("leases_abandoned", "Pieces whose lease was over a minute ago", abandoned),
        _one("timers_dead", "Timers that were given up", len(timers)),
        _one("actions_failed", "Actions that failed within a week", _sum(actions, "failed")),
        _one("actions_paused", "Actions whose plugin is missing", _sum(actions, "paused")),
        _one("escalations_open", "Escalations that nobody has acknowledged", len(escalations)),
        _one("journey_runs_failed", "Runs of journeys that failed within a week", sum(row.n for row in runs)),
        _one(
            "channel_accounts_ill",
            "Accounts that are on and that their provider refuses or nobody reaches",
            len(accounts),
        ),
        _one(
            "worker_silence_seconds",
            "Since a worker was heard of; below nothing: never",
            -1 if silence is None else silence,
        ),
        (
            "sends_stopped",
            "Sends that stand still because of themselves, by the first word of the reason",
            [({"reason": reason}, float(count)) for reason, count in sorted(stopped)],
        ),
    ]


def _sum(actions: Sequence[Row[Any]], state: str) -> int:
    return sum(row.n for row in actions if row.state == state)


def _one(name: str, meaning: str, value: float | None) -> Gauge:
    return name, meaning, [({}, float(value or 0))]
