"""Tenants, their members and their API keys."""

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.api_keys import KEY_ID_CHARACTERS, KEY_ID_LENGTH, SECRET_BYTES, build_key
from nexus_marketing.core.audience import normalise_email_address, normalise_field
from nexus_marketing.core.errors import Conflict, NotFound, ValidationError
from nexus_marketing.core.permissions import ALL_PERMISSIONS, FORMER, ROLE_PERMISSIONS, parse_scopes
from nexus_marketing.core.values import canonical, email_norm
from nexus_marketing.db.models import ApiKey, Member, Tenant
from nexus_marketing.db.queries.tenants import find_tenant, require_tenant, work_for
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.fields import check_no_contradiction
from nexus_marketing.services.tenant_settings import check_settings

#: What a tenant may be called in commands and addresses.
SLUG = re.compile(r"[a-z][a-z0-9-]{1,62}")
MEMBER_ROLES = tuple(role for role in ROLE_PERMISSIONS if role != FORMER)


def create_tenant(
    runtime: Runtime,
    slug: str,
    name: str,
    settings: Mapping[str, object] | None = None,
    *,
    actor: Actor = SYSTEM,
) -> int:
    """Set up a tenant; answers its id.

    Args:
        slug: 2 to 63 lower-case letters, digits and hyphens, a letter first; its name in commands.
        settings: see ``services.tenant_settings``.

    Raises:
        ValidationError: the slug or a setting is wrong.
        Conflict: the slug is taken.
    """
    _check_slug(slug)
    checked = check_settings(settings or {})
    with runtime.work(None, actor, role="owner") as ctx:
        if find_tenant(ctx.session, slug) is not None:
            raise Conflict(f"There is a tenant {slug!r} already: choose another name.", field="slug")
        tenant = Tenant(slug=slug, name=name.strip() or slug, settings=checked, created_at=ctx.now)
        ctx.session.add(tenant)
        ctx.session.flush()
        work_for(ctx.session, tenant)
        record(ctx, "tenant.created", "tenant", tenant.id, {"slug": (None, slug), "name": (None, tenant.name)})
        return tenant.id


def change_tenant(
    runtime: Runtime, slug: str, name: str, settings: Mapping[str, object], *, actor: Actor = SYSTEM
) -> bool:
    """Bring a tenant's name and settings to what is given; whether anything changed."""
    checked = check_settings(settings)
    with runtime.work(None, actor, role="owner") as ctx:
        tenant = require_tenant(ctx.session, slug)
        work_for(ctx.session, tenant)
        changes = {"name": (tenant.name, name), "settings": (tenant.settings, checked)}
        changes = {field: pair for field, pair in changes.items() if pair[0] != pair[1]}
        if changes:
            check_no_contradiction(ctx, checked.get("fields"))
            tenant.name, tenant.settings = name, checked
            record(ctx, "tenant.changed", "tenant", tenant.id, changes)
        return bool(changes)


def suspend_tenant(runtime: Runtime, slug: str, *, suspended: bool = True, actor: Actor = SYSTEM) -> None:
    """Shut a tenant's keys out, or let them in again; its data stays."""
    with runtime.work(None, actor, role="owner") as ctx:
        tenant = require_tenant(ctx.session, slug)
        if (tenant.suspended_at is not None) == suspended:
            return
        work_for(ctx.session, tenant)
        tenant.suspended_at = ctx.now if suspended else None
        record(ctx, "tenant.suspended" if suspended else "tenant.resumed", "tenant", tenant.id)


def create_member(ctx: Context, name: str, email: str, role: str, *, manager_id: int | None = None) -> Member:
    """Add a person who acts for the tenant.

    Args:
        role: one of ``MEMBER_ROLES``.
        manager_id: the member whom escalation turns to.

    Raises:
        ValidationError: name, e-mail address or role is wrong.
        NotFound: there is no such manager.
        Conflict: a member has this address already.
    """
    _check_role(role, MEMBER_ROLES)
    if manager_id is not None:
        _member(ctx, manager_id)
    address = normalise_email_address(email)
    member = Member(
        name=str(normalise_field("name", name) or ""),
        email=address,
        email_norm=email_norm(address),
        role=role,
        manager_id=manager_id,
        created_at=ctx.now,
    )
    ctx.session.add(member)
    try:
        ctx.session.flush()
    except IntegrityError as error:
        said = "email: a member has this address already; give them a role (nexus-marketing members change)."
        raise Conflict(said, field="email") from error
    changes: dict[str, tuple[object, object]] = {
        "name": (None, member.name),
        "email": (None, address),
        "role": (None, role),
    }
    record(ctx, "member.created", "member", member.id, changes, personal=("name", "email"))
    return member


def change_role(ctx: Context, member_id: int, role: str) -> int:
    """Give a member another role.

    Args:
        member_id: of the tenant.
        role: one of ``MEMBER_ROLES``, or ``FORMER`` for who left: nothing is allowed to them, and their keys end.

    Returns:
        How many keys ended.

    Raises:
        NotFound: there is no such member.
        ValidationError: there is no such role.
    """
    _check_role(role, tuple(ROLE_PERMISSIONS))
    member = _member(ctx, member_id, lock=True)
    if member.role != role:
        record(ctx, "member.changed", "member", member.id, {"role": (member.role, role)})
        member.role = role
    if role != FORMER:
        return 0
    theirs = select(ApiKey.key_id).where(ApiKey.member_id == member_id, ApiKey.revoked_at.is_(None))
    ended = [revoke_key(ctx, key_id) for key_id in ctx.session.scalars(theirs).all()]
    return len(ended)


def create_key(
    ctx: Context,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    member_id: int | None = None,
) -> tuple[ApiKey, str]:
    """Issue an API key; the text is shown now and never again (SECURITY.md, API keys).

    Args:
        scopes: permissions, ``*`` for all.
        expires_at: UTC; without it the key lives until it is revoked.
        member_id: the member whom the key acts for.

    Raises:
        ValidationError: a scope is unknown, there is none, the key would be born expired, or the member has left.
    """
    permissions = parse_scopes(scopes)
    if not permissions:
        raise ValidationError.at("scopes", "required", "A key needs at least one scope; * stands for all.")
    if expires_at is not None and expires_at <= ctx.now:
        raise ValidationError.at(
            "expires_at", "out_of_bounds", "The key would be expired already: choose a later time."
        )
    # Held until the key is there: who is leaving meanwhile would keep one that nobody ended.
    if member_id is not None and _member(ctx, member_id, lock=True).role == FORMER:
        raise ValidationError.at("member_id", "former_member", f"Member {member_id} has left: give them a role first.")
    # Public names are random too, so that they tell nothing about how many keys there are.
    key_id = "".join(secrets.choice(KEY_ID_CHARACTERS) for _ in range(KEY_ID_LENGTH))
    issued = build_key(key_id, secrets.token_bytes(SECRET_BYTES))
    spelled = ["*"] if permissions == ALL_PERMISSIONS else sorted(permissions)
    row = ApiKey(
        key_id=key_id,
        secret_hash=issued.secret_hash,
        name=name.strip() or "unnamed",
        scopes=spelled,
        member_id=member_id,
        created_at=ctx.now,
        expires_at=expires_at,
    )
    ctx.session.add(row)
    ctx.session.flush()
    changes = {"key_id": (None, key_id), "scopes": (None, spelled), "expires_at": (None, expires_at)}
    record(ctx, "key.created", "api_key", row.id, changes)
    return row, issued.text


def revoke_key(ctx: Context, key_id: str) -> ApiKey:
    """End a key, at once here and within a second elsewhere.

    Args:
        key_id: its 8 public characters.

    Raises:
        NotFound: the tenant has no such key.
    """
    row = ctx.session.scalars(select(ApiKey).where(ApiKey.key_id == key_id)).one_or_none()
    if row is None:
        raise NotFound(f"There is no key {key_id[:20]!r}: see `nexus-marketing keys list`.")
    if row.revoked_at is None:
        row.revoked_at = ctx.now
        ctx.session.flush()
        record(ctx, "key.revoked", "api_key", row.id, {"revoked_at": (None, ctx.now)})
    return row


def list_keys(ctx: Context, limit: int = 1000) -> list[ApiKey]:
    """The tenant's keys, newest first; secrets are not among what is known of them."""
    return list(ctx.session.scalars(select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)))


def _member(ctx: Context, id_: int, *, lock: bool = False) -> Member:
    try:
        return find(ctx.session, Member, id_, lock=lock)
    except NotFound as error:
        raise NotFound(f"There is no member {id_}: see `nexus-marketing members list`.", id=id_) from error


def _check_role(role: str, known: Collection[str]) -> None:
    if role not in known:
        raise ValidationError.at("role", "unknown_role", f"{role!r} is no role: use {', '.join(known)}.")


def _check_slug(slug: str) -> None:
    if not SLUG.fullmatch(slug):
        raise ValidationError.at(
            "slug",
            "not_a_slug",
            f"{canonical(slug[:70])!a} is no tenant name: use 2 to 63 of a-z, 0-9 and -, a letter first.",
        )
