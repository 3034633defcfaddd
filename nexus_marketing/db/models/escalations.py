"""Escalations: which level of a campaign acted, whom it turned to, and who said that they have seen it."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, plain, tenant_fk

_OPEN = text("acknowledged_at IS NULL")


class Escalation(TenantKeyed, Base):
    """A line of a campaign's escalations; ``rule`` is the place of its rule in the definition, from 0."""

    __tablename__ = "marketing_escalations"
    __table_args__ = (
        tenant_fk("action_id", "marketing_actions"),
        tenant_fk("from_user_id", "marketing_members"),
        tenant_fk("to_user_id", "marketing_members"),
        Index("ix_marketing_escalations_entity", "tenant_id", "entity_type", "entity_id", "id"),
        Index("ix_marketing_escalations_open", "tenant_id", "id", postgresql_where=_OPEN, sqlite_where=_OPEN),
    )

    #: What was escalated: ``campaign`` and its id.
    entity_type: Mapped[str] = plain()
    entity_id: Mapped[int] = plain()
    level: Mapped[int] = plain()
    rule: Mapped[int] = plain()
    action: Mapped[str] = plain()
    action_id: Mapped[int] = plain()
    from_user_id: Mapped[int | None] = plain()
    to_user_id: Mapped[int | None] = plain()
    reason: Mapped[str] = plain()
    at: Mapped[datetime] = plain()
    acknowledged_at: Mapped[datetime | None] = plain()
    acknowledged_by: Mapped[str | None] = plain()
