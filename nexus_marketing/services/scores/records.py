"""Named scores and their rule sets: worked on as a draft, published as versions that never change (FR-P2-010)."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.errors import Conflict, NotFound, ValidationError
from nexus_marketing.core.journeys import TriggerKind
from nexus_marketing.core.journeys.crossings import names_of
from nexus_marketing.core.journeys.statuses import Listens
from nexus_marketing.core.scoring import DEFAULT_SCORE, canonical_rules, settle_versions
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import JourneyListener, Score, ScoreRecompute, ScoreVersion
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.rows import listening, newest_version
from nexus_marketing.services.leads.fields import declared_fields
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.scores.recomputing import request_recompute
from nexus_marketing.services.scores.sheets import scorer_of
from nexus_marketing.services.segments.rules import readers_of_score
from nexus_marketing.services.versions import find_to_change

_MAX_SCORES: Final = 20


def create_score(ctx: Context, data: Mapping[str, Any]) -> Score:
    """Write down a score; it counts once a version of its rules is published.

    Args:
        data: ``name`` (``score`` is the lead's own), ``description`` and ``draft`` (``core.scoring``'s document).

    Raises:
        ValidationError: every fault of the draft; or the tenant has as many scores as fit.
        Conflict: the name is taken.
    """
    values = canonical(dict(data))
    if len(list_scores(ctx)) >= _MAX_SCORES:
        raise ValidationError.at("name", "too_many", f"There are {_MAX_SCORES} scores: remove one first.")
    score = Score(
        name=values["name"],
        description=values.get("description") or "",
        draft=_draft(ctx, values.get("draft")),
        events=[],
        reads=[],
        version=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(score)
    try:
        ctx.session.flush()
    except IntegrityError as error:
        message = f"name: there is a score {score.name!r} already: change its draft, or choose another name."
        raise Conflict(message, field="name") from error
    record(ctx, "score.created", "score", score.id, {"name": (None, score.name)})
    return score


def update_score(ctx: Context, score_id: int, data: Mapping[str, Any], *, expected_version: int | None = None) -> Score:
    """Change the description or the draft; what is published stays in force.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: every fault of the draft.
    """
    score = find_score(ctx, score_id, expected_version)
    values = canonical(dict(data))
    if values.get("name", score.name) != score.name:
        raise ValidationError.at("name", "fixed", f"The score stays {score.name}: conditions and programs name it.")
    changes: dict[str, tuple[object, object]] = {}
    if "description" in values:
        changes["description"] = (score.description, values["description"] or "")
        score.description = values["description"] or ""
    if "draft" in values:
        draft = _draft(ctx, values["draft"])
        changes["draft"] = (score.draft, draft)
        score.draft = draft
    _touch(ctx, score)
    record(ctx, "score.updated", "score", score.id, changes)
    return score


def publish_score(
    ctx: Context, score_id: int, *, fire_on_recompute: bool = False, expected_version: int | None = None
) -> ScoreRecompute:
    """Put the draft in force as a new version, and have every lead's score computed by it.

    Args:
        fire_on_recompute: whether thresholds tell of crossings that the new rules make of the past.

    Raises:
        Conflict: there is no draft.
        ValidationError: the draft no longer fits the tenant's fields.
    """
    score = find_score(ctx, score_id, expected_version)
    if score.draft is None:
        raise Conflict(f"Score {score.name} has no draft: write one, or ask for it to be recomputed.")
    before = None if score.published is None else version_of(ctx, score.id, score.published).rules
    number = (score.published or 0) + 1
    document = settle_versions(_draft(ctx, score.draft) or {}, before, number)
    ctx.session.add(
        ScoreVersion(
            score_id=score.id,
            number=number,
            rules=document,
            fire_on_recompute=fire_on_recompute,
            published_by=ctx.actor.label,
            published_at=ctx.now,
        )
    )
    rules = scorer_of(document, conditions_of(ctx)).rules
    score.published, score.draft = number, None
    score.events = sorted(rules.events)
    # Who writes the lead's own number is to be heard too.
    score.reads = sorted({*rules.reads(), *([DEFAULT_SCORE] if score.name == DEFAULT_SCORE else [])})
    _touch(ctx, score)
    record(ctx, "score.published", "score", score.id, {"version": (number - 1 or None, number)})
    return request_recompute(ctx, score)


def recompute_score(ctx: Context, score_id: int) -> ScoreRecompute:
    """Have every lead's score looked at again under the version in force.

    Raises:
        Conflict: no version has been published.
    """
    score = find_score(ctx, score_id)
    if score.published is None:
        raise Conflict(f"Score {score.name} has no rules in force: publish its draft first.")
    record(ctx, "score.recompute_requested", "score", score.id, {"version": (None, score.published)})
    return request_recompute(ctx, score)


def remove_score(ctx: Context, score_id: int, *, expected_version: int | None = None) -> None:
    """Take a score away with everything it counted; workers delete its rows after commit.

    Raises:
        Conflict: it is the lead's own score, segments read it, or journeys begin where it crosses something.
    """
    score = find_score(ctx, score_id, expected_version)
    if score.name == DEFAULT_SCORE:
        raise Conflict("score is the lead's own and stays: publish rules without points to empty it.")
    segments, journeys = readers_of_score(ctx, score.name), _journeys_after(ctx, score.name)
    readers = [*segments, *journeys]
    if readers:
        named = [*(f"segment {name!r}" for name in segments), *(f"journey {name!r}" for name in journeys)]
        said = ", ".join(named[:10])
        raise Conflict(f"{score.name} cannot be removed: {said} read it. Change them first.", used_by=readers)
    before, score.removed_at = score.name, ctx.now
    score.name = f"{score.name} removed {score.id}"  # somebody may take the name again
    _touch(ctx, score)
    record(ctx, "score.removed", "score", score.id, {"name": (before, None)})
    ctx.ring("scores")


def list_scores(ctx: Context) -> list[Score]:
    """The tenant's scores, by name; there are few."""
    return list(ctx.session.scalars(select(Score).where(Score.removed_at.is_(None)).order_by(Score.name)))


def find_score(ctx: Context, score_id: int, expected_version: int | None = None) -> Score:
    """A score to change.

    Raises:
        NotFound: there is none, or it is being removed.
        StaleVersion: ``expected_version`` is not the current one.
    """
    score = find_to_change(ctx, Score, score_id, expected_version)
    refuse_removed(score)
    return score


def show_score(ctx: Context, score_id: int) -> Score:
    """A score to look at.

    Raises:
        NotFound: there is none, or it is being removed.
    """
    score = find(ctx.session, Score, score_id)
    refuse_removed(score)
    return score


def refuse_removed(score: Score) -> None:
    """Pass a score that is there.

    Raises:
        NotFound: it is being removed.
    """
    if score.removed_at is not None:
        raise NotFound(f"There is no score {score.id}.", id=score.id)


def version_of(ctx: Context, score_id: int, number: int) -> ScoreVersion:
    """A published version."""
    wanted = (ScoreVersion.score_id == score_id, ScoreVersion.number == number)
    return ctx.session.scalars(select(ScoreVersion).where(*wanted)).one()


def versions_of(ctx: Context, score_id: int, most: int = 100) -> list[ScoreVersion]:
    """Published versions, newest first."""
    show_score(ctx, score_id)
    statement = select(ScoreVersion).where(ScoreVersion.score_id == score_id)
    return list(ctx.session.scalars(statement.order_by(ScoreVersion.number.desc()).limit(most)))


def _journeys_after(ctx: Context, name: str) -> list[str]:
    """What journeys are called whose newest version lets people in where a score crosses a threshold."""
    begins = names_of(name)
    heard = (JourneyListener.kind == Listens.EVENT, JourneyListener.name.startswith(begins, autoescape=True))
    listened = set(ctx.session.scalars(select(JourneyListener.name).where(*heard)))
    return [
        row.name
        for row in listening(ctx, Listens.EVENT, listened)
        if any(each.on is TriggerKind.SCORE and each.name == name for each in newest_version(ctx, row).entry.triggers)
    ]


def _draft(ctx: Context, given: Any) -> dict[str, Any] | None:
    return None if given is None else canonical_rules(given, declared_fields(ctx), conditions=conditions_of(ctx))


def _touch(ctx: Context, score: Score) -> None:
    score.version += 1
    score.updated_at = ctx.now
    ctx.session.flush()
