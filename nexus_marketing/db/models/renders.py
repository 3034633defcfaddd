"""What messages were made of, so that any of them can be made again (DESIGN.md 4.20)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantScoped, personal, plain, tenant_fk


class RenderBlock(TenantScoped, Base):
    """The values of everybody in one claim of a chunk, packed (:mod:`nexus_marketing.delivery.renders`).

    ``erased`` lists the ``seq`` that are in it no more, because their lead was erased.
    """

    __tablename__ = "marketing_render_blocks"
    __table_args__ = (
        tenant_fk("send_id", "marketing_sends"),
        Index("ix_marketing_render_blocks_at", "at"),
    )

    send_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    chunk_no: Mapped[int] = plain(primary_key=True, autoincrement=False)
    fence: Mapped[int] = plain(primary_key=True, autoincrement=False)
    seq_lo: Mapped[int] = plain()
    seq_hi: Mapped[int] = plain()
    at: Mapped[datetime] = plain()
    block: Mapped[bytes] = personal()
    erased: Mapped[list[Any]] = plain(server_default=text("'[]'"))
