"""Full-text search in engagements, on the audited read path."""

from collections.abc import Sequence
from dataclasses import replace

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.db.queries.listings import Listing, Page, Wish, page
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record


def search_page(ctx: Context, listing: Listing, wish: Wish, words: Sequence[str]) -> Page:
    """One page of what has all of these words, within the scope of the wish.

    The worker's role looks, for the tenant of the context, and says so in the audit trail: how many words,
    not which, for they may be somebody's name.
    """
    tenant_id = tenant_of(ctx.session)
    with ctx.runtime.work(tenant_id, ctx.actor, request_id=ctx.request_id) as audited:
        found = page(audited.session, listing, replace(wish, words=tuple(words)), Evaluation(ctx.now))
        counts = {"words": (None, len(words)), "found": (None, len(found.rows))}
        record(audited, "engagements.searched", listing.name, _scope(wish), counts)
    return found


def _scope(wish: Wish) -> str:
    return ",".join(str(value) for value in wish.parameters.values()) or "all"
