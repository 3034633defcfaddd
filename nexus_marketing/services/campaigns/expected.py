"""How long a campaign's messages take by everything that limits them (BEHAVIOUR.md 5.2, Rate control)."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from itertools import accumulate, combinations
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.pacing.capacity import Capacity, Fork, Passage, Steps
from nexus_marketing.core.pacing.rates import (
    RateLimit,
    account_limits,
    applying,
    as_sender,
    own_rates_of,
    rates_of,
    told_apart,
)
from nexus_marketing.core.pacing.warm_up import Burst, warm_ups_of
from nexus_marketing.core.preflight import MINUTE_SECONDS, Tally
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.queries.warm_ups import step_today
from nexus_marketing.delivery.senders import carrying_accounts, sender_of
from nexus_marketing.runtime import Context

#: So many domains are looked at in every combination: each more doubles the work.
_MOST_DOMAINS: Final = 6
#: Of the parts of an audience those that are about the slowest: it is looked at exactly which is.
_LOOKED_AT: Final = 3


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
    audiences = [
        (_capacity(limits, own, by_account, domains, is_marketing=is_marketing), count)
        for domains, count in _audiences([*limits, *(limit for each in by_account for limit in each)], tally)
    ]
    slowest = sorted(audiences, key=lambda each: each[0].fluid_seconds_for(each[1]))[-_LOOKED_AT:]
    longest = max(capacity.seconds_for(count) for capacity, count in slowest)
    capacity = _capacity(limits, own, by_account, (), is_marketing=is_marketing)
    burst = _last_of_warm_up(ctx, settings, channel, sender, tally.sendable, is_marketing=is_marketing)
    return max(longest, burst.seconds + capacity.seconds_for(burst.messages), _by_holds(tally, capacity))


def _capacity(
    limits: Sequence[RateLimit],
    own: Sequence[RateLimit],
    by_account: Iterable[Sequence[RateLimit]],
    domains: Collection[str],
    *,
    is_marketing: bool,
) -> Capacity:
    """What messages to these domains may use, each of a window's whole; to any, where none are named."""

    def of(found: Iterable[RateLimit], alone: Sequence[RateLimit] = ()) -> Passage:
        found = list(found)
        whole = [limit for limit in found if not limit.domains or (domains and limit.domains.issuperset(domains))]
        together = Steps.of(whole, alone, is_marketing=is_marketing)
        parts = [[limit for limit in found if domain in limit.domains] for domain in domains]
        if len(domains) < 2 or not all(parts):
            return together
        return Fork([Steps.of(each, is_marketing=is_marketing) for each in parts], together)

    return Capacity([of(each) for each in by_account], of(limits, own))


def _audiences(limits: Sequence[RateLimit], tally: Tally) -> Iterator[tuple[Sequence[str], int]]:
    """Parts of the audience none of which is through sooner than its rates allow, with how many they are.

    The slowest decides (the least cut of a flow, Ford and Fulkerson, 1956): of domains that the limits tell apart any that
    share an account's rate may be in each other's way. Of many only each alone, those of each limit and all of them.
    """
    yield (), tally.sendable
    groups = told_apart(tuple(limits))
    counts: Counter[str] = Counter()
    for domain, count in tally.domains.items():
        if domain in groups:
            counts[groups[domain]] += count
    named = sorted(counts)
    if len(named) <= _MOST_DOMAINS:
        parts = {part for size in range(1, len(named) + 1) for part in combinations(named, size)}
    else:
        parts = {(each,) for each in named} | {tuple(named)}
        parts |= {tuple(each for each in named if each in limit.domains) for limit in limits if limit.domains}
    for part in sorted(parts - {()}):
        yield part, sum(counts[each] for each in part)


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
