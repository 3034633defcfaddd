"""Questions that runs wait with: asked of a role or a member, answered once, closed where a run waits no longer."""

from datetime import datetime
from typing import Final

from sqlalchemy import update

from nexus_marketing.core.errors import Conflict, PermissionDenied
from nexus_marketing.core.journeys.runs import Answered, AskApproval
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.values import email_norm
from nexus_marketing.db.models import Journey, JourneyApproval, JourneyRun, Member
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record

APPROVED: Final = "approved"
REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
#: They may answer whatever is asked.
_ANYTHING: Final = ("owner", "admin")


def ask(ctx: Context, row: JourneyRun, question: AskApproval) -> None:
    """Write the question down: it is open until somebody answers or the run goes on."""
    ctx.session.add(
        JourneyApproval(
            journey_id=row.journey_id,
            run_id=row.id,
            node=question.node,
            asked=question.by,
            token=question.token,
            asked_at=ctx.now,
            due_at=question.until,
        )
    )
    ctx.session.flush()


def close_questions(ctx: Context, run_id: int, before: int, now: datetime) -> None:
    """Nobody need answer what a run asked in waits before this token."""
    open_ones = (
        JourneyApproval.run_id == run_id,
        JourneyApproval.token < before,
        JourneyApproval.closed_at.is_(None),
    )
    ctx.session.execute(update(JourneyApproval).where(*open_ones).values(closed_at=now, answer=EXPIRED))


def may_answer(ctx: Context, question: JourneyApproval) -> bool:
    """Whether whoever acts is the member or has the role that is asked; an operator's command is always heard."""
    if ctx.actor.member_id is None:
        return ctx.actor.label == "cli"
    member = find(ctx.session, Member, ctx.actor.member_id)
    if member.role in _ANYTHING or question.asked in (member.role, str(member.id)):
        return True
    return email_norm(question.asked) == member.email_norm


def close_answered(ctx: Context, question: JourneyApproval, *, approved: bool) -> Answered:
    """Note the answer, so that the run can be told; what the run makes of it follows in this transaction.

    Raises:
        PermissionDenied: somebody else is asked.
        Conflict: it was answered already, the run waits no longer, or the journey is paused.
    """
    if question.closed_at is not None:
        raise Conflict(f"The question is closed ({question.answer}): nothing waits for it.", answer=question.answer)
    if not may_answer(ctx, question):
        remedy = "sign in as such a member, or use a key of theirs (nexus-marketing keys create --member)"
        said = f"This is asked of {question.asked}: {remedy}."
        raise PermissionDenied(said)
    if find(ctx.session, Journey, question.journey_id).status == JourneyStatus.PAUSED:
        raise Conflict("The journey is paused: resume it, then answer.", status=JourneyStatus.PAUSED)
    question.closed_at, question.answered_by = ctx.now, ctx.actor.label
    question.answer = APPROVED if approved else REJECTED
    ctx.session.flush()
    changes = {"answer": (None, question.answer), "run_id": (None, question.run_id)}
    record(ctx, "journey.answered", "journey", question.journey_id, changes)
    return Answered(question.token, approved)
