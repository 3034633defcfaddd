"""A lead's timeline: everything that happened to it, newest first, from every place that knows of something.

A page of a hundred entries asks each source for at most a hundred, and what comes next is found by the
position of the last entry: page 1,000 costs what page 1 costs. Entries stand by time; those of one moment
by source, then by key.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.permissions import Permission
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads import timeline_sources as sources
from nexus_marketing.services.leads.lookup import all_ids, find_lead
from nexus_marketing.services.leads.timeline_sources import Before, Found

MAX_LIMIT: Final = 200


class Source(Protocol):
    """Something that knows of events in a lead's life; ``name`` is shown and part of the order."""

    @property
    def name(self) -> str:
        """A plural noun."""
        ...

    @property
    def permission(self) -> Permission:
        """Who may see its entries."""
        ...

    def page(self, ctx: Context, lead_ids: Sequence[int], before: Before, limit: int) -> Sequence[Found]:
        """The newest entries before a position, newest first, at most ``limit``.

        Args:
            lead_ids: the lead's id, then those of leads that were merged into it.
        """
        ...


#: The one registry: a topic that has something to tell of leads adds its source here.
SOURCES: Final[Mapping[str, Source]] = {
    source.name: source
    for source in (
        sources.Changes(),
        sources.Consents(),
        sources.Engagements(),
        sources.Merges(),
        sources.Messages(),
        sources.Segments(),
        sources.Suppressions(),
    )
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. ``key`` tells it from others of its source."""

    at: datetime
    source: str
    key: tuple[int, ...]
    type: str
    data: Mapping[str, Any]

    @property
    def position(self) -> tuple[str, str, tuple[int, ...]]:
        """Where the next page begins."""
        return (self.at.isoformat(), self.source, self.key)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A page; ``left_out`` names sources that the actor may not see."""

    entries: Sequence[Entry]
    has_more: bool
    left_out: Sequence[str]


def read_timeline(
    ctx: Context,
    lead_id: int,
    *,
    names: Collection[str] = (),
    after: tuple[str, str, Sequence[int]] | None = None,
    limit: int = 50,
) -> Timeline:
    """One page of a lead's timeline, with what happened to leads that were merged into it.

    Args:
        lead_id: which lead.
        names: the sources that are asked for; all without any.
        after: the ``position`` of the last entry of the page before.
        limit: how many entries.

    Raises:
        NotFound: there is no such lead; ``Merged`` and ``Gone`` where there was.
        ValidationError: an unknown source, or a limit out of bounds.
    """
    _check(names, limit)
    lead = find_lead(ctx, lead_id)
    ids = all_ids(ctx, lead.id)
    asked = [source for name, source in SOURCES.items() if not names or name in names]
    seen = [source for source in asked if source.permission in ctx.actor.permissions]
    found: list[Entry] = []
    for source in seen:
        page = source.page(ctx, ids, _before(source.name, after), limit + 1)
        found += [Entry(each.at, source.name, each.key, each.type, each.data) for each in page]
    # Three stable sorts, least significant first: key descending, source ascending, time descending.
    found.sort(key=lambda entry: entry.key, reverse=True)
    found.sort(key=lambda entry: entry.source)
    found.sort(key=lambda entry: entry.at, reverse=True)
    left_out = sorted({source.name for source in asked} - {source.name for source in seen})
    return Timeline(found[:limit], len(found) > limit, left_out)


def _check(names: Collection[str], limit: int) -> None:
    problems = [
        Problem("sources", "unknown_source", f"There is no source {name[:40]!a}{hint(name, SOURCES)}.")
        for name in names
        if name not in SOURCES
    ]
    if not 1 <= limit <= MAX_LIMIT:
        problems.append(Problem("limit", "out_of_bounds", f"limit is between 1 and {MAX_LIMIT}."))
    if problems:
        raise ValidationError(problems=problems)


def _before(name: str, after: tuple[str, str, Sequence[int]] | None) -> Before:
    if after is None:
        return Before()
    at = datetime.fromisoformat(after[0])
    if name == after[1]:
        return Before(at, tuple(after[2]))
    return Before(at, with_moment=name > after[1])
