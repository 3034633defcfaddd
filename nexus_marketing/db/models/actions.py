"""Actions that were asked for by name, and what became of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.actions import ActionSource, ActionState
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, personal, plain, tenant_fk

_ILL = text("state IN ('failed', 'paused')")
_OPEN = text("state IN ('waiting', 'paused') AND campaign_id IS NOT NULL")
_TO_UNDO = text("state = 'done' AND compensation IS NOT NULL AND undone_at IS NULL")


class CampaignListener(TenantScoped, Base):
    """What an active campaign wants to hear of, so that whoever writes such things finds out by a key."""

    __tablename__ = "marketing_campaign_listeners"
    __table_args__ = (tenant_fk("campaign_id", "marketing_campaigns", ondelete="CASCADE"),)

    name: Mapped[str] = plain(primary_key=True)
    campaign_id: Mapped[int] = plain(primary_key=True, autoincrement=False)


class TakenAction(TenantKeyed, Base):
    """An action for one occurrence: whoever asks again under ``key`` gets this one.

    ``attempts`` counts those that were begun, each committed before anything was done. ``compensation`` is the action
    that takes it back; ``undoes`` is what this one takes back. ``run_id`` is the run of a journey that asked for it.
    """

    __tablename__ = "marketing_actions"
    __noun__ = "action"
    __table_args__ = (
        one_of("state", ActionState),
        one_of("source", ActionSource),
        tenant_fk("campaign_id", "marketing_campaigns"),
        tenant_fk("lead_id", "marketing_leads"),
        UniqueConstraint("tenant_id", "key"),
        Index("ix_marketing_actions_lead", "tenant_id", "lead_id"),
        Index("ix_marketing_actions_ill", "tenant_id", "id", postgresql_where=_ILL, sqlite_where=_ILL),
        Index(
            "ix_marketing_actions_open", "tenant_id", "campaign_id", "id", postgresql_where=_OPEN, sqlite_where=_OPEN
        ),
        Index(
            "ix_marketing_actions_to_undo",
            "tenant_id",
            "campaign_id",
            "settled_at",
            "id",
            postgresql_where=_TO_UNDO,
            sqlite_where=_TO_UNDO,
        ),
        Index(
            "ix_marketing_actions_campaign",
            "tenant_id",
            "campaign_id",
            "id",
            postgresql_where=text("campaign_id IS NOT NULL"),
            sqlite_where=text("campaign_id IS NOT NULL"),
        ),
        Index(
            "ix_marketing_actions_run",
            "tenant_id",
            "run_id",
            "id",
            postgresql_where=text("run_id IS NOT NULL"),
            sqlite_where=text("run_id IS NOT NULL"),
        ),
    )

    key: Mapped[str] = plain()
    name: Mapped[str] = plain()
    source: Mapped[str] = plain()
    campaign_id: Mapped[int | None] = plain()
    lead_id: Mapped[int | None] = plain()
    data: Mapped[dict[str, Any]] = personal()
    compensation: Mapped[str | None] = plain()
    undoes: Mapped[int | None] = plain()
    run_id: Mapped[int | None] = plain()
    state: Mapped[str] = plain(server_default=text("'waiting'"))
    reason: Mapped[str | None] = plain()
    #: The plugin's own words.
    detail: Mapped[str] = personal(server_default=text("''"))
    attempts: Mapped[int] = plain(server_default=text("0"))
    created_at: Mapped[datetime] = plain()
    settled_at: Mapped[datetime | None] = plain()
    #: When somebody began to take it back.
    undone_at: Mapped[datetime | None] = plain()
