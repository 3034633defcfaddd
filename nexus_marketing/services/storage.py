"""The storage contract on the database: what ``HasMarketing`` objects use once a program is connected (Phase 2).

Every call is one transaction of the tenant, through the same functions as REST and GraphQL.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.errors import Problem, StaleVersion
from nexus_marketing.core.inline import stale
from nexus_marketing.core.promotion import KeptCampaign
from nexus_marketing.db.models import Campaign, History
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.campaigns.moving import apply_decision, is_to_be_sent
from nexus_marketing.services.campaigns.promotion import adopt_campaign
from nexus_marketing.services.campaigns.rows import new_campaign_of, of_key, state_of
from nexus_marketing.services.definitions import definition_of, published, understand

#: How old an answer about the definition in force may be (DESIGN.md 4.9).
_FRESH_SECONDS = 1.0
_PROGRAM = Actor("program")


class SqlStorage:
    """Campaigns of one tenant in the database.

    Args:
        runtime: of this process.
        tenant_id: whose campaigns.
        now_seconds: a clock that never goes back.
    """

    def __init__(self, runtime: Runtime, tenant_id: int, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self.tenant_id = tenant_id
        self._runtime = runtime
        self._now_seconds = now_seconds
        self._in_force: dict[str, tuple[float, Definition | None]] = {}
        self._pinned: dict[str, Definition | None] = {}

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign as it is now, or nothing."""
        with self._runtime.work(self.tenant_id, _PROGRAM, mode="read", role="app") as ctx:
            row = ctx.session.scalars(of_key(key)).one_or_none()
            return None if row is None else state_of(row)

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision in one transaction: row, history, audit and what is to be sent.

        What keeps it from being sent is in ``notices`` of the answer: the campaign is tracked all the same.

        Raises:
            StaleVersion: another call was first.
        """
        with self._runtime.work(self.tenant_id, Actor(decision.entry.actor), role="app") as ctx:
            row = ctx.session.scalars(of_key(key).with_for_update()).one_or_none()
            current = 0 if row is None else row.version
            if current != expected_version:
                raise stale(key, current, expected_version)
            notices: list[Problem] = []
            if row is None:
                definition = _definition(ctx, decision, key)
                row, notices = new_campaign_of(ctx, decision.state, definition)
            elif decision.moves:
                definition = _definition(ctx, decision, key)
            else:
                definition = definition_of(ctx, row)
            if decision.moves:
                row.program = None if decision.program is None else dict(decision.program)
                row.attended = sorted(decision.attended)
            notices += apply_decision(ctx, row, decision, definition, tell=False)
            if notices and is_to_be_sent(row):
                row.status_reason = f"Nothing is sent: {'; '.join(each.message for each in notices)}"[:1_000]
            return replace(decision.state, notices=tuple(notices))

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the campaign's history, oldest first."""
        with self._runtime.work(self.tenant_id, _PROGRAM, mode="read", role="app") as ctx:
            campaign_id = ctx.session.scalars(of_key(key).with_only_columns(Campaign.id)).one_or_none()
            if campaign_id is None:
                return []
            statement = (
                select(History)
                .where(History.campaign_id == campaign_id, History.version > page.after)
                .order_by(History.version, History.id)
                .limit(page.limit)
            )
            return [_line(row, key) for row in ctx.session.scalars(statement)]

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """Campaigns about a subject, in the order of their keys."""
        statement = select(Campaign).where(Campaign.campaign_key.is_not(None), Campaign.subject_type.is_not(None))
        if wanted.subject_type is not None:
            statement = statement.where(Campaign.subject_type == wanted.subject_type)
        if wanted.subject_id is not None:
            statement = statement.where(Campaign.subject_id == wanted.subject_id)
        if wanted.statuses:
            statement = statement.where(Campaign.status.in_(sorted(wanted.statuses)))
        order = (Campaign.subject_type, Campaign.subject_id, Campaign.campaign_key)
        with self._runtime.work(self.tenant_id, _PROGRAM, mode="read", role="app") as ctx:
            return [state_of(row) for row in ctx.session.scalars(statement.order_by(*order).limit(wanted.limit))]

    def definition(self, code: str, reference: str | None) -> Definition | None:
        """The published definition in force under a code, or the one a campaign is pinned to."""
        if reference is not None:
            if reference not in self._pinned:
                self._pinned[reference] = self._published(*reference.rsplit("@", 1))
            return self._pinned[reference]
        read_at, found = self._in_force.get(code, (float("-inf"), None))
        if self._now_seconds() - read_at > _FRESH_SECONDS:
            found = self._published(code, None)
            self._in_force[code] = (self._now_seconds(), found)
        return found

    def adopt(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None = None,
        attended: frozenset[str] = frozenset(),
    ) -> CampaignState:
        """Take over a campaign that an object kept itself; one that is here already stays as it is here.

        Nothing is sent by it: what was launched before the database was there is tracked from here on.
        """
        try:
            return self._adopted(state, history, program, attended)
        except StaleVersion:  # another process took it over at the same moment
            return self._adopted(state, history, program, attended)

    def close(self) -> None:
        """Let go of connections."""
        self._runtime.close()

    def _adopted(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None,
        attended: frozenset[str],
    ) -> CampaignState:
        with self._runtime.work(self.tenant_id, _PROGRAM, role="app") as ctx:
            row, new = adopt_campaign(ctx, KeptCampaign(state, history, program, attended))
            return state if new else state_of(row)

    def _published(self, code: str, version: str | None) -> Definition | None:
        with self._runtime.work(self.tenant_id, _PROGRAM, mode="read", role="app") as ctx:
            return published(ctx, code, version)


def _definition(ctx: Context, decision: Decision, key: CampaignKey) -> Definition:
    """By which a decision was made."""
    if decision.state.definition is not None:
        found = published(ctx, *decision.state.definition.rsplit("@", 1))
        if found is not None:
            return found
    return understand(decision.program or {}, code=key.name)


def _line(row: History, key: CampaignKey) -> HistoryEntry:
    return HistoryEntry(row.version, row.event, row.before, row.after, row.actor, row.at, row.payload, key.name)
