"""What a launch needs on the database: an audience, a message, a sender and the law's lines; and the send it makes."""

from typing import Any

from sqlalchemy import Row

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.messages import parse_message
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.tenancy import append
from nexus_marketing.runtime import Context


def begin_send(ctx: Context, campaign: Campaign) -> list[Problem]:
    """Write down the send that plans and delivers a campaign; or every reason why there can be none."""
    found = message_and_sender(ctx.session, campaign.template_id, campaign.channel)
    problems = _missing(ctx, campaign, found)
    if problems:
        return problems
    append(
        ctx.session,
        Send,
        campaign_id=campaign.id,
        campaign_version=campaign.version,
        occurrence_key="once",
        status=SendStatus.PLANNING,
        message_class=campaign.message_class,
        channel=campaign.channel,
        local_start=campaign.local_start,
        priority=campaign.priority,
        obeys_caps=campaign.obeys_caps,
        counts_toward_caps=campaign.counts_toward_caps,
        segment_id=campaign.segment_id,
        template_id=found.id,
        template_version=found.version,
        sender=found.sender,
        send_not_after=ctx.now + ctx.runtime.settings.grace,
        created_at=ctx.now,
    )
    ctx.ring("sends")
    return []


def missing_for_send(ctx: Context, campaign: Campaign) -> list[Problem]:
    """Every reason why a campaign could not be sent now."""
    return _missing(ctx, campaign, message_and_sender(ctx.session, campaign.template_id, campaign.channel))


def _missing(ctx: Context, campaign: Campaign, found: Row[Any]) -> list[Problem]:
    problems: list[Problem] = []
    if campaign.segment_id is None:
        problems.append(
            Problem("segment_id", "no_audience", "The campaign has no audience: set segment_id to a segment first.")
        )
    if found.id is None:
        problems.append(
            Problem("template_id", "no_template", "The campaign has no message: set template_id to a template first.")
        )
    if found.sender is None:
        problems.append(
            Problem("channel", "no_sender", f"No {campaign.channel} sender is set up: add a channel account first.")
        )
    if campaign.channel not in ctx.runtime.channels:
        problems.append(Problem("channel", "unknown_channel", f"There is no channel {campaign.channel!r} here."))
    if campaign.message_class == MessageClass.MARKETING and found.id is not None and found.sender is not None:
        problems += _marketing_problems(found)
    return problems


def _marketing_problems(found: Row[Any]) -> list[Problem]:
    """What the law asks of marketing mail (CAN-SPAM 15 USC 7704; CASL; RFC 8058)."""
    problems = []
    message = parse_message(found.content, found.variables)
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
