"""One audit row per change, in the change's own transaction, without personal values (DESIGN.md 4.18).

The row that is never changed carries salted commitments; salts and values lie beside it, where
erasure clears them. Whoever has the value and the salt can prove what was written, nobody else.
"""

import secrets
from collections.abc import Collection, Mapping
from datetime import date, datetime
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import append_ahead
from nexus_marketing.db.models import AuditEntry, AuditUntold, AuditValue
from nexus_marketing.db.queries.plugins import plugins_on
from nexus_marketing.db.tenancy import append
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.runtime import Context

_SALT_BYTES = 16


def record(
    ctx: Context,
    action: str,
    subject_type: str,
    subject_id: int | str,
    changes: Mapping[str, tuple[Any, Any]] | None = None,
    *,
    personal: Collection[str] = (),
    lead_id: int | None = None,
) -> None:
    """Append an audit row.

    Args:
        action: ``topic.verb``.
        subject_type: what was changed.
        subject_id: which one; ``batch`` for bulk work.
        changes: field → (before, after).
        personal: fields whose values must not stand in the row itself.
        lead_id: whose erasure clears the values beside the row.
    """
    body: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, (before, after) in (changes or {}).items():
        if name in personal:
            values[name] = kept = _kept(before, after)
            body[name] = {"commitment": _commitment(kept)}
        else:
            body[name] = {"before": _plain(before), "after": _plain(after)}
    at = ctx.now
    entry = {
        "at": at,
        "actor": ctx.actor.label,
        "action": action,
        "subject_type": subject_type,
        "subject_id": str(subject_id),
        "request_id": ctx.request_id,
        "body": body,
        "body_hash": _digest(body),
    }
    sinks = _sinks(ctx, subject_type)
    if not values and not sinks:
        append_ahead(ctx.session, AuditEntry, **entry)
        return
    audit_id = append(ctx.session, AuditEntry, **entry)
    if values:
        ctx.session.add(AuditValue(at=at, audit_id=audit_id, lead_id=lead_id, values=values))
    for sink in sinks:
        append_ahead(ctx.session, AuditUntold, sink=sink, at=at, audit_id=audit_id)


def record_bulk(
    ctx: Context, action: str, subject_type: str, subject_id: int | str, count: int, manifest: bytes
) -> None:
    """Append one row for an operation on many things.

    Args:
        count: how many things changed.
        manifest: SHA-256 over what changed, in an order the operation can reproduce: of ids and
            versions, never of personal values, which the hash of a few does not hide.
    """
    record(ctx, action, subject_type, subject_id, {"count": (None, count), "manifest": (None, manifest)})


def last_entry_id(session: Session, subject_type: str, subject_id: str) -> int | None:
    """The newest row about a subject: whether somebody changed it in the meantime."""
    about = (AuditEntry.subject_type == subject_type, AuditEntry.subject_id == subject_id)
    return session.scalar(select(func.max(AuditEntry.id)).where(*about))


def commitment_holds(commitment: str, kept: Mapping[str, Any]) -> bool:
    """Whether kept values are those an audit row committed to."""
    return secrets.compare_digest(commitment, _commitment(kept))


def _sinks(ctx: Context, subject_type: str) -> list[str]:
    """Who is told of what the tenant does."""
    runtime = ctx.runtime
    owners = {name: runtime.plugin_of(name, Capability.AUDIT_SINK) for name in runtime.plugins.audit_sinks}
    if not owners:
        return []
    # What this transaction says of plugins is not remembered for others: it may never be.
    on = plugins_on(ctx.session) if subject_type == "plugin" else runtime.switches.of(ctx.session)
    return [name for name, owner in owners.items() if owner is None or owner.name in on]


def _kept(before: Any, after: Any) -> dict[str, Any]:
    return {"salt": secrets.token_hex(_SALT_BYTES), "before": _plain(before), "after": _plain(after)}


def _commitment(kept: Mapping[str, Any]) -> str:
    return _digest(kept).hex()


def _digest(value: Any) -> bytes:
    return sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def _plain(value: Any) -> Any:
    """Values as JSON has them."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value
