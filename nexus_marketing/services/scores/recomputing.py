"""New rules on their way through all leads, and scores that are taken away: in pieces that any worker goes on with."""

from typing import Final

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.scoring import DEFAULT_SCORE
from nexus_marketing.db.models import Score, ScoreRecompute
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.scores.looking import Batch
from nexus_marketing.services.scores.scoring import BATCH, WORK, score_leads
from nexus_marketing.services.scores.sheets import published_sheets

#: Rows of one transaction (DATABASE.md).
_PIECE: Final = 2_000
#: How often one waits, and how long, for whoever has the work or an old transaction in hand.
_PATIENCE: Final = 200
_PAUSE_SECONDS: Final = 0.05
#: What a score leaves behind, by table and key, in the order in which it may go.
_ROWS: Final = (
    ("marketing_score_contributions", ("score_id", "rule", "version", "cause", "turn")),
    ("marketing_score_values", ("score_id", "lead_id")),
    ("marketing_score_crossings", ("id",)),
    ("marketing_score_recomputes", ("id",)),
    ("marketing_score_versions", ("score_id", "number")),
)


def request_recompute(ctx: Context, score: Score) -> ScoreRecompute:
    """Have every lead brought to the version in force; what is under way for an older one is over."""
    assert score.published is not None
    for older in _unfinished(ctx, score.id):
        older.finished_at = ctx.now
    row = ScoreRecompute(
        score_id=score.id,
        version=score.published,
        reached=0,
        leads=0,
        changed=0,
        requested_by=ctx.actor.label,
        started_at=ctx.now,
    )
    ctx.session.add(row)
    ctx.session.flush()
    ctx.ring("scores")
    return row


def last_recompute(ctx: Context, score_id: int) -> ScoreRecompute | None:
    """The newest, finished or not."""
    statement = select(ScoreRecompute).where(ScoreRecompute.score_id == score_id)
    return ctx.session.scalars(statement.order_by(ScoreRecompute.id.desc()).limit(1)).first()


def advance_recompute(runtime: Runtime, tenant_id: int) -> int:
    """Do the next piece of a tenant's oldest recompute; answers how many leads were looked at, at least 1 for progress.

    The first piece waits until every transaction that may have been written under the old rules has ended: what
    those did is seen by the recompute, what comes later is marked for the worker.
    """
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if not try_alone(ctx.session, WORK):
            return 0
        row = ctx.session.scalars(
            select(ScoreRecompute).where(ScoreRecompute.finished_at.is_(None)).order_by(ScoreRecompute.id).limit(1)
        ).first()
        if row is None:
            return 0
        if row.fence is None:
            row.fence = queries.present_fence(ctx.session)
            return 1
        if row.reached == 0 and not queries.is_past(ctx.session, row.fence):
            return 0
        return _advance(ctx, row)


def _advance(ctx: Context, row: ScoreRecompute) -> int:
    leads = queries.next_leads(ctx.session, row.reached, BATCH)
    changed = score_leads(ctx, published_sheets(ctx, row.score_id), Batch(set(leads)))
    row.leads += len(leads)
    row.changed += len(changed)
    if leads:
        row.reached = leads[-1]
    if len(leads) < BATCH:
        row.finished_at = ctx.now
        counts = {"version": (None, row.version), "leads": (None, row.leads), "changed": (None, row.changed)}
        record(ctx, "score.recomputed", "score", row.score_id, counts)
    return max(len(leads), 1)


def finish_recompute(runtime: Runtime, tenant_id: int, recompute_id: int) -> None:
    """Go on until it is done; what others hold up for long is left to the workers."""
    idle = 0
    while idle < _PATIENCE:
        with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
            if find(ctx.session, ScoreRecompute, recompute_id).finished_at is not None:
                return
        if not advance_recompute(runtime, tenant_id):
            idle += 1
            runtime.doorbell.wait(_PAUSE_SECONDS)


def clear_removed(runtime: Runtime, tenant_id: int) -> int:
    """Delete a piece of what a removed score left behind, at last the score; answers how many rows."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if not try_alone(ctx.session, WORK):
            return 0
        score = ctx.session.scalars(
            select(Score).where(Score.removed_at.is_not(None)).order_by(Score.id).limit(1)
        ).first()
        if score is None:
            return 0
        for table, keys in _ROWS:
            gone = queries.clear_piece_of_score(ctx.session, table, keys, score.id, _PIECE)
            if gone:
                return gone
        assert score.name != DEFAULT_SCORE
        ctx.session.delete(score)
        return 1


def _unfinished(ctx: Context, score_id: int) -> list[ScoreRecompute]:
    statement = select(ScoreRecompute).where(ScoreRecompute.score_id == score_id, ScoreRecompute.finished_at.is_(None))
    return list(ctx.session.scalars(statement))
