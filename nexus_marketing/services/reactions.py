"""What people did about a campaign's posts, read back from the networks and written down as events of leads.

A lead is known by its handle, which stands in its metadata under the channel's name (``mastodon``, ``bluesky``); what others
did is counted alone. Each reaction is an event once, however often it is read.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from nexus_marketing.core.accounts import serving
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.contracts import Reaction, ReactionKind, WatchedChannel
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.queries.reactions import leads_by_handle, posts_of
from nexus_marketing.db.tenancy import find, tenant_of
from nexus_marketing.delivery.reactions import Seen, Watched, look_at
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.channel_configs import secrets_of_type
from nexus_marketing.services.engagements import MAX_BATCH, record_engagements

#: Older posts are not looked at: the ids of events are kept for a few days longer, so that nothing is written down twice.
WATCHED_FOR: Final = timedelta(days=30)


def read_reactions(runtime: Runtime, tenant_id: int, actor: Actor, campaign_id: int) -> list[dict[str, Any]]:
    """Look at the posts of a campaign's last 30 days, and write down what leads did.

    Returns:
        For each post ``send_id``, ``channel``, ``code`` (the network's name of it), how many ``favourite``, ``repost`` and
        ``reply`` the network shows (at most 400 each), how many were ``recorded`` as new events of leads, and ``error``.

    Raises:
        NotFound: there is no such campaign.
        SecretsUnreadable: the key of an account's secrets is gone.
    """
    with runtime.work(tenant_id, actor, mode="read") as ctx:
        find(ctx.session, Campaign, campaign_id)
        posts = list(_posts(ctx, campaign_id))
    return [_looked_at(runtime, tenant_id, actor, campaign_id, post) for post in posts]


def _posts(ctx: Context, campaign_id: int) -> Iterator[Watched]:
    runtime, accounts = ctx.runtime, accounts_of(ctx.session)
    watched = [name for name, channel in runtime.channels.items() if isinstance(channel, WatchedChannel)]
    for row in posts_of(ctx.session, campaign_id, watched, ctx.now - WATCHED_FOR) if watched else ():
        about = runtime.channels[row.channel].capabilities
        ours = serving(accounts.get(row.channel, ()), about.identity_settings, row.sender)
        own = runtime.account_settings(tenant_of(ctx.session), ours[0]) if ours else {}
        settings = {**row.sender, **own, **(runtime.channel_settings(ctx.session, row.channel) or {})}
        secrets = [settings[name] for name in settings.keys() & secrets_of_type(runtime, row.channel)]
        yield Watched(row.send_id, row.channel, row.code, settings, secrets)


def _looked_at(runtime: Runtime, tenant_id: int, actor: Actor, campaign_id: int, post: Watched) -> dict[str, Any]:
    channel = runtime.channels[post.channel]
    seen = look_at(channel, post) if isinstance(channel, WatchedChannel) else Seen(())
    recorded = 0
    if seen.reactions:
        with runtime.work(tenant_id, actor) as ctx:
            rows = _events(ctx, campaign_id, post, seen.reactions)
            for first in range(0, len(rows), MAX_BATCH):
                answers = record_engagements(ctx, rows[first : first + MAX_BATCH])
                recorded += sum(each["status"] == "accepted" for each in answers)
    counts = {str(kind): sum(each.kind is kind for each in seen.reactions) for kind in ReactionKind}
    said = {"send_id": str(post.send_id), "channel": post.channel, "code": post.code}
    return {**said, **counts, "recorded": recorded, "error": seen.error or None}


def _events(ctx: Context, campaign_id: int, post: Watched, reactions: Sequence[Reaction]) -> list[dict[str, Any]]:
    """Those of leads, as programs report events: ``post.favourite``, ``post.repost``, ``post.reply``."""
    leads = leads_by_handle(ctx.session, post.channel, {_handle(each.actor) for each in reactions if each.actor})
    # Networks pass on what people's programs say of the time: what cannot be is left to the moment of reading.
    oldest = ctx.now - WATCHED_FOR
    return [
        {
            "type": "custom",
            "name": f"post.{each.kind}",
            "lead_id": str(leads[_handle(each.actor)]),
            "event_id": "post:" + sha256(f"{post.channel} {each.id}".encode()).hexdigest(),
            "campaign_id": str(campaign_id),
            "channel": post.channel,
            **({"tracked_at": canonical_datetime(each.at)} if each.at and oldest < each.at <= ctx.now else {}),
            "properties": {"actor": each.actor, "post": post.code, **({"text": each.text} if each.text else {})},
        }
        for each in reactions
        if _handle(each.actor) in leads
    ]


def _handle(actor: str) -> str:
    return actor.removeprefix("@").lower()
