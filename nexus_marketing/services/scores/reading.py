"""Scores to look at: a lead's, what each is made of, and what a draft would make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, NotFound
from nexus_marketing.core.scoring import (
    DEFAULT_SCORE,
    Fold,
    Ledger,
    RuleSet,
    canonical_rules,
    fold,
    settle_versions,
)
from nexus_marketing.core.scoring.folding import Part
from nexus_marketing.db.models import Lead, Score, ScoreCrossing, ScoreValue
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.fields import declared_fields
from nexus_marketing.services.leads.lookup import find_lead
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.scores.looking import Batch, Change, known_of, look_at
from nexus_marketing.services.scores.records import show_score, version_of
from nexus_marketing.services.scores.sheets import Sheet, published_sheets, scorer_of, unruled

#: Contributions that an explanation lists; the newest.
SHOWN: Final = 500
_CROSSINGS: Final = 20


@dataclass(frozen=True, slots=True)
class LeadScore:
    """A score of a lead as it is shown; without a moment where nothing was ever computed."""

    name: str
    value: float
    version: int
    computed_at: datetime | None = None
    next_change_at: datetime | None = None
    marks: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a score is made of at a moment. ``fold.value`` is exact as of then, ``shown`` is what was stored last."""

    name: str
    shown: float
    version: int
    as_of: datetime
    rules: RuleSet
    fold: Fold
    crossings: Sequence[ScoreCrossing]

    @property
    def parts(self) -> Sequence[Part]:
        """The newest contributions, newest first."""
        return self.fold.parts[: -SHOWN - 1 : -1]


def scores_of_lead(ctx: Context, lead_id: int) -> list[LeadScore]:
    """Every score of a lead; its own comes first.

    Raises:
        NotFound: there is no such lead; ``Merged`` and ``Gone`` where there was.
    """
    find_lead(ctx, lead_id)
    return scores_of_leads(ctx, [lead_id])[lead_id]


def scores_of_leads(ctx: Context, lead_ids: Sequence[int]) -> dict[int, list[LeadScore]]:
    """The same of several: three statements, however many they are."""
    named = ctx.session.execute(
        select(Score.id, Score.name, Score.published).where(Score.removed_at.is_(None)).order_by(Score.name)
    ).all()
    own = next((row for row in named if row.name == DEFAULT_SCORE), None)
    others = [row for row in named if row is not own and row.published is not None]
    stored = ctx.session.scalars(select(ScoreValue).where(ScoreValue.lead_id.in_(lead_ids))).all()
    values = {(row.score_id, row.lead_id): row for row in stored}
    found: dict[int, list[LeadScore]] = {}
    for lead_id, score in ctx.session.execute(select(Lead.id, Lead.score).where(Lead.id.in_(lead_ids))):
        row = None if own is None else values.get((own.id, lead_id))
        found[lead_id] = [
            _shown(DEFAULT_SCORE, row, score, (own.published or 0) if own is not None else 0),
            *(_shown(each.name, values.get((each.id, lead_id)), None, each.published) for each in others),
        ]
    return found


def explain_score(ctx: Context, lead_id: int, name: str) -> Explanation:
    """What a lead's score is made of now, by the rules in force.

    Raises:
        NotFound: there is no such lead, or no such score with rules in force.
    """
    lead = find_lead(ctx, lead_id)
    sheet = _sheet(ctx, name)
    known, is_stored = known_of(ctx, sheet, lead_id)
    found = fold(sheet.scorer.rules, Ledger(known.contributions).standing(), ctx.now)
    crossings = ctx.session.scalars(
        select(ScoreCrossing)
        .where(ScoreCrossing.lead_id == lead_id, ScoreCrossing.score_id == sheet.score_id)
        .order_by(ScoreCrossing.id.desc())
        .limit(_CROSSINGS)
    ).all()
    shown = lead.score if sheet.is_own else known.value
    version = known.version if is_stored else sheet.number
    return Explanation(name, shown, version, ctx.now, sheet.scorer.rules, found, crossings)


def preview(
    ctx: Context,
    score_id: int,
    *,
    draft: Mapping[str, Any] | None = None,
    lead_ids: Sequence[int] = (),
    sample: int = 20,
) -> list[Change]:
    """What a draft would make of leads' scores, without storing anything.

    Args:
        ctx: a unit of work that only reads.
        score_id: whose rules.
        draft: a rule set; the one that is kept where none is given.
        lead_ids: of whom; ids that are no lead of the tenant are left out.
        sample: the newest so many, where no ids are given.

    Raises:
        Conflict: there is no draft to look at.
        ValidationError: every fault of the draft.
    """
    score = show_score(ctx, score_id)
    given = draft if draft is not None else score.draft
    if given is None:
        raise Conflict(f"Score {score.name} has no draft: write one, or send one along.")
    before = None if score.published is None else version_of(ctx, score.id, score.published).rules
    number = (score.published or 0) + 1
    conditions = conditions_of(ctx)
    document = settle_versions(canonical_rules(given, declared_fields(ctx), conditions=conditions), before, number)
    sheet = Sheet(score.id, score.name, number, scorer_of(document, conditions), ctx.now)
    ids = list(lead_ids) or queries.newest_leads(ctx.session, sample)
    return look_at(ctx, [sheet], queries.read_records(ctx.session, ids), Batch())


def _sheet(ctx: Context, name: str) -> Sheet:
    row = ctx.session.execute(
        select(Score.id, Score.published).where(Score.name == name, Score.removed_at.is_(None))
    ).first()
    if row is not None and row.published is not None:
        return published_sheets(ctx, row.id)[0]
    if name == DEFAULT_SCORE:
        return unruled(0 if row is None else row.id)
    raise NotFound(f"There is no score {name[:64]!a} with rules in force.")


def _shown(name: str, row: ScoreValue | None, own: float | None, published: int) -> LeadScore:
    if row is None:
        return LeadScore(name, own or 0.0, published)
    value = row.value if own is None else own
    return LeadScore(name, value, row.version, row.computed_at, row.next_change_at, row.marks)
