"""Campaigns and their own timeline."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, SmallInteger, text, true
from sqlalchemy.orm import Mapped

from nexus_marketing.core.campaigns import CampaignStatus, MessageClass
from nexus_marketing.db.base import Base, TenantKeyed, one_of, plain, tenant_fk
from nexus_marketing.db.types import OrderedJson


class Campaign(TenantKeyed, Base):
    """A message for an audience, with one of the requirements' six statuses (DESIGN.md 4.17).

    Money is in integer minor units of ``currency``. ``version`` is the optimistic lock.
    """

    __tablename__ = "marketing_campaigns"
    __table_args__ = (
        one_of("status", CampaignStatus),
        one_of("message_class", MessageClass),
        tenant_fk("segment_id", "marketing_segments"),
        tenant_fk("template_id", "marketing_templates"),
        tenant_fk("owner_id", "marketing_members"),
        # One marketing state per subject and name, whichever process loads the object (BR-007).
        Index(
            "uq_marketing_campaigns_subject",
            "tenant_id",
            "subject_type",
            "subject_id",
            "campaign_key",
            unique=True,
            postgresql_where=text("campaign_key IS NOT NULL"),
            sqlite_where=text("campaign_key IS NOT NULL"),
        ),
        # For the sweep that takes moves whose time has come: its size is what waits, not what ever ran.
        Index(
            "ix_marketing_campaigns_tick",
            "tick_at",
            "tenant_id",
            "id",
            postgresql_where=text("tick_at IS NOT NULL"),
            sqlite_where=text("tick_at IS NOT NULL"),
        ),
        Index("ix_marketing_campaigns_tenant_id_status_created_at", "tenant_id", "status", "created_at"),
        Index("ix_marketing_campaigns_tenant_id_created_at", "tenant_id", "created_at"),
    )

    name: Mapped[str] = plain()
    status: Mapped[str] = plain()
    status_reason: Mapped[str | None] = plain()
    message_class: Mapped[str] = plain()
    channel: Mapped[str] = plain()
    #: Where it goes out by several at once: a template for each (core.fan_out); ``channel`` is the first of them then.
    channels: Mapped[dict[str, Any] | None] = plain(OrderedJson)
    #: How many of them have to be through before it goes on: ``all``, ``any`` or a number (BR-008).
    wait_for: Mapped[str] = plain(server_default=text("'all'"))
    #: Nobody gets it before the own clock shows this: ``YYYY-MM-DDThh:mm``, without a zone.
    local_start: Mapped[str | None] = plain()
    #: Who goes first where two are due for the same lead: 0 to 100, the higher.
    priority: Mapped[int] = plain(SmallInteger, server_default=text("50"))
    obeys_caps: Mapped[bool] = plain(server_default=true())
    counts_toward_caps: Mapped[bool] = plain(server_default=true())
    segment_id: Mapped[int | None] = plain()
    template_id: Mapped[int | None] = plain()
    owner_id: Mapped[int | None] = plain()
    subject_type: Mapped[str | None] = plain()
    subject_id: Mapped[str | None] = plain()
    #: The name it is declared under, where it is about a subject.
    campaign_key: Mapped[str | None] = plain()
    #: The id it had before it came into the database.
    external_id: Mapped[str | None] = plain()
    #: No foreign key: definitions are never deleted, and what runs pins a version by its text.
    definition_id: Mapped[int | None] = plain()
    #: Of the published definition it is pinned to.
    definition_version: Mapped[str | None] = plain()
    #: The program's own definition where it is not pinned to one: workers take its moves by it.
    program: Mapped[dict[str, Any] | None] = plain(OrderedJson)
    #: Moves that the program has code for: workers leave them to it.
    attended: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    #: The definition's own name for where it is; ``status`` is what that means.
    stage: Mapped[str | None] = plain()
    resumes_to: Mapped[str | None] = plain()
    counters: Mapped[dict[str, Any]] = plain(server_default=text("'{}'"))
    data: Mapped[dict[str, Any]] = plain()
    budget_minor: Mapped[int | None] = plain()
    currency: Mapped[str | None] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
    started_at: Mapped[datetime | None] = plain()
    completed_at: Mapped[datetime | None] = plain()
    #: When it failed: what it did is taken back from then on.
    failed_at: Mapped[datetime | None] = plain()
    #: When it is sent again and again (core.pacing.recurrence), and when next.
    recurrence: Mapped[dict[str, Any] | None] = plain()
    next_run_at: Mapped[datetime | None] = plain()
    #: How fast each of its sends may be (core.pacing.rates.check_own_rates).
    send_rates: Mapped[list[Any] | None] = plain()
    #: When a queued campaign becomes active.
    starts_at: Mapped[datetime | None] = plain()
    #: When the clock may next move it (core.engine.lifecycle.next_look).
    tick_at: Mapped[datetime | None] = plain()


class History(TenantKeyed, Base):
    """What happened to a campaign, in its own words; only ever appended to."""

    __tablename__ = "marketing_history"
    __table_args__ = (
        tenant_fk("campaign_id", "marketing_campaigns"),
        Index("ix_marketing_history_tenant_id_campaign_id_id", "tenant_id", "campaign_id", "id"),
    )

    campaign_id: Mapped[int] = plain()
    #: The campaign's version that this made; 0 for lines from before versions were kept here.
    version: Mapped[int] = plain(server_default=text("0"))
    event: Mapped[str] = plain()
    before: Mapped[dict[str, Any]] = plain()
    after: Mapped[dict[str, Any]] = plain()
    actor: Mapped[str] = plain()
    actor_id: Mapped[int | None] = plain()
    payload: Mapped[dict[str, Any]] = plain()
    at: Mapped[datetime] = plain()
