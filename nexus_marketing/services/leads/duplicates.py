"""Leads that may be one person: the same phone, the same mailbox, the same name at the same place.

A page looks at a thousand leads, whatever it finds, and names for each the nearest lead before it that has
something in common: ten thousand leads with one phone are a chain and not fifty million pairs. The keys it
looks by are written while it looks, so the search costs writes of leads nothing; whoever goes through
all pages from the first has seen every duplicate.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import RowMapping

from nexus_marketing.core.audience import mailbox
from nexus_marketing.core.values import fold
from nexus_marketing.db.queries.duplicates import earlier_leads, keep_keys
from nexus_marketing.db.queries.leads import leads_after, leads_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.privacy import address_hash

WINDOW: Final = 1_000
_NEEDED: Final = ("id", "email_norm", "phone", "name", "metadata")
#: Names of a tenant's own under which the code of a place is kept.
_PLACES: Final = ("postcode", "postal_code", "post_code", "zip", "zip_code", "zipcode", "plz")


class Likeness(StrEnum):
    """What two leads have in common."""

    PHONE = "phone"
    MAILBOX = "mailbox"
    NAME_AND_PLACE = "name_and_place"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two leads that may be one person; the other came first."""

    lead_id: int
    other_id: int
    reasons: Sequence[Likeness]


@dataclass(frozen=True, slots=True)
class Looked:
    """One page: how many leads were looked at, and after which lead the next page begins (``None``: all done)."""

    pairs: Sequence[Pair]
    looked_at: int
    next_id: int | None


def find_duplicates(ctx: Context, after: int = 0) -> Looked:
    """Look at the next thousand leads after an id."""
    leads = leads_after(ctx.session, _NEEDED, after, WINDOW)
    if not leads:
        return Looked((), 0, None)
    last = leads[-1]["id"]
    own = {lead["id"]: dict(likenesses(lead)) for lead in leads}
    keys = {
        (lead_id, str(kind), address_hash(ctx, f"{kind}:{value}"))
        for lead_id, values in own.items()
        for kind, value in values.items()
    }
    keep_keys(ctx.session, after, last, keys)
    pairs = _pairs(ctx, after, last, own)
    return Looked(pairs, len(leads), last if len(leads) == WINDOW else None)


def likenesses(lead: RowMapping | Mapping[str, Any]) -> Iterator[tuple[Likeness, str]]:
    """What of a lead another one of the same person would have too."""
    if lead["phone"]:
        yield Likeness.PHONE, str(lead["phone"])
    if lead["email_norm"]:
        yield Likeness.MAILBOX, mailbox(str(lead["email_norm"]))
    place = next((str(lead["metadata"][name]) for name in _PLACES if lead["metadata"].get(name)), "")
    name = "".join(fold(str(lead["name"] or "")).split())
    if name and place:
        yield Likeness.NAME_AND_PLACE, f"{name}|{''.join(fold(place).split())}"


def _pairs(ctx: Context, after: int, last: int, own: Mapping[int, Mapping[Likeness, str]]) -> list[Pair]:
    reasons: dict[tuple[int, int], list[Likeness]] = defaultdict(list)
    for row in earlier_leads(ctx.session, after, last):
        reasons[row.lead_id, row.other_id].append(Likeness(row.kind))
    others = dict(_current(ctx, {other for _, other in reasons}))
    found = []
    for (lead_id, other_id), kinds in sorted(reasons.items()):
        # Keys are as old as the last look: what they say is held against the leads as they are.
        there = others.get(other_id, {})
        same = [kind for kind in kinds if there.get(kind) == own.get(lead_id, {}).get(kind, "")]
        if same:
            found.append(Pair(lead_id, other_id, same))
    return found


def _current(ctx: Context, lead_ids: Collection[int]) -> Iterator[tuple[int, Mapping[Likeness, str]]]:
    for lead in leads_of(ctx.session, _NEEDED, sorted(lead_ids)):
        yield lead["id"], dict(likenesses(lead))
