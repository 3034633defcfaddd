"""How long a campaign's messages take by everything that limits them (BEHAVIOUR.md 5.2, Rate control)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from itertools import accumulate
from typing import Any

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.pacing.capacity import Capacity, Steps
from nexus_marketing.core.pacing.rates import RateLimit, account_limits, applying, as_sender, own_rates_of, rates_of
from nexus_marketing.core.pacing.warm_up import Burst, warm_ups_of
from nexus_marketing.core.preflight import MINUTE_SECONDS, Tally
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.queries.warm_ups import step_today
from nexus_marketing.delivery.senders import carrying_accounts, sender_of
from nexus_marketing.runtime import Context


def expected_seconds(
    ctx: Context, campaign: Campaign, settings: Mapping[str, Any], channel: str, tally: Tally
) -> float:
    """How long the last of the sendable messages waits if the campaign is launched now and nothing else is sent.

    By the rates of the tenant, the channel, the sender, domains, the campaign and of every account that may carry it, by the
    sender's warm-up plan, and by what is held. Leaves out how fast the other side takes messages.

    Args:
        ctx: the unit of work.
        campaign: what is looked at.
        settings: of the tenant.
        channel: of the leg.
        tally: what was counted of it.
    """
    if not tally.sendable:
        return 0.0
    is_marketing = campaign.message_class == MessageClass.MARKETING
    pinned = sender_of(ctx.runtime, ctx.session, channel, message_and_sender(ctx.session, None, channel).sender) or {}
    sender = as_sender(pinned.get("from_email"))
    limits = applying(rates_of(settings, channel), sender)
    accounts = carrying_accounts(ctx.runtime, ctx.session, channel, pinned)
    by_account = [account_limits(each.rates, each.id) for each in accounts]
    own = own_rates_of(campaign.send_rates)
    everybody: frozenset[str] = frozenset()
    of_domains = {everybody} | {limit.domains for limit in [*limits, *(limit for each in by_account for limit in each)]}
    longest = 0.0
    for domains in of_domains:
        capacity = _capacity(limits, own, by_account, domains, is_marketing=is_marketing)
        count = sum(tally.domains[domain] for domain in domains) if domains else tally.sendable
        longest = max(longest, capacity.seconds_for(count))
    capacity = _capacity(limits, own, by_account, everybody, is_marketing=is_marketing)
    burst = _last_of_warm_up(ctx, settings, channel, sender, tally.sendable, is_marketing=is_marketing)
    return max(longest, burst.seconds + capacity.seconds_for(burst.messages), _by_holds(tally, capacity))


def _capacity(
    limits: Sequence[RateLimit],
    own: Sequence[RateLimit],
    by_account: Iterable[Sequence[RateLimit]],
    domains: frozenset[str],
    *,
    is_marketing: bool,
) -> Capacity:
    """What messages to these domains may use, each of a window's whole; to any, where none are named."""

    def of(found: Iterable[RateLimit], alone: Sequence[RateLimit] = ()) -> Steps:
        counting = [limit for limit in found if not limit.domains or (domains and domains <= limit.domains)]
        return Steps.of(counting, alone, is_marketing=is_marketing)

    return Capacity([of(each) for each in by_account], of(limits, own))


def _by_holds(tally: Tally, capacity: Capacity) -> float:
    """Whoever is held until late shares the rates with all who are held as long or longer."""
    longest = tally.held_seconds
    minutes = sorted(tally.minutes, reverse=True)
    for minute, count in zip(minutes, accumulate(tally.minutes[each] for each in minutes), strict=True):
        begin = minute * MINUTE_SECONDS
        if begin >= longest or capacity.within(longest - begin) < count:
            longest = begin + capacity.seconds_for(count)
    return longest


def _last_of_warm_up(
    ctx: Context, settings: Mapping[str, Any], channel: str, sender: str | None, count: int, *, is_marketing: bool
) -> Burst:
    """Who leaves last by the plan of a new sender; everybody at once where there is none."""
    plans = [plan for plan in warm_ups_of(settings) if plan.sender == sender]
    found = ctx.runtime.channels.get(channel)
    if not plans or found is None or found.capabilities.address_kind is not AddressKind.EMAIL:
        return Burst(0.0, count)
    at = ctx.now.astimezone(UTC)
    day_seconds = (at - at.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    bursts = [
        plan.last_burst(count, step_today(ctx.session, plan, at), day_seconds, is_marketing=is_marketing)
        for plan in plans
    ]
    return max(bursts)
