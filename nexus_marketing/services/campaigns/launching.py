"""What a launch needs on the database: an audience, a message, a sender and the law's lines; and the send it makes."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind, Channel, PostingChannel
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.fan_out import Leg, legs_of, needed
from nexus_marketing.core.messages import EMAIL, PRODUCT_NAMES, plain_text, untracked
from nexus_marketing.core.templates import parse_message
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Campaign, Send, Tenant
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.tenancy import append
from nexus_marketing.delivery.senders import launch_problems, sender_of
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Context
from nexus_marketing.services.watching import watch


class Ready(NamedTuple):
    """What one channel of a launch goes out with: the template's columns, and the sender where there is one."""

    message: Row[Any]
    sender: Mapping[str, Any] | None


def begin_sends(ctx: Context, campaign: Campaign, planned: datetime | None = None) -> list[Problem]:
    """Write down the sends that plan and deliver a campaign, one for each channel; or every reason why there can be none.

    Args:
        ctx: the unit of work.
        campaign: locked.
        planned: of a recurring campaign, when this run was due; what begins much later is missed.
    """
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    found = ready_for(ctx, legs)
    problems = _missing(ctx, campaign, legs, found)
    if problems:
        return problems
    launch_id = None
    for leg, (message, sender) in zip(legs, found, strict=True):
        send_id = append(
            ctx.session,
            Send,
            campaign_id=campaign.id,
            campaign_version=campaign.version,
            occurrence_key="once" if planned is None else canonical_datetime(planned),
            launch_id=launch_id,
            legs=len(legs),
            wait_for=needed(campaign.wait_for, len(legs)),
            status=SendStatus.PLANNING,
            message_class=campaign.message_class,
            channel=leg.channel,
            local_start=campaign.local_start,
            priority=campaign.priority,
            obeys_caps=campaign.obeys_caps,
            counts_toward_caps=campaign.counts_toward_caps and not is_public(ctx, leg.channel),
            segment_id=campaign.segment_id,
            template_id=message.id,
            template_version=message.version,
            sender=sender,
            send_not_after=(planned or ctx.now) + ctx.runtime.settings.grace,
            created_at=ctx.now,
        )
        launch_id = launch_id or send_id
        watch(ctx, campaign.id, leg.channel)
    ctx.ring("sends")
    return []


def missing_for_send(ctx: Context, campaign: Campaign) -> list[Problem]:
    """Every reason why a campaign could not be sent now."""
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    return _missing(ctx, campaign, legs, ready_for(ctx, legs))


def ready_for(ctx: Context, legs: Sequence[Leg]) -> list[Ready]:
    """For each channel its template and the settings of its sender, where there are any."""
    rows = [(leg.channel, message_and_sender(ctx.session, leg.template_id, leg.channel)) for leg in legs]
    return [Ready(row, sender_of(ctx.runtime, ctx.session, channel, row.sender)) for channel, row in rows]


def _missing(ctx: Context, campaign: Campaign, legs: Sequence[Leg], found: Sequence[Ready]) -> list[Problem]:
    problems: list[Problem] = []
    if campaign.segment_id is None:
        problems.append(
            Problem("segment_id", "no_audience", "The campaign has no audience: set segment_id to a segment first.")
        )
    for leg, ready in zip(legs, found, strict=True):
        problems += leg_problems(ctx, MessageClass(campaign.message_class), leg, ready)
    return problems


def leg_problems(ctx: Context, message_class: MessageClass, leg: Leg, ready: Ready) -> list[Problem]:
    """Every reason why a message cannot go out by one channel.

    Args:
        ctx: the unit of work.
        message_class: the law asks more of marketing.
        leg: which channel, and where it stands in its document.
        ready: as :func:`ready_for` finds it.
    """
    problems: list[Problem] = []
    found, sender = ready
    field, place = leg.path("template_id"), leg.at or "channel"
    if found.id is None:
        said = f"The campaign has no message: set {field} to a template first."
        problems.append(Problem(field, "no_template", said))
    plugin = ctx.runtime.plugin_of(leg.channel)
    if sender is None:
        problems.append(_no_sender(leg.channel, place) if plugin is None else _plugin_off(ctx, plugin, leg, place))
    channel = ctx.runtime.channels.get(leg.channel)
    if channel is None:
        problems.append(Problem(place, "unknown_channel", f"There is no channel {leg.channel!r} here."))
        return problems
    if plugin is not None and sender is not None:
        problems += launch_problems(ctx.runtime, ctx.session, channel, place)
    takes = channel.capabilities.template_type
    if found.id is not None and found.type != takes:
        said = f"The template is of type {found.type}, {leg.channel} takes {takes}: choose another one."
        problems.append(Problem(field, "wrong_type", said))
    elif found.id is not None and is_public(ctx, leg.channel):
        problems += _post_problems(channel, found, sender or {}, field)
    elif message_class is MessageClass.MARKETING and found.id is not None and sender is not None:
        problems += _marketing_problems(found, sender) if takes == EMAIL else []
    return problems


def is_public(ctx: Context, channel: str) -> bool:
    """Whether what goes out by a channel is one post for everybody."""
    found = ctx.runtime.channels.get(channel)
    return found is not None and found.capabilities.address_kind is AddressKind.AUDIENCE


def _post_problems(channel: Channel, found: Row[Any], sender: Mapping[str, Any], field: str) -> list[Problem]:
    """Everybody reads a post: nothing of the lead that stands for them may be in it, nor a way out that is this lead's."""
    message = parse_message(found.content, found.variables, found.type)
    personal = sorted(message.names - (PRODUCT_NAMES - {"unsubscribe_url"}))
    if personal:
        said = f"A post is read by everybody, and this one holds {', '.join(personal)}: choose a template without."
        return [Problem(field, "not_public", said)]
    if message.names or not isinstance(channel, PostingChannel):
        return []
    try:
        channel.check_text(sender, plain_text(untracked(message).parts["text"], {}))
    except ValidationError as error:
        return [Problem(field, each.code, each.message) for each in error.problems]
    return []


def _no_sender(channel: str, place: str) -> Problem:
    return Problem(place, "no_sender", f"No {channel} sender is set up: add a channel account first.")


def _plugin_off(ctx: Context, plugin: Plugin, leg: Leg, place: str) -> Problem:
    slug = ctx.session.scalar(select(Tenant.slug).where(Tenant.id == ctx.tenant_id))
    remedy = f"nexus-marketing plugins enable {plugin.name} --tenant {slug}"
    return Problem(place, "plugin_off", f"{leg.channel} belongs to the plugin {plugin.name}, which is off: {remedy}.")


def _marketing_problems(found: Row[Any], sender: Mapping[str, Any]) -> list[Problem]:
    """What the law asks of marketing mail (CAN-SPAM 15 USC 7704; CASL; RFC 8058)."""
    problems = []
    message = parse_message(found.content, found.variables, found.type)
    for name, pieces in message.parts.items():
        if name != "subject" and not any(getattr(piece, "path", "") == "unsubscribe_url" for piece in pieces):
            problems.append(
                Problem(
                    f"template.content.{name}",
                    "no_unsubscribe_link",
                    "Marketing mail needs a visible way out: put {{ unsubscribe_url }} in this part.",
                )
            )
    if not str(sender.get("postal_address", "")).strip():
        problems.append(
            Problem("channel.postal_address", "no_postal_address", "Marketing mail needs the sender's postal address.")
        )
    elif not any("postal_address" in _paths(pieces) for name, pieces in message.parts.items() if name != "subject"):
        problems.append(Problem("template.content", "no_postal_address", "Put {{ postal_address }} in the message."))
    return problems


def _paths(pieces: tuple[Any, ...]) -> set[str]:
    return {getattr(piece, "path", "") for piece in pieces}
