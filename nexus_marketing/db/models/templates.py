"""Message templates: a name, and numbered versions that never change once published."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, plain, tenant_fk


class Template(TenantKeyed, Base):
    """What a campaign refers to; ``version`` is the newest published version."""

    __tablename__ = "marketing_templates"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    name: Mapped[str] = plain()
    type: Mapped[str] = plain()
    content: Mapped[dict[str, Any]] = plain()
    variables: Mapped[dict[str, Any]] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
    archived_at: Mapped[datetime | None] = plain()


class TemplateVersion(TenantScoped, Base):
    """Content as published: sends pin a version when they are planned.

    ``links`` lists the destinations that click tokens refer to by position, so that a redirect
    only ever goes where a published template said.
    """

    __tablename__ = "marketing_template_versions"
    __table_args__ = (tenant_fk("template_id", "marketing_templates", ondelete="CASCADE"),)

    template_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    number: Mapped[int] = plain(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]] = plain()
    variables: Mapped[dict[str, Any]] = plain()
    links: Mapped[list[Any]] = plain()
    digest: Mapped[str] = plain()
    created_at: Mapped[datetime] = plain()
