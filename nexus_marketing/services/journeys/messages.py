"""Messages of journeys: a send for each message, channel and version, whose recipients come one by one as runs get there.

Delivery hands them over like any others. What became of them is told to their runs by a sweep of settled rows, each in
the transaction that moves its run on, so that a crash in between loses nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from nexus_marketing.core.campaigns import CampaignAction, CampaignStatus
from nexus_marketing.core.definitions import STANDARD
from nexus_marketing.core.deliveries import DeliveryState, SendStatus
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.journeys import Journey, Outcome
from nexus_marketing.core.journeys.nodes import Message
from nexus_marketing.core.journeys.runs import SendMessage
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.models import Campaign, JourneyRun, Send
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.queries.journey_steps import append_messages
from nexus_marketing.db.queries.journeys import CALL_DUE, occurrence_of, withdraw_messages
from nexus_marketing.db.tenancy import append, find
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns.moving import apply_decision
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.campaigns.rows import state_of
from nexus_marketing.services.timers import cancel_timer

Pins = Mapping[str, Mapping[str, Mapping[str, Any]]]

#: Nobody can say of a message whose fate is unknown that it was sent.
OUTCOMES: Final[Mapping[str, Outcome]] = {
    DeliveryState.ACCEPTED: Outcome.SENT,
    DeliveryState.DELIVERED: Outcome.SENT,
    DeliveryState.COMPLAINED: Outcome.SENT,
    DeliveryState.SKIPPED: Outcome.SKIPPED,
}
_SEND: Final = ("journey_id", "version_number", "step", "channel")
_RESULTS: Final[Mapping[CampaignAction, CampaignStatus]] = {
    CampaignAction.PAUSE: CampaignStatus.ACTIVE,
    CampaignAction.RESUME: CampaignStatus.PAUSED,
}


def open_campaign(ctx: Context, row: JourneyRow) -> int:
    """The campaign under which a journey's messages are sent: active, without an audience or a message of its own."""
    if row.campaign_id is None:
        campaign = create_campaign(ctx, {"name": row.name, "data": {"journey_id": str(row.id)}})
        move = Move(CampaignAction.LAUNCH, ctx.now, actor=ctx.actor.label)
        # What it says is missing for a send of its own is right: runs bring its recipients.
        apply_decision(ctx, campaign, lifecycle.decide(STANDARD, state_of(campaign), move), STANDARD)
        row.campaign_id = campaign.id
        ctx.session.flush()
    return row.campaign_id


def move_campaign_along(ctx: Context, row: JourneyRow, action: CampaignAction) -> None:
    """Hold, go on with, or cancel what a journey has not handed over, with its campaign."""
    if row.campaign_id is None:
        return
    campaign = find(ctx.session, Campaign, row.campaign_id, lock=True)
    is_open = campaign.status in (CampaignStatus.ACTIVE, CampaignStatus.PAUSED)
    if campaign.status == _RESULTS.get(action) or (action is CampaignAction.CANCEL and is_open):
        move = Move(action, ctx.now, actor=ctx.actor.label, reason=f"journey {row.name}")
        apply_decision(ctx, campaign, lifecycle.decide(STANDARD, state_of(campaign), move), STANDARD)


def begin_messages(ctx: Context, row: JourneyRow, number: int, journey: Journey, pins: Pins) -> None:
    """A send for each message and channel of a new version; the channels of one message count once for caps."""
    campaign_id = open_campaign(ctx, row)
    for node in journey.nodes.values():
        if isinstance(node, Message):
            quiet_hours = (*journey.quiet_hours, *node.quiet_hours)
            _begin(ctx, row, (campaign_id, number), (node, quiet_hours), pins[node.id])


def _begin(
    ctx: Context,
    row: JourneyRow,
    version: tuple[int, int],
    message: tuple[Message, Sequence[Mapping[str, Any]]],
    pins: Mapping[str, Mapping[str, Any]],
) -> None:
    node, quiet_hours = message
    launch_id = None
    for channel in node.channels:
        pin = pins[channel]
        send_id = append(
            ctx.session,
            Send,
            campaign_id=version[0],
            campaign_version=version[1],
            journey_id=row.id,
            occurrence_key=node.id,
            launch_id=launch_id,
            status=SendStatus.PAUSED if row.status == JourneyStatus.PAUSED else SendStatus.RUNNING,
            message_class=str(node.message_class),
            channel=channel,
            priority=node.priority,
            obeys_caps=node.obeys_caps,
            counts_toward_caps=node.counts_toward_caps,
            quiet_hours=[dict(each) for each in quiet_hours] or None,
            obeys_quiet_hours=node.obeys_quiet_hours,
            template_id=int(pin["template_id"]),
            template_version=pin["version"],
            sender=pin["sender"],
            planned_at=ctx.now,
            started_at=ctx.now,
            send_not_after=ctx.now,
            created_at=ctx.now,
        )
        launch_id = launch_id or send_id


def send_messages(ctx: Context, messages: Iterable[tuple[Any, SendMessage]]) -> None:
    """Write recipients, each with the row of its run; runs hear what became of them, also where a send is over.

    Sends are locked in the order in which they come first: that of their ids, as everybody does it.
    """
    recipients: dict[tuple[int, int, str, str], list[tuple[int, int]]] = {}
    for row, message in messages:
        wanted = (row.journey_id, row.version_number, message.node, message.channel)
        recipients.setdefault(wanted, []).append((row.lead_id, occurrence_of(row.id, message.visit)))
    if not recipients:
        return
    with sent_ahead(ctx.session):
        sends = [
            append_messages(ctx.session, dict(zip(_SEND, wanted, strict=True)), found)
            for wanted, found in recipients.items()
        ]
    assert all(sent() for sent in sends), "a version that was published has a send for each of its messages"
    ctx.ring("sends")


def cancel_messages(ctx: Context, row: JourneyRun, visit: int) -> None:
    """Withdraw what a visit wrote, unless a worker has it in its hands."""
    withdraw_messages(ctx.session, row.lead_id, occurrence_of(row.id, visit))
    cancel_timer(ctx, CALL_DUE, f"{row.id}:{visit}")
