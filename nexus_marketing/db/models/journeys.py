"""Journeys: definitions, published versions, runs of leads through them, and what runs did (BEHAVIOUR.md 5.1)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.journeys.runs import LIVE, RunState
from nexus_marketing.core.journeys.statuses import JourneyStatus, Listens
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, personal, plain, tenant_fk
from nexus_marketing.db.types import OrderedJson

_LIVE = "state IN ({})".format(", ".join(f"'{state}'" for state in sorted(LIVE)))
_ALIVE = text(_LIVE)
_FAILED = text("state = 'failed'")
_ALONE = text(f"is_single AND {_LIVE}")


class Journey(TenantKeyed, Base):
    """What a version is published from. ``published`` is the number of the newest; ``version`` is the optimistic lock.

    ``campaign_id`` is the campaign under which its messages are sent, counted, explained and held.
    """

    __tablename__ = "marketing_journeys"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        one_of("status", JourneyStatus),
        tenant_fk("campaign_id", "marketing_campaigns"),
    )

    name: Mapped[str] = plain()
    draft: Mapped[dict[str, Any]] = plain(OrderedJson)
    status: Mapped[str] = plain(server_default=text("'draft'"))
    #: Where a pause leads back to.
    resumes_to: Mapped[str | None] = plain()
    published: Mapped[int | None] = plain()
    campaign_id: Mapped[int | None] = plain()
    #: What is secret in the address that programs call to bring leads in; nothing where there is none.
    hook_secret: Mapped[str | None] = plain()
    #: When the pause began that holds it.
    paused_at: Mapped[datetime | None] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()


class JourneyVersion(TenantScoped, Base):
    """A version as published. ``document`` is canonical JSON, ``digest`` its SHA-256.

    Segments stand in it by id. ``pins`` names the version of the template of each message and channel. ``patches`` is the
    number of the version before of which it only says something in other words.
    """

    __tablename__ = "marketing_journey_versions"
    __table_args__ = (tenant_fk("journey_id", "marketing_journeys"),)

    journey_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    number: Mapped[int] = plain(primary_key=True, autoincrement=False)
    document: Mapped[str] = plain()
    digest: Mapped[str] = plain()
    pins: Mapped[dict[str, Any]] = plain()
    published_by: Mapped[str] = plain()
    published_at: Mapped[datetime] = plain()
    patches: Mapped[int | None] = plain()


class JourneyListener(TenantScoped, Base):
    """What a journey wants to hear of, so that whoever writes such things finds out by a key."""

    __tablename__ = "marketing_journey_listeners"
    __table_args__ = (one_of("kind", Listens), tenant_fk("journey_id", "marketing_journeys", ondelete="CASCADE"))

    kind: Mapped[str] = plain(primary_key=True)
    name: Mapped[str] = plain(primary_key=True)
    journey_id: Mapped[int] = plain(primary_key=True, autoincrement=False)


class JourneyRun(TenantKeyed, Base):
    """A lead's passage through one version. ``version`` is the optimistic lock, ``wake_at`` a copy of its timer's moment.

    ``snapshot`` holds what only the engine reads. Where a journey takes a lead once at a time (``is_single``), an index
    keeps a second live run out whichever door it comes through.
    """

    __tablename__ = "marketing_journey_runs"
    __table_args__ = (
        one_of("state", RunState),
        tenant_fk(
            ["journey_id", "version_number"],
            "marketing_journey_versions",
            ["journey_id", "number"],
            name="fk_marketing_journey_runs_version",
        ),
        tenant_fk("lead_id", "marketing_leads"),
        UniqueConstraint("tenant_id", "journey_id", "lead_id", "sequence", name="uq_marketing_journey_runs_sequence"),
        Index(
            "uq_marketing_journey_runs_single",
            "tenant_id",
            "journey_id",
            "lead_id",
            unique=True,
            postgresql_where=_ALONE,
            sqlite_where=_ALONE,
        ),
        Index("ix_marketing_journey_runs_lead", "tenant_id", "lead_id", "journey_id"),
        Index(
            "ix_marketing_journey_runs_live",
            "tenant_id",
            "journey_id",
            "id",
            postgresql_where=_ALIVE,
            sqlite_where=_ALIVE,
        ),
        Index("ix_marketing_journey_runs_entered", "tenant_id", "journey_id", "entered_at"),
        Index(
            "ix_marketing_journey_runs_failed", "tenant_id", "ended_at", postgresql_where=_FAILED, sqlite_where=_FAILED
        ),
    )

    journey_id: Mapped[int] = plain()
    version_number: Mapped[int] = plain()
    lead_id: Mapped[int] = plain()
    sequence: Mapped[int] = plain()
    is_single: Mapped[bool] = plain(server_default=false())
    state: Mapped[str] = plain()
    node: Mapped[str] = plain()
    visit: Mapped[int] = plain(server_default=text("0"))
    wake_at: Mapped[datetime | None] = plain()
    wait_token: Mapped[int] = plain(server_default=text("1"))
    version: Mapped[int] = plain(server_default=text("1"))
    #: What may start one run only, such as the number of an order.
    key: Mapped[str | None] = personal()
    snapshot: Mapped[dict[str, Any]] = personal()
    entered_at: Mapped[datetime] = plain()
    ended_at: Mapped[datetime | None] = plain()
    reason: Mapped[str | None] = plain()
    #: When it was begun to take back what it did.
    taken_back_at: Mapped[datetime | None] = plain()


class JourneyStep(TenantKeyed, Base):
    """A line of a run's history; never changed."""

    __tablename__ = "marketing_journey_steps"
    __table_args__ = (
        tenant_fk("run_id", "marketing_journey_runs"),
        Index("ix_marketing_journey_steps_run", "tenant_id", "run_id", "id"),
    )

    run_id: Mapped[int] = plain()
    at: Mapped[datetime] = plain()
    said: Mapped[str] = plain()
    node: Mapped[str] = plain()
    detail: Mapped[dict[str, Any]] = plain()


class JourneyArrival(TenantKeyed, Base):
    """What was decided when something brought a lead to a journey: ``run_id``, or the reason of the refusal.

    ``occurrence`` is what makes it the same arrival when it is told again.
    """

    __tablename__ = "marketing_journey_arrivals"
    __table_args__ = (
        tenant_fk("journey_id", "marketing_journeys"),
        UniqueConstraint(
            "tenant_id", "journey_id", "lead_id", "occurrence", name="uq_marketing_journey_arrivals_occurrence"
        ),
    )

    journey_id: Mapped[int] = plain()
    lead_id: Mapped[int] = plain()
    occurrence: Mapped[str] = plain()
    outcome: Mapped[str] = plain()
    run_id: Mapped[int | None] = plain()
    at: Mapped[datetime] = plain()


class JourneyApproval(TenantKeyed, Base):
    """A question that a run waits with. ``asked`` is who may answer, ``token`` the wait that the answer is meant for.

    ``answer`` is ``approved`` or ``rejected``; of a question that was closed without one it is ``expired``.
    """

    __tablename__ = "marketing_journey_approvals"
    __noun__ = "approval"
    __table_args__ = (
        tenant_fk("journey_id", "marketing_journeys"),
        tenant_fk("run_id", "marketing_journey_runs"),
        UniqueConstraint("tenant_id", "run_id", "token", name="uq_marketing_journey_approvals_token"),
        Index(
            "ix_marketing_journey_approvals_open",
            "tenant_id",
            "journey_id",
            "id",
            postgresql_where=text("closed_at IS NULL"),
            sqlite_where=text("closed_at IS NULL"),
        ),
    )

    journey_id: Mapped[int] = plain()
    run_id: Mapped[int] = plain()
    node: Mapped[str] = plain()
    asked: Mapped[str] = plain()
    token: Mapped[int] = plain()
    asked_at: Mapped[datetime] = plain()
    due_at: Mapped[datetime | None] = plain()
    closed_at: Mapped[datetime | None] = plain()
    answer: Mapped[str | None] = plain()
    answered_by: Mapped[str | None] = plain()
