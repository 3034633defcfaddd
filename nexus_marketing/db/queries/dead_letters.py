"""SQL of ledger rows that ended without the message being known to have arrived, and of taking them up again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run

_OF_CAMPAIGN = (
    "d.tenant_id = :tenant_id AND d.state = :state AND d.send_id IN (SELECT s.id FROM marketing_sends s"
    " WHERE s.tenant_id = :tenant_id AND s.campaign_id = :campaign_id AND s.status IN ('running', 'paused', 'completed'))"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which of a campaign's dead letters: of one state, if wanted of one reason, or one lead's."""

    campaign_id: int
    state: str
    reasons: Sequence[str] = ()
    lead_id: int | None = None

    @property
    def clause(self) -> str:
        """The condition on ``d``."""
        reasons = ", ".join(f":reason{number}" for number in range(len(self.reasons)))
        parts = [_OF_CAMPAIGN]
        parts += [f"d.reason IN ({reasons})"] if reasons else []
        parts += [] if self.lead_id is None else ["d.lead_id = :lead_id"]
        return " AND ".join(parts)

    @property
    def values(self) -> dict[str, Any]:
        """What the condition refers to."""
        found = {"state": self.state, "campaign_id": self.campaign_id}
        found |= {f"reason{number}": str(reason) for number, reason in enumerate(self.reasons)}
        return found if self.lead_id is None else {**found, "lead_id": self.lead_id}


_LIST = """
SELECT d.send_id, d.seq, d.lead_id, d.channel, d.state, d.reason, d.attempts, d.provider_code, d.settled_at,
  s.template_id, s.template_version
FROM marketing_deliveries d JOIN marketing_sends s ON s.tenant_id = d.tenant_id AND s.id = d.send_id
WHERE {clause} AND (d.send_id, d.seq) > (:send_id, :seq) ORDER BY d.send_id, d.seq LIMIT :limit
"""


def dead_letters(session: Session, chosen: Chosen, after: tuple[int, int], limit: int) -> list[RowMapping]:
    """Dead letters by send and ``seq``, behind a position.

    No index names them: one on their state would cost each message of the product more than this list costs whoever
    reads it, a walk through the campaign's ledger.
    """
    statement = _LIST.format(clause=chosen.clause)
    values = {**chosen.values, "send_id": after[0], "seq": after[1], "limit": limit}
    return list(run(session, statement, values, writes=False).mappings())


_SENDS = """
SELECT DISTINCT d.send_id FROM marketing_deliveries d WHERE {clause} ORDER BY d.send_id
"""
_REOPEN_SEND = """
UPDATE marketing_sends SET status = CASE WHEN status = 'completed' THEN 'running' ELSE status END, status_reason = NULL,
  finished_at = CASE WHEN status = 'completed' THEN NULL ELSE finished_at END
WHERE tenant_id = :tenant_id AND id = :send_id
"""
_REPLAY = """
UPDATE marketing_deliveries SET state = 'planned', reason = NULL, provider_code = NULL, attempts = 0, settled_at = NULL,
  due_at = nexus_now()
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN (
  SELECT d.seq FROM marketing_deliveries d WHERE {clause} AND d.send_id = :send_id ORDER BY d.seq LIMIT :limit)
"""
_ACCEPT = """
UPDATE marketing_deliveries SET state = 'accepted', reason = 'operator'
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN (
  SELECT d.seq FROM marketing_deliveries d WHERE {clause} AND d.send_id = :send_id ORDER BY d.seq LIMIT :limit)
"""


def sends_of(session: Session, chosen: Chosen) -> list[int]:
    """The sends that have such rows."""
    return list(run(session, _SENDS.format(clause=chosen.clause), chosen.values, writes=False).scalars())


def replay(session: Session, chosen: Chosen, send_id: int, limit: int) -> int:
    """Put rows into the retry lane and open the send for them; the caller holds the send's row lock."""
    moved = _change(session, _REPLAY, chosen, send_id, limit)
    run(session, _REOPEN_SEND, {"send_id": send_id}, writes=True)
    return moved


_RESUME = """
UPDATE marketing_sends SET status = 'running', status_reason = NULL
WHERE tenant_id = :tenant_id AND campaign_id = :campaign_id AND status = 'paused'
"""


def resume_sends(session: Session, campaign_id: int) -> None:
    """Let sends go on that stopped themselves after their campaign was over: no move of it could."""
    run(session, _RESUME, {"campaign_id": campaign_id}, writes=True)


def accept(session: Session, chosen: Chosen, send_id: int, limit: int) -> int:
    """Take it that the messages arrived."""
    return _change(session, _ACCEPT, chosen, send_id, limit)


def _change(session: Session, statement: str, chosen: Chosen, send_id: int, limit: int) -> int:
    values = {**chosen.values, "send_id": send_id, "limit": limit}
    return int(run(session, statement.format(clause=chosen.clause), values, writes=True).rowcount)  # type: ignore[attr-defined]
