"""Pre-flights: what would become of a campaign, and whether that still holds when it is launched (BEHAVIOUR.md 5.2)."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select

from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignStatus
from nexus_marketing.core.errors import Conflict, NotFound, Problem, ValidationError
from nexus_marketing.core.fan_out import legs_of
from nexus_marketing.core.preflight import TOLERANCE, VALID_FOR, PreflightStatus, Standing, Tally, moved
from nexus_marketing.db.models import Campaign, Preflight, Segment, Template, Tenant
from nexus_marketing.db.tenancy import append, find
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns.expected import expected_seconds
from nexus_marketing.services.campaigns.launching import missing_for_send

#: Pre-flights of a tenant that wait at a time: each looks at a whole audience.
MOST_WAITING: Final = 10
_KEPT: Final = timedelta(days=7)


def request_preflight(ctx: Context, campaign_id: int) -> Preflight:
    """Ask what would become of a campaign if it were launched now; a worker counts, pieces of the audience at a time.

    Where something stands in the way of a launch, all of it is said at once and nobody is counted.

    Raises:
        NotFound: there is no such campaign.
        Conflict: it is sending or over, or too many pre-flights of the tenant wait already.
    """
    campaign = find(ctx.session, Campaign, campaign_id)
    if campaign.status == CampaignStatus.ACTIVE or campaign.status in FINAL_STATUSES:
        raise Conflict(f"The campaign is {campaign.status}: look before the launch.", status=campaign.status)
    waiting = select(func.count()).select_from(Preflight).where(Preflight.status == PreflightStatus.WAITING)
    if (ctx.session.scalar(waiting) or 0) >= MOST_WAITING:
        raise Conflict(f"{MOST_WAITING} pre-flights wait already: ask again when they are done.")
    old = delete(Preflight).where(Preflight.campaign_id == campaign_id, Preflight.created_at < ctx.now - _KEPT)
    ctx.session.execute(old)
    problems = missing_for_send(ctx, campaign)
    id_ = append(
        ctx.session,
        Preflight,
        campaign_id=campaign.id,
        campaign_version=campaign.version,
        status=PreflightStatus.DONE if problems else PreflightStatus.WAITING,
        templates=_templates(ctx, campaign),
        tallies={},
        problems=[{"path": each.path, "code": each.code, "message": each.message} for each in problems],
        created_at=ctx.now,
        finished_at=ctx.now if problems else None,
    )
    ctx.ring("preflights")
    return find(ctx.session, Preflight, id_)


def preflight_document(ctx: Context, preflight: Preflight) -> dict[str, Any]:
    """What a pre-flight found.

    Returns:
        ``status`` (``waiting``, ``done``, ``failed`` with ``error``), ``problems`` that forbid a launch, ``audience``,
        and by channel: ``planned`` = ``sendable`` + the sum of ``skipped`` by reason; of the sendable ones ``held`` by
        reason with the longest wait in ``held_seconds``, and ``outranked_by`` (send → how many); ``segments`` of texts
        where those are paid for; ``cost_minor``; ``template_version``; ``expected_seconds`` and ``expected_finish`` by
        every limit and what is held (``minutes``: how many wait so many minutes).
    """
    campaign = find(ctx.session, Campaign, preflight.campaign_id)
    settings = ctx.session.scalar(select(Tenant.settings).where(Tenant.id == ctx.tenant_id)) or {}
    channels = {}
    for name, found in preflight.tallies.items():
        tally = Tally.read(found)
        seconds = expected_seconds(ctx, campaign, settings, name, tally)
        channel = ctx.runtime.channels.get(name)
        cost = 0
        if channel is not None:
            about = channel.capabilities
            cost = tally.sendable * about.cost_minor_per_message + tally.segments * about.cost_minor_per_segment
        channels[name] = {
            "planned": tally.planned,
            **tally.document(),
            "cost_minor": cost,
            "template_version": preflight.templates.get(name),
            "expected_seconds": seconds,
            "expected_finish": ctx.now + timedelta(seconds=seconds),
        }
    return {
        "id": str(preflight.id),
        "campaign_id": str(preflight.campaign_id),
        "campaign_version": preflight.campaign_version,
        "status": preflight.status,
        "error": preflight.error,
        "problems": preflight.problems,
        "audience": preflight.audience,
        "channels": channels,
        "created_at": preflight.created_at,
        "finished_at": preflight.finished_at,
        "valid_until": preflight.created_at + VALID_FOR,
    }


def check_preflight(ctx: Context, campaign_id: int, preflight_id: int | None, tolerance: float | None = None) -> None:
    """Refuse a launch that is not the one that was looked at.

    Args:
        ctx: the unit of work of the launch.
        campaign_id: what is launched; locked.
        preflight_id: what the caller has seen; whoever names none is not held to any.
        tolerance: by how many percent (0 to 100) the audience may have changed; 5 where it is left out.

    Raises:
        ValidationError: a tolerance without a pre-flight, or out of bounds.
        NotFound: the campaign has no such pre-flight.
        Conflict: it is not done, found problems, or does not hold any more; says what moved.
    """
    if tolerance is not None and (preflight_id is None or not 0 <= tolerance <= 100):
        said = "The tolerance of a pre-flight is 0 to 100 percent: name its preflight_id too."
        raise ValidationError.at("tolerance", "out_of_bounds", said)
    if preflight_id is None:
        return
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    wanted = select(Preflight).where(Preflight.id == preflight_id, Preflight.campaign_id == campaign_id)
    preflight = ctx.session.scalars(wanted).first()
    if preflight is None:
        raise NotFound("The campaign has no such pre-flight.")
    if preflight.status != PreflightStatus.DONE:
        said = "was not finished" if preflight.status == PreflightStatus.FAILED else "is not done yet"
        raise Conflict(f"The pre-flight {said}: launch when it is.", status=preflight.status)
    if preflight.problems:
        found = [Problem(**each) for each in preflight.problems]
        raise Conflict("The pre-flight found problems: mend them and look again.", problems=found)
    audience = ctx.session.scalar(select(Segment.lead_count).where(Segment.id == campaign.segment_id)) or 0
    seen = Standing(preflight.campaign_version, preflight.audience, preflight.templates, preflight.created_at)
    now = Standing(campaign.version, audience, _templates(ctx, campaign), ctx.now)
    changes = moved(seen, now, TOLERANCE if tolerance is None else tolerance)
    if changes:
        raise Conflict(f"Since the pre-flight {'; '.join(changes)}: look again.", changes=changes)


def _templates(ctx: Context, campaign: Campaign) -> dict[str, int]:
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    ids = {leg.template_id for leg in legs if leg.template_id is not None}
    found = ctx.session.execute(select(Template.id, Template.version).where(Template.id.in_(ids)))
    versions = {row.id: row.version for row in found}
    return {leg.channel: versions[leg.template_id] for leg in legs if leg.template_id in versions}
