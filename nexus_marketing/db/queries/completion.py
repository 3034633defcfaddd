"""SQL of the end of a send: completion is derived from ledger rows, never from a cursor (LESSONS.md 1)."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.deliveries import GATHERED, WITHHELD, chunk_members
from nexus_marketing.db.queries.rowsets import as_ids, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all

_NOTHING_LEFT = """
SELECT s.tenant_id, s.id FROM marketing_sends s WHERE s.status = 'running' AND s.journey_id IS NULL
  AND NOT EXISTS (SELECT 1 FROM marketing_delivery_chunks c
                  WHERE c.tenant_id = s.tenant_id AND c.send_id = s.id AND c.closed_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM marketing_deliveries d
                  WHERE d.tenant_id = s.tenant_id AND d.send_id = s.id AND d.due_at IS NOT NULL)
ORDER BY s.id LIMIT 100
"""


def sends_without_work(session: Session) -> list[Row[Any]]:
    """(tenant_id, id) of running sends with no open chunk and nothing in the retry lane; journeys bring theirs more."""
    return list(run_for_all(session, _NOTHING_LEFT, writes=False))


_LOCK = (
    "SELECT id FROM marketing_sends WHERE tenant_id = :tenant_id AND id IN ({ids}) AND status = 'running' ORDER BY id"
)


def lock_running(session: Session, send_ids: Sequence[int]) -> list[int]:
    """Of these sends those that still run, which nobody moves until the transaction ends."""
    lock = " FOR UPDATE" if is_postgresql(session) else ""
    statement = _LOCK.format(ids=ids_of(session)) + lock
    return list(run(session, statement, {"ids": as_ids(send_ids)}, writes=True).scalars())


_REOPEN = """
UPDATE marketing_deliveries SET due_at = nexus_now()
WHERE tenant_id = :tenant_id AND send_id IN ({ids}) AND state = 'planned' AND due_at IS NULL
RETURNING send_id
"""


def reopen_orphans(session: Session, send_ids: Sequence[int]) -> Counter[int]:
    """Put planned recipients that belong to no open chunk into the retry lane; answers how many, by send.

    There should be none: the caller counts them as an alarm.
    """
    reopened = run(session, _REOPEN.format(ids=ids_of(session)), {"ids": as_ids(send_ids)}, writes=True)
    return Counter(reopened.scalars())


_COMPLETE = """
UPDATE marketing_sends SET status = 'completed', finished_at = nexus_now()
WHERE tenant_id = :tenant_id AND id IN ({ids}) AND status = 'running'
  AND NOT EXISTS (SELECT 1 FROM marketing_delivery_chunks c
                  WHERE c.tenant_id = :tenant_id AND c.send_id = marketing_sends.id AND c.closed_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM marketing_deliveries d
                  WHERE d.tenant_id = :tenant_id AND d.send_id = marketing_sends.id AND d.due_at IS NOT NULL)
"""


def complete_sends(session: Session, send_ids: Sequence[int]) -> int:
    """Finish sends that have nothing left now that they are locked: what was replayed meanwhile goes on."""
    done = run(session, _COMPLETE.format(ids=ids_of(session)), {"ids": as_ids(send_ids)}, writes=True)
    return int(done.rowcount)  # type: ignore[attr-defined]


def cancelled_sends(session: Session) -> list[Row[Any]]:
    """(tenant_id, id) of cancelled sends that may have recipients to settle; one that has none is finished."""
    return list(
        run_for_all(
            session,
            "SELECT tenant_id, id FROM marketing_sends WHERE status = 'cancelled' AND finished_at IS NULL"
            " ORDER BY tenant_id, id LIMIT 100",
            writes=False,
        )
    )


_CLOSE_CHUNK = """
UPDATE marketing_delivery_chunks SET closed_at = nexus_now(), fence = fence + 1
WHERE tenant_id = :tenant_id AND send_id = :send_id AND closed_at IS NULL AND lease_until IS NULL AND chunk_no = (
    SELECT min(chunk_no) FROM marketing_delivery_chunks
    WHERE tenant_id = :tenant_id AND send_id = :send_id AND closed_at IS NULL AND lease_until IS NULL)
RETURNING chunk_no, seq_lo, seq_hi, seqs, fence
"""
_CANCELLED = WITHHELD.format(reason="'cancelled'")
_CANCEL_ROWS = f"""
UPDATE marketing_deliveries
SET {_CANCELLED}
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq BETWEEN :lo AND :hi AND state = 'planned'
  AND due_at IS NULL
"""
_CANCEL_MEMBER = f"""
UPDATE marketing_deliveries
SET {_CANCELLED}
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq = :seq AND state = 'planned'
  AND due_at = '9999-12-31T00:00:00.000000Z'
"""
_CANCEL_DUE = f"""
UPDATE marketing_deliveries
SET {_CANCELLED}
WHERE tenant_id = :tenant_id AND send_id = :send_id AND state = 'planned' AND due_at < :gathered
"""


def cancel_chunk(session: Session, send_id: int) -> bool:
    """Settle one chunk of a cancelled send that nobody holds; ``False`` when there is none."""
    row = run(session, _CLOSE_CHUNK, {"send_id": send_id}, writes=True).first()
    if row is None:
        return False
    members = chunk_members(row.seqs)
    if members is None:
        run(session, _CANCEL_ROWS, {"send_id": send_id, "lo": row.seq_lo, "hi": row.seq_hi}, writes=True)
    else:
        run(session, _CANCEL_MEMBER, [{"send_id": send_id, "seq": seq} for seq in members], writes=True)
    return True


def cancel_due(session: Session, send_id: int) -> int:
    """Settle the retry lane of a cancelled send; answers how many recipients."""
    done = run(session, _CANCEL_DUE, {"send_id": send_id, "gathered": GATHERED}, writes=True)
    return int(done.rowcount)  # type: ignore[attr-defined]


# A chunk that is still held may put recipients into the retry lane until its worker is done.
_FINISH_CANCELLED = """
UPDATE marketing_sends SET finished_at = nexus_now()
WHERE tenant_id = :tenant_id AND id = :send_id AND status = 'cancelled' AND finished_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM marketing_delivery_chunks c
                  WHERE c.tenant_id = :tenant_id AND c.send_id = :send_id AND c.closed_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM marketing_deliveries d
                  WHERE d.tenant_id = :tenant_id AND d.send_id = :send_id AND d.due_at IS NOT NULL)
"""


def finish_cancelled(session: Session, send_id: int) -> bool:
    """Call a cancelled send done, so that it is not looked at again; ``False`` while something is open."""
    done = run(session, _FINISH_CANCELLED, {"send_id": send_id}, writes=True)
    return bool(done.rowcount)  # type: ignore[attr-defined]


# A launch whose first channel was cancelled is no more waited for.
_THROUGH = """
SELECT f.tenant_id, f.id, f.campaign_id FROM marketing_sends f
WHERE f.legs > 1 AND f.joined_at IS NULL AND f.status <> 'cancelled' AND f.wait_for <= (
    SELECT count(*) FROM marketing_sends s
    WHERE s.tenant_id = f.tenant_id AND s.launch_id = f.id AND s.status = 'completed'
  ) + CASE WHEN f.status = 'completed' THEN 1 ELSE 0 END
ORDER BY f.id LIMIT 100
"""


def launches_to_join(session: Session) -> list[Row[Any]]:
    """(tenant_id, id, campaign_id) of launches of which enough channels are through, and nobody was told."""
    return list(run_for_all(session, _THROUGH, writes=False))


_JOIN = """
UPDATE marketing_sends SET joined_at = nexus_now()
WHERE tenant_id = :tenant_id AND id = :send_id AND legs > 1 AND joined_at IS NULL
"""


def join_launch(session: Session, launch_id: int) -> bool:
    """Remember that enough channels of a launch were through; ``False`` for all but the first who says so."""
    return bool(run(session, _JOIN, {"send_id": launch_id}, writes=True).rowcount)  # type: ignore[attr-defined]


def sends_to_report(session: Session) -> list[Row[Any]]:
    """Sends whose end their campaign has not been told: missed, failed or held by delivery itself."""
    return list(
        run_for_all(
            session,
            "SELECT s.tenant_id, s.id, s.campaign_id FROM marketing_sends s"
            " WHERE s.reported_at IS NULL AND s.status IN ('missed', 'failed', 'paused', 'completed')"
            # Asked of each that waits: a join would be free to begin with every campaign there is.
            " AND (SELECT c.status FROM marketing_campaigns c WHERE c.tenant_id = s.tenant_id AND c.id = s.campaign_id)"
            " = 'active' AND NOT EXISTS (SELECT 1 FROM marketing_sends o WHERE o.tenant_id = s.tenant_id"
            " AND o.campaign_id = s.campaign_id AND o.status IN ('scheduled', 'planning', 'running'))"
            " ORDER BY s.id LIMIT 100",
            writes=False,
        )
    )


def mark_reported(session: Session, campaign_id: int) -> None:
    """Remember that the campaign was told."""
    statement = (
        "UPDATE marketing_sends SET reported_at = nexus_now() WHERE tenant_id = :tenant_id AND campaign_id = :campaign_id"
        " AND reported_at IS NULL AND status IN ('missed', 'failed', 'paused', 'completed')"
    )
    run(session, statement, {"campaign_id": campaign_id}, writes=True)


#: Invariants of the ledger, and of the runs that wait for it: each answers no rows as long as all is well (R29).
INVARIANTS = {
    "open_row_without_wakeup": """
        SELECT d.tenant_id, d.send_id, count(*) AS n FROM marketing_deliveries d
        JOIN marketing_sends s ON s.tenant_id = d.tenant_id AND s.id = d.send_id
        WHERE s.status IN ('running', 'paused', 'completed') AND d.state = 'planned'
          AND (d.due_at IS NULL OR d.due_at >= '9999-12-31T00:00:00.000000Z')
          AND NOT EXISTS (SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = d.tenant_id
              AND c.send_id = d.send_id AND c.closed_at IS NULL AND d.seq BETWEEN c.seq_lo AND c.seq_hi)
        GROUP BY d.tenant_id, d.send_id""",
    "planned_is_not_rows": """
        SELECT s.tenant_id, s.id AS send_id, s.planned - count(d.seq) AS n FROM marketing_sends s
        LEFT JOIN marketing_deliveries d ON d.tenant_id = s.tenant_id AND d.send_id = s.id
        GROUP BY s.tenant_id, s.id, s.planned HAVING s.planned <> count(d.seq)""",
    "completed_with_open_rows": """
        SELECT s.tenant_id, s.id AS send_id, count(*) AS n FROM marketing_sends s
        JOIN marketing_deliveries d ON d.tenant_id = s.tenant_id AND d.send_id = s.id AND d.state = 'planned'
        WHERE s.status = 'completed' GROUP BY s.tenant_id, s.id""",
    "skip_without_reason": """
        SELECT tenant_id, send_id, count(*) AS n FROM marketing_deliveries
        WHERE state = 'skipped' AND reason IS NULL GROUP BY tenant_id, send_id""",
    "run_without_wakeup": """
        SELECT r.tenant_id, r.journey_id AS send_id, count(*) AS n FROM marketing_journey_runs r
        WHERE r.state IN ('ready', 'waiting', 'sending')
          AND NOT EXISTS (SELECT 1 FROM marketing_timers t WHERE t.tenant_id = r.tenant_id AND t.type = 'journey.run'
              AND t.key = CAST(r.id AS text) AND t.status = 'waiting')
          AND NOT EXISTS (SELECT 1 FROM marketing_deliveries d WHERE d.tenant_id = r.tenant_id AND d.lead_id = r.lead_id
              AND d.step <> '' AND d.occurrence / 16384 = r.id AND (d.state = 'planned' OR d.told_at IS NULL))
        GROUP BY r.tenant_id, r.journey_id""",
    "intent_without_lease": """
        SELECT tenant_id, send_id, count(*) AS n FROM marketing_delivery_chunks
        WHERE intent_lo IS NOT NULL AND lease_until IS NULL GROUP BY tenant_id, send_id""",
}


def broken_invariants(session: Session) -> dict[str, list[Row[Any]]]:
    """Which invariants do not hold, and where."""
    found = {name: list(run_for_all(session, statement, writes=False)) for name, statement in INVARIANTS.items()}
    return {name: rows for name, rows in found.items() if rows}
