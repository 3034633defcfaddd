"""Tenants, the people who act for them, and the keys that let programs in."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, UniqueConstraint
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain, tenant_fk
from nexus_marketing.db.types import BigInt


class Tenant(Base):
    """One customer of the installation; everything else hangs below it."""

    __tablename__ = "marketing_tenants"

    id: Mapped[int] = plain(BigInt, Identity(), primary_key=True)
    slug: Mapped[str] = plain(unique=True)
    name: Mapped[str] = plain()
    settings: Mapped[dict[str, Any]] = plain()
    created_at: Mapped[datetime] = plain()
    suspended_at: Mapped[datetime | None] = plain()


class Member(TenantKeyed, Base):
    """A person who acts for a tenant; ``manager_id`` is whom escalation turns to."""

    __tablename__ = "marketing_members"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email_norm"),
        tenant_fk("manager_id", "marketing_members"),
    )

    name: Mapped[str] = personal()
    email: Mapped[str] = personal()
    email_norm: Mapped[str] = personal()
    role: Mapped[str] = plain()
    manager_id: Mapped[int | None] = plain()
    created_at: Mapped[datetime] = plain()


class ApiKey(TenantKeyed, Base):
    """A program's key: the secret itself is shown once and never stored (SECURITY.md, API keys)."""

    __tablename__ = "marketing_api_keys"
    __table_args__ = (
        Index("uq_marketing_api_keys_key_id", "key_id", unique=True),
        tenant_fk("member_id", "marketing_members"),
    )

    key_id: Mapped[str] = plain()
    secret_hash: Mapped[bytes] = plain()
    name: Mapped[str] = plain()
    scopes: Mapped[list[Any]] = plain()
    member_id: Mapped[int | None] = plain()
    created_at: Mapped[datetime] = plain()
    expires_at: Mapped[datetime | None] = plain()
    revoked_at: Mapped[datetime | None] = plain()


class IdempotencyKey(TenantScoped, Base):
    """The stored answer of a request that carried ``Idempotency-Key`` (DATABASE.md)."""

    __tablename__ = "marketing_idempotency_keys"
    __table_args__ = (Index("ix_marketing_idempotency_keys_created_at", "created_at"),)

    key: Mapped[str] = plain(primary_key=True)
    fingerprint: Mapped[bytes] = plain()
    status: Mapped[int] = plain()
    body: Mapped[bytes] = personal()
    created_at: Mapped[datetime] = plain()


class Worker(Base):
    """A worker process that was alive at ``seen_at``: "no worker seen" is an answer of the heartbeat."""

    __tablename__ = "marketing_workers"

    id: Mapped[str] = plain(primary_key=True)
    host: Mapped[str] = plain()
    pid: Mapped[int] = plain()
    started_at: Mapped[datetime] = plain()
    seen_at: Mapped[datetime] = plain()
