"""Scores of leads: their rules, what points were given for, and the values that are shown."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.scoring.contributions import ContributionKind
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, personal, plain, tenant_fk
from nexus_marketing.db.types import Json

_DUE = text("next_change_at IS NOT NULL")
_REMOVED = text("removed_at IS NOT NULL")
_UNFINISHED = text("finished_at IS NULL")


class Score(TenantKeyed, Base):
    """A named score. The one called ``score`` is the lead's own column; the others lie in :class:`ScoreValue`.

    ``draft`` is worked on, ``published`` is the number of the version in force; ``events`` and ``reads`` say what
    its rules ask for, so that whoever writes something else need not wake anybody. ``removed_at``: workers take
    its rows away.
    """

    __tablename__ = "marketing_scores"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        Index(
            "ix_marketing_scores_removed",
            "tenant_id",
            "id",
            postgresql_where=_REMOVED,
            sqlite_where=_REMOVED,
        ),
    )

    name: Mapped[str] = plain()
    description: Mapped[str] = plain(server_default=text("''"))
    draft: Mapped[dict[str, Any] | None] = plain(Json)
    published: Mapped[int | None] = plain()
    events: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    reads: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
    removed_at: Mapped[datetime | None] = plain()


class ScoreVersion(TenantScoped, Base):
    """A published rule set; never changed, so that every contribution can be explained."""

    __tablename__ = "marketing_score_versions"
    __table_args__ = (tenant_fk("score_id", "marketing_scores"),)

    score_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    number: Mapped[int] = plain(primary_key=True, autoincrement=False)
    rules: Mapped[dict[str, Any]] = plain(Json)
    fire_on_recompute: Mapped[bool] = plain(server_default=text("false"))
    published_by: Mapped[str] = plain()
    published_at: Mapped[datetime] = plain()


class ScoreContribution(TenantScoped, Base):
    """Points given or taken back (``core.scoring.contributions``); appended, never changed but for whose they are.

    The key does not name the lead: an engagement counts once, also while one lead becomes another.
    """

    __tablename__ = "marketing_score_contributions"
    __table_args__ = (
        tenant_fk("score_id", "marketing_scores"),
        tenant_fk("lead_id", "marketing_leads"),
        one_of("kind", ContributionKind),
        Index("ix_marketing_score_contributions_lead", "tenant_id", "lead_id", "score_id", "at"),
    )

    score_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    rule: Mapped[str] = plain(primary_key=True)
    version: Mapped[int] = plain(primary_key=True, autoincrement=False)
    cause: Mapped[int] = plain(primary_key=True, autoincrement=False)
    turn: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int] = plain()
    kind: Mapped[str] = plain()
    points: Mapped[float] = plain()
    at: Mapped[datetime] = plain()
    actor: Mapped[str | None] = plain()
    #: What somebody wrote when setting a score by hand.
    reason: Mapped[str | None] = personal()


class ScoreValue(TenantScoped, Base):
    """A lead's score as it is shown, by which version, where it stands at thresholds, and when time changes it."""

    __tablename__ = "marketing_score_values"
    __table_args__ = (
        tenant_fk("score_id", "marketing_scores"),
        tenant_fk("lead_id", "marketing_leads"),
        Index("ix_marketing_score_values_lead", "tenant_id", "lead_id"),
        Index(
            "ix_marketing_score_values_due",
            "tenant_id",
            "next_change_at",
            postgresql_where=_DUE,
            sqlite_where=_DUE,
        ),
    )

    score_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    value: Mapped[float] = plain()
    version: Mapped[int] = plain()
    marks: Mapped[dict[str, Any]] = plain(server_default=text("'{}'"))
    next_change_at: Mapped[datetime | None] = plain()
    computed_at: Mapped[datetime] = plain()


class ScoreCrossing(TenantKeyed, Base):
    """A threshold that a lead crossed, with the scores before and after; written with the change itself."""

    __tablename__ = "marketing_score_crossings"
    __table_args__ = (
        tenant_fk("score_id", "marketing_scores"),
        tenant_fk("lead_id", "marketing_leads"),
        Index("ix_marketing_score_crossings_lead", "tenant_id", "lead_id", "id"),
    )

    score_id: Mapped[int] = plain()
    lead_id: Mapped[int] = plain()
    threshold: Mapped[str] = plain()
    direction: Mapped[str] = plain()
    before: Mapped[float] = plain()
    after: Mapped[float] = plain()
    at: Mapped[datetime] = plain()


class ScoreMark(TenantKeyed, Base):
    """A lead whose scores are to be looked at; ``since`` to ``until``: it did something in that time.

    Appended in the transaction of whatever touched the lead, taken by the worker that looks.
    """

    __tablename__ = "marketing_score_marks"
    __table_args__ = (Index("ix_marketing_score_marks_tenant_id_lead_id", "tenant_id", "lead_id"),)

    lead_id: Mapped[int] = plain()
    since: Mapped[datetime | None] = plain()
    until: Mapped[datetime | None] = plain()


class ScoreRecompute(TenantKeyed, Base):
    """The way of a new version through all leads, in pieces; ``reached`` is committed with each.

    ``fence`` is the transaction that everything written under the old rules came before (PostgreSQL).
    """

    __tablename__ = "marketing_score_recomputes"
    __table_args__ = (
        tenant_fk("score_id", "marketing_scores"),
        Index("ix_marketing_score_recomputes_score", "tenant_id", "score_id", "id"),
        Index(
            "ix_marketing_score_recomputes_unfinished",
            "tenant_id",
            "id",
            postgresql_where=_UNFINISHED,
            sqlite_where=_UNFINISHED,
        ),
    )

    score_id: Mapped[int] = plain()
    version: Mapped[int] = plain()
    fence: Mapped[int | None] = plain()
    reached: Mapped[int] = plain(server_default=text("0"))
    leads: Mapped[int] = plain(server_default=text("0"))
    changed: Mapped[int] = plain(server_default=text("0"))
    requested_by: Mapped[str] = plain()
    started_at: Mapped[datetime] = plain()
    finished_at: Mapped[datetime | None] = plain()
