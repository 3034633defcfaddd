"""When a recurring campaign is sent next: one timer, which can be moved and taken back before it fires."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.pacing.recurrence import Recurrence, read_recurrence
from nexus_marketing.core.values import join
from nexus_marketing.db.models import Campaign, Tenant
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import cancel_timer, set_timer

#: The timer of a campaign's next run.
TYPE: Final = "campaign.run"
#: What runs are counted by, and what the history calls them.
RUN: Final = "run_begun"
SKIPPED: Final = "run_skipped"


def rule_of(ctx: Context, document: Mapping[str, Any]) -> Recurrence:
    """A campaign's rule, by the clock that it or the tenant names.

    Raises:
        ValidationError: it is none.
    """
    settings = ctx.session.scalar(select(Tenant.settings).where(Tenant.id == ctx.tenant_id)) or {}
    return read_recurrence(document, settings.get("default_time_zone"))


def recurrence_faults(ctx: Context, document: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a rule, with its place in the campaign."""
    try:
        rule_of(ctx, document)
    except ValidationError as error:
        return [Problem(join("recurrence", each.path), each.code, each.message) for each in error.problems]
    return []


def arm(ctx: Context, campaign: Campaign, after: datetime) -> bool:
    """Wait for the first run after a moment; ``False`` where there is none left."""
    at = rule_of(ctx, campaign.recurrence or {}).next_after(after, campaign.counters.get(RUN, 0))
    if at is None:
        disarm(ctx, campaign)
        return False
    wait_until(ctx, campaign, at)
    return True


def wait_until(ctx: Context, campaign: Campaign, at: datetime) -> None:
    """Let the next run be at this moment."""
    campaign.next_run_at = at
    set_timer(ctx, TYPE, str(campaign.id), at, campaign_id=campaign.id)


def disarm(ctx: Context, campaign: Campaign) -> None:
    """There is no next run."""
    campaign.next_run_at = None
    cancel_timer(ctx, TYPE, str(campaign.id))
