"""The judge, a process of its own: reads the sink's log and plain SQL, never the product's counters."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.common.servers import libpq_url

#: Each answers no rows as long as all is well; written again here on purpose, in the judge's own words.
INVARIANTS = {
    "planned differs from rows": (
        "SELECT s.id FROM marketing_sends s WHERE s.planned <>"
        " (SELECT count(*) FROM marketing_deliveries d WHERE d.tenant_id = s.tenant_id AND d.send_id = s.id)"
    ),
    "completed with open rows": (
        "SELECT s.id FROM marketing_sends s JOIN marketing_deliveries d ON d.tenant_id = s.tenant_id"
        " AND d.send_id = s.id AND d.state = 'planned' WHERE s.status = 'completed'"
    ),
    "open row that nothing will wake": (
        "SELECT d.seq FROM marketing_deliveries d JOIN marketing_sends s ON s.tenant_id = d.tenant_id"
        " AND s.id = d.send_id WHERE s.status IN ('running', 'paused') AND d.state = 'planned' AND d.due_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = d.tenant_id"
        " AND c.send_id = d.send_id AND c.closed_at IS NULL AND d.seq BETWEEN c.seq_lo AND c.seq_hi)"
    ),
    "unknown state": (
        "SELECT seq FROM marketing_deliveries WHERE state NOT IN"
        " ('planned', 'accepted', 'skipped', 'failed', 'unknown')"
    ),
    "skipped without reason": "SELECT seq FROM marketing_deliveries WHERE state = 'skipped' AND reason IS NULL",
    "one lead twice": (
        "SELECT lead_id FROM marketing_deliveries GROUP BY tenant_id, send_id, lead_id HAVING count(*) > 1"
    ),
}


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Rows of a statement, by the driver alone."""
    if dsn.startswith("sqlite"):
        with closing(sqlite3.connect(dsn.removeprefix("sqlite:///"), timeout=30)) as lite:
            return lite.execute(statement).fetchall()
    with psycopg.connect(libpq_url(dsn)) as connection:
        return connection.execute(statement).fetchall()


def broken(dsn: str) -> list[str]:
    """Names of the invariants that do not hold now."""
    return [name for name, statement in INVARIANTS.items() if query(dsn, statement)]


class Arrival(NamedTuple):
    """A message that the sink took: of which send, for whom, when (seconds since 1970)."""

    send_id: int
    recipient: str
    message_id: str
    at: float


def arrival(line: str) -> Arrival:
    """A line of the sink's log; our Message-IDs name the send."""
    recipient, message_id, _, at = line.split("\t")
    found = _SEND.search(message_id)
    return Arrival(int(found[1]) if found else 0, recipient, message_id, float(at))


_SEND = re.compile(r"\.s(\d+)\.t")
_FINAL = frozenset({"accepted", "skipped", "failed", "unknown"})
_LEDGER = """
SELECT d.send_id, l.email, d.state FROM marketing_deliveries d
JOIN marketing_leads l ON l.tenant_id = d.tenant_id AND l.id = d.lead_id
"""
#: Who is to get what: the members of the segment of each send that was not missed.
_WANTED = """
SELECT s.id, l.email FROM marketing_sends s
JOIN marketing_segment_members m ON m.tenant_id = s.tenant_id AND m.segment_id = s.segment_id
JOIN marketing_leads l ON l.tenant_id = m.tenant_id AND l.id = m.lead_id WHERE s.status <> 'missed'
"""


def judge(dsn: str, log: Path, audience: int) -> dict[str, Any]:
    """Compare what arrived with what the ledger says, send by send.

    ``lost``: a recipient that neither arrived nor has a final state; also one the ledger calls
    accepted that never arrived. ``duplicated``: second arrivals. ``unknown_undelivered``: unknown and
    never arrived.
    """
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    came = [arrival(line) for line in lines]
    arrived = Counter((each.send_id, each.recipient) for each in came)
    message_ids: dict[tuple[int, str], set[str]] = {}
    for each in came:
        message_ids.setdefault((each.send_id, each.recipient), set()).add(each.message_id)
    states: dict[tuple[int, str], str] = {(send_id, email): state for send_id, email, state in query(dsn, _LEDGER)}
    wanted = {(send_id, email) for send_id, email in query(dsn, _WANTED)}
    lost = [
        key
        for key in wanted | states.keys()
        if states.get(key) not in _FINAL or (arrived[key] == 0 and states[key] == "accepted")
    ]
    unknown = [key for key, state in states.items() if state == "unknown"]
    return {
        "audience": audience,
        "planned": len(states),
        "accepted": sum(state == "accepted" for state in states.values()),
        "skipped": sum(state == "skipped" for state in states.values()),
        "arrived": sum(arrived.values()),
        "lost": len(lost),
        "duplicated": sum(count - 1 for count in arrived.values()),
        "unasked": len(arrived.keys() - states.keys()),
        "changed_message_id": sum(len(ids) > 1 for ids in message_ids.values()),
        "unknown": len(unknown),
        "unknown_undelivered": sum(arrived[key] == 0 for key in unknown),
        "open": sum(state == "planned" for state in states.values()),
        "broken": broken(dsn),
    }


def write_judgement(path: Path, dsn: str, log: Path, audience: int) -> None:
    """What :func:`judge` finds, as JSON."""
    path.write_text(json.dumps(judge(dsn, log, audience)), encoding="utf-8")
