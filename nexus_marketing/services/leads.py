"""Leads: people we may write to, one at a time. Files of them come in through ``services.imports``."""

import math
from collections.abc import Mapping

from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.audience import complete_names, normalise_lead
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.events import LeadCreated, LeadUpdated
from nexus_marketing.core.values import Canonical, canonical_number
from nexus_marketing.db.models import Lead
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.fields import check_declared
from nexus_marketing.services.versions import find_to_change

_ADDRESSES = ("email", "phone", "external_id")
_PERSONAL = frozenset(column.name for column in Lead.__table__.columns if column.info.get("personal"))
_UNIQUE = ("email", "external_id")


def create_lead(ctx: Context, data: Mapping[str, object]) -> Lead:
    """Add a lead; an address of any kind suffices.

    Args:
        data: fields of ``core.audience.LEAD_FIELDS``; ``metadata`` holds what is the tenant's own.

    Raises:
        ValidationError: every field that is wrong, with the remedy.
        Conflict: the e-mail address or external id belongs to another lead of the tenant.
    """
    values = {"tags": [], "metadata": {}, **_checked(ctx, data)}
    if not any(values.get(name) for name in _ADDRESSES):
        raise ValidationError.at("email", "no_address", "A lead needs an email, a phone or an external_id.")
    values |= complete_names(values, {})
    lead = Lead(score=0.0, version=1, created_at=ctx.now, updated_at=ctx.now)
    _assign(lead, values)
    ctx.session.add(lead)
    _flush(ctx)
    _remember(ctx, lead, "lead.created", {name: (None, value) for name, value in values.items() if value})
    ctx.emit(LeadCreated(lead.tenant_id, ctx.now, lead.id))
    return lead


def update_lead(ctx: Context, lead_id: int, data: Mapping[str, object], *, expected_version: int | None = None) -> Lead:
    """Change the given fields; ``None`` clears one. What is already so is not written again.

    Raises:
        StaleVersion: ``expected_version`` is not the current one (``current`` in the context).
        ValidationError: every field that is wrong, or nothing would be left to reach the lead by.
        Conflict: the e-mail address or external id belongs to another lead of the tenant.
    """
    lead = find_to_change(ctx, Lead, lead_id, expected_version)
    values = _checked(ctx, data)
    values |= complete_names(values, {name: getattr(lead, name) for name in ("name", "first_name", "last_name")})
    changes = {name: (_stored(lead, name), value) for name, value in values.items() if _stored(lead, name) != value}
    if not changes:
        return lead
    _assign(lead, {name: after for name, (_, after) in changes.items()})
    if not any(_stored(lead, name) for name in _ADDRESSES):
        raise ValidationError.at("email", "no_address", "A lead needs an email, a phone or an external_id: keep one.")
    _bump(ctx, lead)
    _remember(ctx, lead, "lead.updated", changes)
    ctx.emit(LeadUpdated(lead.tenant_id, ctx.now, lead.id))
    return lead


def set_score(ctx: Context, lead_id: int, score: float, reason: str) -> Lead:
    """Set a lead's score; only scoring and imports do, never a caller's document.

    Args:
        reason: the rule or import that gave the score, for the audit.

    Raises:
        ValidationError: the score is no finite number.
    """
    if isinstance(score, bool) or not math.isfinite(score):
        raise ValidationError.at("score", "not_a_number", f"score is a finite number, not {score!r}.")
    lead = find_to_change(ctx, Lead, lead_id)
    before, after = lead.score, float(canonical_number(score, "score"))
    if before == after:
        return lead
    lead.score = after
    _bump(ctx, lead)
    _remember(ctx, lead, "lead.scored", {"score": (before, after), "reason": (None, reason)})
    ctx.emit(LeadUpdated(lead.tenant_id, ctx.now, lead.id))
    return lead


def _checked(ctx: Context, data: Mapping[str, object]) -> dict[str, Canonical]:
    values = normalise_lead(data)
    metadata = values.get("metadata")
    if isinstance(metadata, dict):
        check_declared(ctx, metadata)
    return values


def _stored(lead: Lead, name: str) -> Canonical:
    found: Canonical = getattr(lead, "attributes" if name == "metadata" else name)
    return found


def _assign(lead: Lead, values: Mapping[str, Canonical]) -> None:
    for name, value in values.items():
        setattr(lead, "attributes" if name == "metadata" else name, value)


def _bump(ctx: Context, lead: Lead) -> None:
    lead.version += 1
    lead.updated_at = ctx.now
    _flush(ctx)


def _flush(ctx: Context) -> None:
    try:
        ctx.session.flush()
    except IntegrityError as error:
        field = next((name for name in _UNIQUE if name in str(error.orig)), None)
        if field is None:
            raise
        raise Conflict(
            f"{field}: another lead has this {field} already; change that lead, or leave {field} out here.",
            field=field,
        ) from error


def _remember(ctx: Context, lead: Lead, action: str, changes: Mapping[str, tuple[object, object]]) -> None:
    assert lead.tenant_id == tenant_of(ctx.session)
    record(ctx, action, "lead", lead.id, changes, personal=_PERSONAL, lead_id=lead.id)
