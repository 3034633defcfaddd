"""What campaigns are made from: one row per definition, one immutable row per published version."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, plain, tenant_fk
from nexus_marketing.db.types import OrderedJson


class CampaignDefinition(TenantKeyed, Base):
    """A kind of campaign; ``schema`` is the document being worked on, ``version`` the one in force.

    ``code`` is the document's ``id``: an object that declares a campaign of this name runs on this
    definition instead of its own.
    """

    __tablename__ = "marketing_definitions"
    __noun__ = "definition"
    __table_args__ = (UniqueConstraint("tenant_id", "code"),)

    code: Mapped[str] = plain()
    name: Mapped[str] = plain()
    schema: Mapped[dict[str, Any]] = plain(OrderedJson)
    active: Mapped[bool] = plain(server_default=text("true"))
    #: Of the version in force; nothing before the first is published.
    version: Mapped[str | None] = plain()
    revision: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()


class DefinitionVersion(TenantKeyed, Base):
    """A published version; never changed, so that running campaigns go on as they began."""

    __tablename__ = "marketing_definition_versions"
    __table_args__ = (
        tenant_fk("definition_id", "marketing_definitions"),
        UniqueConstraint("tenant_id", "definition_id", "version"),
    )

    definition_id: Mapped[int] = plain()
    version: Mapped[str] = plain()
    schema: Mapped[dict[str, Any]] = plain(OrderedJson)
    published_by: Mapped[str] = plain()
    published_at: Mapped[datetime] = plain()
