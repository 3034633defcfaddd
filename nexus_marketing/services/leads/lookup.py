"""Finding a lead that may have been merged or erased since somebody noted its id."""

from collections.abc import Iterable

from sqlalchemy import select

from nexus_marketing.core.errors import Gone, Merged
from nexus_marketing.db.models import Lead
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context

_PIECE = 1_000


def refuse_gone(lead: Lead) -> None:
    """Pass a lead that is there.

    Raises:
        Merged: it is another one now; ``merged_into`` says which.
        Gone: it has been erased, or the import that made it was undone.
    """
    if lead.merged_into is not None:
        raise Merged(
            f"Lead {lead.id} has been merged: ask for lead {lead.merged_into}.", merged_into=str(lead.merged_into)
        )
    if lead.gone_at is not None:
        raise Gone(f"Lead {lead.id} is gone: it has been erased, or the import that made it undone.")


def find_lead(ctx: Context, lead_id: int) -> Lead:
    """The lead with this id, and no other.

    Raises:
        NotFound: there is none; ``Merged`` and ``Gone`` where there was.
    """
    lead = find(ctx.session, Lead, lead_id)
    refuse_gone(lead)
    return lead


def follow_lead(ctx: Context, lead_id: int, *, lock: bool = False) -> Lead:
    """The lead with this id, or the one into which it was merged: what old messages and programs mean.

    Raises:
        NotFound: there is none; ``Gone`` where it was erased.
    """
    lead = find(ctx.session, Lead, lead_id, lock=lock)
    if lead.merged_into is not None:
        # Merging moves all who were merged before: one step is the whole way.
        lead = find(ctx.session, Lead, lead.merged_into, lock=lock)
    refuse_gone(lead)
    return lead


def current_ids(ctx: Context, lead_ids: Iterable[int]) -> dict[int, int]:
    """Of these leads, those that were merged, and into which."""
    found: dict[int, int] = {}
    asked = sorted(set(lead_ids))
    for start in range(0, len(asked), _PIECE):
        piece = asked[start : start + _PIECE]
        rows = ctx.session.execute(
            select(Lead.id, Lead.merged_into).where(Lead.id.in_(piece), Lead.merged_into.is_not(None))
        )
        found |= {row.id: row.merged_into for row in rows}
    return found


def all_ids(ctx: Context, lead_id: int) -> list[int]:
    """The id of a lead and of all who were merged into it."""
    merged = ctx.session.scalars(select(Lead.id).where(Lead.merged_into == lead_id).order_by(Lead.id).limit(_PIECE))
    return [lead_id, *merged]
