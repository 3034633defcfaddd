"""What resolvers share in one request: the tenant's context, and loaders that ask once per level.

Loaders live as long as the request and its tenant, so that no answer can reach another tenant. They
run their statements in the thread of the event loop, one at a time: the request has one session.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiodataloader import DataLoader

from nexus_marketing.core.errors import QueryTimeout, ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.queries.related import leads_of_segments, newest_engagements, segments_of_leads
from nexus_marketing.graphql.types import MAX_LIMIT
from nexus_marketing.runtime import Context
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.scores.reading import LeadScore, scores_of_leads

Rows = list[dict[str, Any]]


class Loaders:
    """One loader per kind of question."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._engagements: dict[tuple[str, str | None, int], DataLoader[int, Rows]] = {}
        self._leads_by_limit: dict[int, DataLoader[int, Rows]] = {}
        self.scores_of_lead: DataLoader[int, list[LeadScore]] = DataLoader(self._scores_of_leads)
        self.segments_of_lead: DataLoader[int, Rows] = DataLoader(self._segments_of_leads)

    def leads_of_segment(self, limit: int) -> "DataLoader[int, Rows]":
        """The loader of the first ``limit`` leads of a segment."""
        if limit not in self._leads_by_limit:

            async def load(segment_ids: Sequence[int]) -> list[Rows]:
                found = leads_of_segments(self._context.session, segment_ids, limit)
                return [found.get(segment_id, []) for segment_id in segment_ids]

            self._leads_by_limit[limit] = DataLoader(load)
        return self._leads_by_limit[limit]

    def engagements_of(self, owner: str, type_: str | None, limit: int) -> "DataLoader[int, Rows]":
        """The loader of the newest engagements of leads or campaigns (``owner`` is the column that names them)."""
        key = (owner, type_, limit)
        if key not in self._engagements:

            async def load(ids: Sequence[int]) -> list[Rows]:
                found = newest_engagements(self._context.session, owner, ids, type_, limit)
                return [found.get(id_, []) for id_ in ids]

            self._engagements[key] = DataLoader(load)
        return self._engagements[key]

    async def _scores_of_leads(self, lead_ids: Sequence[int]) -> list[list[LeadScore]]:
        found = scores_of_leads(self._context, lead_ids)
        return [found.get(lead_id, []) for lead_id in lead_ids]

    async def _segments_of_leads(self, lead_ids: Sequence[int]) -> list[Rows]:
        found = segments_of_leads(self._context.session, lead_ids)
        return [found.get(lead_id, []) for lead_id in lead_ids]


class GraphContext:
    """``info.context`` of every resolver.

    ``timeout_seconds`` after its making no further statement is begun: the database bounds each of them,
    this bounds how long a document of many holds its connection.
    """

    def __init__(self, nexus: Context, now_seconds: Callable[[], float], timeout_seconds: float) -> None:
        self.nexus = nexus
        self.loaders = Loaders(nexus)
        self._now_seconds = now_seconds
        self._until = now_seconds() + timeout_seconds

    def require(self, permission: Permission) -> None:
        """Refuse what the key may not see or do, and whatever is asked for once the time is over.

        Raises:
            PermissionDenied: the key has no such scope.
            QueryTimeout: the document has had its time.
        """
        self.nexus.actor.require(permission)
        if self._now_seconds() > self._until:
            raise QueryTimeout

    async def leads_of_segment(self, segment_id: str | None, limit: int) -> Rows:
        """The first leads of a segment; none without one."""
        check_limit(limit)
        if segment_id is None:
            return []
        loading: Awaitable[Rows] = self.loaders.leads_of_segment(limit).load(int(segment_id))
        return await loading

    async def engagements(self, owner: str, id_: int, type_: Any, limit: int) -> Rows:
        """The newest engagements of a lead or a campaign."""
        wanted = None if type_ is None else str(type_.value)
        loading: Awaitable[Rows] = self.loaders.engagements_of(owner, wanted, check_limit(limit)).load(id_)
        return await loading

    def analytics(self, campaign_id: int) -> dict[str, Any]:
        """A campaign's numbers."""
        return campaign_analytics(self.nexus, campaign_id)


def check_limit(limit: int) -> int:
    """A list's length, bounded.

    Raises:
        ValidationError: it is not between 1 and ``MAX_LIMIT``.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ValidationError.at("limit", "out_of_bounds", f"limit is between 1 and {MAX_LIMIT}.")
    return limit
