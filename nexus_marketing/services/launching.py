"""What a launch needs on the database: an audience, a message, a sender and the law's lines; and the send it makes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.fan_out import Leg, legs_of, needed
from nexus_marketing.core.messages import EMAIL, parse_message
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.tenancy import append
from nexus_marketing.runtime import Context


def begin_sends(ctx: Context, campaign: Campaign, planned: datetime | None = None) -> list[Problem]:
    """Write down the sends that plan and deliver a campaign, one for each channel; or every reason why there can be none.

    Args:
        ctx: the unit of work.
        campaign: locked.
        planned: of a recurring campaign, when this run was due; what begins much later is missed.
    """
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    found = [message_and_sender(ctx.session, leg.template_id, leg.channel) for leg in legs]
    problems = _missing(ctx, campaign, legs, found)
    if problems:
        return problems
    launch_id = None
    for leg, message in zip(legs, found, strict=True):
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
            counts_toward_caps=campaign.counts_toward_caps,
            segment_id=campaign.segment_id,
            template_id=message.id,
            template_version=message.version,
            sender=message.sender,
            send_not_after=(planned or ctx.now) + ctx.runtime.settings.grace,
            created_at=ctx.now,
        )
        launch_id = launch_id or send_id
    ctx.ring("sends")
    return []


def missing_for_send(ctx: Context, campaign: Campaign) -> list[Problem]:
    """Every reason why a campaign could not be sent now."""
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    return _missing(
        ctx, campaign, legs, [message_and_sender(ctx.session, leg.template_id, leg.channel) for leg in legs]
    )


def _missing(ctx: Context, campaign: Campaign, legs: Sequence[Leg], found: Sequence[Row[Any]]) -> list[Problem]:
    problems: list[Problem] = []
    if campaign.segment_id is None:
        problems.append(
            Problem("segment_id", "no_audience", "The campaign has no audience: set segment_id to a segment first.")
        )
    for leg, message in zip(legs, found, strict=True):
        problems += _missing_of(ctx, campaign, leg, message)
    return problems


def _missing_of(ctx: Context, campaign: Campaign, leg: Leg, found: Row[Any]) -> list[Problem]:
    problems: list[Problem] = []
    field, place = leg.path("template_id"), leg.at or "channel"
    if found.id is None:
        said = f"The campaign has no message: set {field} to a template first."
        problems.append(Problem(field, "no_template", said))
    if found.sender is None:
        said = f"No {leg.channel} sender is set up: add a channel account first."
        problems.append(Problem(place, "no_sender", said))
    channel = ctx.runtime.channels.get(leg.channel)
    if channel is None:
        problems.append(Problem(place, "unknown_channel", f"There is no channel {leg.channel!r} here."))
        return problems
    takes = channel.capabilities.template_type
    if found.id is not None and found.type != takes:
        said = f"The template is of type {found.type}, {leg.channel} takes {takes}: choose another one."
        problems.append(Problem(field, "wrong_type", said))
    elif campaign.message_class == MessageClass.MARKETING and found.id is not None and found.sender is not None:
        problems += _marketing_problems(found) if takes == EMAIL else []
    return problems


def _marketing_problems(found: Row[Any]) -> list[Problem]:
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
    if not str(found.sender.get("postal_address", "")).strip():
        problems.append(
            Problem("channel.postal_address", "no_postal_address", "Marketing mail needs the sender's postal address.")
        )
    elif not any("postal_address" in _paths(pieces) for name, pieces in message.parts.items() if name != "subject"):
        problems.append(Problem("template.content", "no_postal_address", "Put {{ postal_address }} in the message."))
    return problems


def _paths(pieces: tuple[Any, ...]) -> set[str]:
    return {getattr(piece, "path", "") for piece in pieces}
