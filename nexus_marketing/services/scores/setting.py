"""Scores set by hand: the difference is a contribution with its actor and reason, beside those of rules."""

import math

from sqlalchemy import select

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.events import LeadUpdated
from nexus_marketing.core.scoring import DEFAULT_SCORE, Contribution, ContributionKind, set_to
from nexus_marketing.core.values import canonical_number
from nexus_marketing.db.models import Lead, Score
from nexus_marketing.db.queries.scoring import ensure_score, lock_records
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.scores.looking import Batch, Change, as_read, known_of
from nexus_marketing.services.scores.scoring import score_leads
from nexus_marketing.services.scores.sheets import Sheet, published_sheets, unruled
from nexus_marketing.services.scores.storing import store_changes
from nexus_marketing.services.versions import find_to_change


def set_score(ctx: Context, lead_id: int, score: float, reason: str) -> Lead:
    """Set a lead's own score.

    What the number lacks becomes a contribution; it ages as the rules in force say, and events go on counting.

    Args:
        reason: why, for whoever asks how the score came about; erased with the lead.

    Raises:
        ValidationError: the score is no finite number, or lies beyond the bounds of the rules.
    """
    if isinstance(score, bool) or not math.isfinite(score):
        raise ValidationError.at("score", "not_a_number", f"score is a finite number, not {score!r}.")
    lead = find_to_change(ctx, Lead, lead_id)
    sheet, wanted = _own_sheet(ctx), float(canonical_number(score, "score"))
    _check_bounds(sheet, wanted)
    score_leads(ctx, [sheet], Batch({lead_id}))
    ctx.session.refresh(lead)
    before = lead.score
    if before == wanted:
        return lead
    lead.version += 1
    lead.updated_at = ctx.now
    ctx.session.flush()
    change = _change(ctx, sheet, lead, wanted, reason)
    store_changes(ctx, [change])
    ctx.session.refresh(lead)
    record(
        ctx,
        "lead.scored",
        "lead",
        lead_id,
        {"score": (before, lead.score), "reason": (None, reason)},
        personal={"reason"},
        lead_id=lead_id,
    )
    ctx.emit(LeadUpdated(lead.tenant_id, ctx.now, lead_id))
    return lead


def _own_sheet(ctx: Context) -> Sheet:
    """The rules of the lead's own score, or none; its row is made where there is none yet."""
    found = next((sheet for sheet in published_sheets(ctx) if sheet.is_own), None)
    if found is not None:
        return found
    ensure_score(ctx.session, DEFAULT_SCORE, ctx.now)
    return unruled(ctx.session.scalars(select(Score.id).where(Score.name == DEFAULT_SCORE)).one())


def _check_bounds(sheet: Sheet, wanted: float) -> None:
    rules = sheet.scorer.rules
    if (rules.low is not None and wanted < rules.low) or (rules.high is not None and wanted > rules.high):
        bounds = f"{'' if rules.low is None else f'{rules.low:g}'} to {'' if rules.high is None else f'{rules.high:g}'}"
        raise ValidationError.at(
            "score", "out_of_bounds", f"{wanted:g} lies beyond the rules of this score, which allow {bounds}."
        )


def _change(ctx: Context, sheet: Sheet, lead: Lead, wanted: float, reason: str) -> Change:
    (row,) = lock_records(ctx.session, [lead.id])
    known, is_stored = known_of(ctx, sheet, lead.id)
    cause = ctx.runtime.rng.getrandbits(52)
    given = Contribution(ContributionKind.MANUAL, "", 0, cause, 0, 0.0, ctx.now, ctx.actor.label, reason)
    flip = sheet.scorer.next_flip(as_read(row), ctx.now)
    return Change(sheet, lead.id, known, set_to(sheet.scorer.rules, known, wanted, given, flip, ctx.now), is_stored)
