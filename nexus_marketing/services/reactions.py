"""What people did about a campaign's posts, read back from the networks and written down as events of leads.

A lead is known by its handle, which stands in its metadata under the channel's name (``mastodon``, ``bluesky``); what others
did is counted alone. Each reaction is an event once, however often it is read. A timer of each campaign that posts looks,
at first often and after thirty days no more; what it saw stands with the send.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.contracts import Reaction, ReactionKind, WatchedChannel
from nexus_marketing.core.errors import Conflict, NexusError
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.core.watching import WATCHED_FOR, next_look
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.queries.reactions import last_seen, leads_by_handle, note_seen, posts_of
from nexus_marketing.db.queries.timers import hold_timer, take_timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.reactions import Seen, look_at
from nexus_marketing.delivery.senders import asked_with
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.engagements import MAX_BATCH, record_engagements
from nexus_marketing.services.timers import Outside, set_timer
from nexus_marketing.services.watching import TYPE
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Somebody who asks again at once is told what was seen just now.
_FRESH: Final = timedelta(minutes=1)
#: One firing looks no longer than this at posts, of which each may take minutes where its network is slow.
_TURN_SECONDS: Final = 20.0
_LEASE_SECONDS: Final = 900.0
_LATER: Final = timedelta(minutes=1)
_MUCH_LATER: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class _Post:
    """A post, or one that a send is still to make (``code`` is empty), and what was seen of it before."""

    send_id: int
    channel: str
    code: str
    sender: Mapping[str, Any]
    posted_at: datetime
    is_over: bool
    before: Mapping[str, Any]
    seen_at: datetime | None

    def due_at(self, now: datetime) -> datetime | None:
        """When it is to be looked at again; nothing where it is too old, or will never be posted."""
        if self.code:
            return next_look(self.posted_at, self.seen_at)
        return None if self.is_over else next_look(self.posted_at, now)

    def document(self) -> dict[str, Any]:
        """As people see it."""
        told = {"send_id": str(self.send_id), "channel": self.channel, "code": self.code}
        counts = {str(kind): self.before.get(kind) for kind in ReactionKind}
        rest = {name: self.before.get(name) for name in ("recorded", "error", "seen_at")}
        return {**told, **counts, **rest}


def seen_reactions(ctx: Context, campaign_id: int) -> list[dict[str, Any]]:
    """What was last seen of a campaign's posts, the newest first, at most 100; nobody is asked for it.

    Returns:
        For each post ``send_id``, ``channel``, ``code`` (the network's name of it), how many ``favourite``, ``repost`` and
        ``reply`` the network showed, how many of them were ``recorded`` as events of leads, why the last look found nothing
        (``error``), and when that was (``seen_at``). Of a post that nobody has looked at yet the rest is nothing.

    Raises:
        NotFound: there is no such campaign.
    """
    find(ctx.session, Campaign, campaign_id)
    return [post.document() for post in _posts(ctx, campaign_id) if post.code]


def ask_again(ctx: Context, campaign_id: int) -> list[dict[str, Any]]:
    """Have a worker look at a campaign's posts now, and answer what was seen before.

    Raises:
        NotFound: there is no such campaign.
        Conflict: it has no post that is young enough to be looked at.
    """
    found = seen_reactions(ctx, campaign_id)
    if not any(_is_young(post, ctx.now) for post in _posts(ctx, campaign_id) if post.code):
        raise Conflict("The campaign has posted nothing in the last 30 days that could be looked at.")
    set_timer(ctx, TYPE, str(campaign_id), ctx.now, {"now": True}, campaign_id=campaign_id)
    ctx.ring("timers")
    return found


def read_reactions(runtime: Runtime, tenant_id: int, actor: Actor, campaign_id: int) -> list[dict[str, Any]]:
    """Look at the posts of a campaign's last 30 days now, and write down what leads did.

    Returns:
        As :func:`seen_reactions`; ``recorded`` are those that are new.

    Raises:
        NotFound: there is no such campaign.
    """
    with runtime.work(tenant_id, actor, mode="read") as ctx:
        find(ctx.session, Campaign, campaign_id)
        posts = [post for post in _posts(ctx, campaign_id) if post.code and _is_young(post, ctx.now)]
    return [_looked_at(runtime, tenant_id, actor, campaign_id, post)[0] for post in posts]


def look_due(runtime: Runtime, timer: TimerFact) -> None:
    """Look at the posts of a campaign whose time has come, then wait for the next of them."""
    try:
        again = _look(runtime, timer)
    except NexusError as error:
        log.warning(
            "reactions_not_read", tenant_id=timer.tenant_id, campaign_id=timer.campaign_id, reason=error.message
        )
        again = runtime.clock.now() + _MUCH_LATER
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if take_timer(ctx.session, timer) and again is not None:
            set_timer(ctx, TYPE, timer.key, again, campaign_id=timer.campaign_id)


def _look(runtime: Runtime, timer: TimerFact) -> datetime | None:
    """Look for a while, those first that were not looked at for the longest time; answers when to go on."""
    now, campaign_id = runtime.clock.now(), int(timer.key)
    with runtime.work(timer.tenant_id, SYSTEM, mode="read") as ctx:
        posts = list(_posts(ctx, campaign_id))
    until, away = time.monotonic() + _TURN_SECONDS, set[str]()
    is_asked, again = bool(timer.payload.get("now")), []
    for post in sorted(posts, key=lambda each: each.seen_at or each.posted_at):
        due = now if is_asked and post.code and _is_young(post, now) else post.due_at(now)
        if due is None or due > now or (is_asked and post.seen_at is not None and now - post.seen_at < _FRESH):
            again.append(due)
        elif post.channel in away:
            again.append(now + _LATER * 15)
        elif time.monotonic() > until or not _held(runtime, timer):
            again.append(now + _LATER)
        else:
            _, seen = _looked_at(runtime, timer.tenant_id, SYSTEM, campaign_id, post)
            away |= {post.channel} if seen.is_away else set()
            again.append(next_look(post.posted_at, now))
    return min((each for each in again if each is not None), default=None)


def _held(runtime: Runtime, timer: TimerFact) -> bool:
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        return hold_timer(ctx.session, timer, _LEASE_SECONDS)


def _is_young(post: _Post, now: datetime) -> bool:
    return now - post.posted_at < WATCHED_FOR


def _posts(ctx: Context, campaign_id: int) -> Iterator[_Post]:
    watched = [name for name, channel in ctx.runtime.channels.items() if isinstance(channel, WatchedChannel)]
    for row in posts_of(ctx.session, campaign_id, watched):
        about = row.send_id, row.channel, row.code or "", row.sender, row.created_at
        yield _Post(*about, row.finished_at is not None, row.reactions or {}, last_seen(row.reactions))


def _looked_at(
    runtime: Runtime, tenant_id: int, actor: Actor, campaign_id: int, post: _Post
) -> tuple[dict[str, Any], Seen]:
    seen = _seen(runtime, tenant_id, post)
    with runtime.work(tenant_id, actor) as ctx:
        recorded = _record(ctx, campaign_id, post, seen.reactions)
        counts = {str(kind): sum(each.kind is kind for each in seen.reactions) for kind in ReactionKind}
        if seen.error:
            counts = {name: post.before.get(name) or 0 for name in counts}
        said = {"code": post.code, **counts, "error": seen.error or None, "seen_at": canonical_datetime(ctx.now)}
        note_seen(ctx.session, post.send_id, {**said, "recorded": recorded + (post.before.get("recorded") or 0)})
    told = {"send_id": str(post.send_id), "channel": post.channel}
    return {**told, **said, "recorded": recorded}, seen


def _seen(runtime: Runtime, tenant_id: int, post: _Post) -> Seen:
    channel = runtime.channels[post.channel]
    if not isinstance(channel, WatchedChannel):
        return Seen((), f"The network of {post.channel} is not asked for reactions here.")
    try:
        with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
            accounts = accounts_of(ctx.session).get(post.channel, ())
            way = asked_with(runtime, ctx.session, runtime.channels[post.channel], accounts, post.sender)[0]
    except NexusError as error:  # its account is off or gone, or cannot be read: the others are looked at
        return Seen((), error.message)
    return look_at(channel, post.channel, post.code, way)


def _record(ctx: Context, campaign_id: int, post: _Post, reactions: Sequence[Reaction]) -> int:
    """Write events of leads; answers how many are new."""
    rows = _events(ctx, campaign_id, post, reactions)
    pieces = [rows[first : first + MAX_BATCH] for first in range(0, len(rows), MAX_BATCH)]
    return sum(each["status"] == "accepted" for piece in pieces for each in record_engagements(ctx, piece))


def _events(ctx: Context, campaign_id: int, post: _Post, reactions: Sequence[Reaction]) -> list[dict[str, Any]]:
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


def _tomorrow(ctx: Context, timer: TimerFact, reason: str) -> None:
    """Workers ended over it again and again: it is let rest, and then looked once more."""
    log.error("reactions_given_up", tenant_id=timer.tenant_id, campaign_id=timer.campaign_id, reason=reason)
    set_timer(ctx, TYPE, timer.key, ctx.now + timedelta(days=1), campaign_id=timer.campaign_id)


#: What the timer of a campaign that posts does.
REACTIONS_DUE: Final = Outside(look_due, _tomorrow)
