"""Erasing a lead (GDPR 17): nobody writes to the person again, and nothing tells who it was.

The row stays as a tombstone, so that numbers of what was sent stay right; a keyed hash of each address
stays among the suppressions, so that the wish outlives the data.
"""

from typing import Any

from sqlalchemy import select

from nexus_marketing.core.audience import RemovalKind
from nexus_marketing.core.errors import Gone
from nexus_marketing.core.events import LeadErased
from nexus_marketing.core.privacy import SuppressionReason, SuppressionType
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.models import Lead, LeadRemoval
from nexus_marketing.db.queries import removals as queries
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.fields import field_rules
from nexus_marketing.services.leads.lookup import all_ids, refuse_gone
from nexus_marketing.services.leads.removals import addresses_of, begin_removal, empty_lead
from nexus_marketing.services.privacy import address_hash, suppress_hash
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.versions import find_to_change

_SOURCE = "erasure"
_EVERY_CHANNEL = "all"


def erase_lead(ctx: Context, lead_id: int, *, expected_version: int | None = None) -> LeadRemoval:
    """Erase a lead and everything that says something about it; again, it changes nothing.

    In this transaction: the addresses are suppressed on every channel, the lead's own row is emptied, it
    leaves its segments. What refers to it is cleared at once where that is less than a piece and no
    message is under way, else by the workers: ``finished_at`` says when.

    Raises:
        NotFound: there is no such lead; ``Merged`` names the one that it is now.
        StaleVersion: ``expected_version`` is not the current one.
    """
    try:
        lead = find_to_change(ctx, Lead, lead_id, expected_version)
    except Gone:
        removal = find_erasure(ctx, lead_id)
        if removal is not None:
            return removal
        lead = find(ctx.session, Lead, lead_id, lock=True)  # its import was undone
    ids = all_ids(ctx, lead_id)
    suppressed = _suppress(ctx, lead)
    empty_lead(ctx, lead, _kept(ctx, lead))
    counts = {"marketing_leads": 1, "marketing_suppressions": suppressed}
    counts["marketing_segment_members"] = queries.leave_segments(ctx.session, ids)
    mark_leads(ctx, ids)  # a computation under way may put them back
    record(ctx, "lead.erased", "lead", lead_id)
    removal = LeadRemoval(
        lead_id=lead_id,
        kind=RemovalKind.ERASED,
        actor=ctx.actor.label,
        at=ctx.now,
        policy={},
        counts=counts,
    )
    begin_removal(ctx, removal)
    ctx.emit(LeadErased(lead.tenant_id, ctx.now, lead_id))
    return removal


def find_erasure(ctx: Context, lead_id: int) -> LeadRemoval | None:
    """How the erasure of a lead went; ``None`` where nobody asked for it.

    Raises:
        NotFound: there is no such lead; ``Merged`` names the one that it is now.
    """
    lead = find(ctx.session, Lead, lead_id)
    if lead.merged_into is not None:
        refuse_gone(lead)
    wanted = (LeadRemoval.lead_id == lead_id, LeadRemoval.kind == RemovalKind.ERASED)
    return ctx.session.scalars(select(LeadRemoval).where(*wanted)).one_or_none()


def certificate(removal: LeadRemoval) -> dict[str, Any]:
    """What was done, without a word about whom: rows by table."""
    return {
        "lead_id": str(removal.lead_id),
        "status": "running" if removal.finished_at is None else "finished",
        "requested_at": removal.at,
        "finished_at": removal.finished_at,
        "counts": removal.counts,
    }


def _suppress(ctx: Context, lead: Lead) -> int:
    hashes = [address_hash(ctx, address) for _, address in addresses_of(ctx, lead)]
    every = (_EVERY_CHANNEL, str(SuppressionType.ALL))
    standing = queries.standing_suppressions(ctx.session, hashes)
    known = {bytes(row.address_hash) for row in standing if (row.channel, row.type) == every}
    coming = sorted({*hashes} - known)
    for hashed in coming:
        why = {"reason": str(SuppressionReason.ERASED), "source": _SOURCE}
        suppress_hash(ctx, hashed, channel=every[0], type=every[1], **why)
    return len(coming)


def _kept(ctx: Context, lead: Lead) -> dict[str, Canonical]:
    """Declared fields that say nothing of the person."""
    rules = field_rules(ctx)
    return {name: value for name, value in lead.attributes.items() if name in rules and not rules[name].personal}
