"""A campaign's row: as the engine sees it, as the engine's state is written into it, and the lines of its history."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.campaigns import CampaignKey, CampaignState, CampaignStatus, HistoryEntry
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import Problem, StaleVersion
from nexus_marketing.core.money import minor_units
from nexus_marketing.db.models import Campaign, History
from nexus_marketing.db.tenancy import append
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.definitions import given_fields


def write_state(campaign: Campaign, state: CampaignState) -> None:
    """A state into its row."""
    campaign.status = state.status
    campaign.stage = state.stage
    campaign.status_reason = state.reason
    campaign.resumes_to = state.resumes_to
    campaign.version = state.version
    campaign.counters = dict(state.counters)
    campaign.data = dict(state.data)
    campaign.starts_at = state.starts_at
    campaign.started_at = state.started_at
    campaign.completed_at = state.completed_at
    campaign.updated_at = state.updated_at or campaign.updated_at


def state_of(campaign: Campaign) -> CampaignState:
    """A row as the engine sees it."""
    pinned = f"{campaign.campaign_key}@{campaign.definition_version}" if campaign.definition_version else None
    return CampaignState(
        key=key_of(campaign) or CampaignKey("", "", campaign.name),
        id=campaign.external_id or str(campaign.id),
        title=campaign.name,
        stage=campaign.stage or campaign.status,
        status=CampaignStatus(campaign.status),
        version=campaign.version,
        data=campaign.data,
        counters=campaign.counters,
        definition=pinned,
        resumes_to=campaign.resumes_to,
        reason=campaign.status_reason,
        starts_at=campaign.starts_at,
        started_at=campaign.started_at,
        completed_at=campaign.completed_at,
        created_at=campaign.created_at,
        updated_at=campaign.updated_at,
    )


def key_of(campaign: Campaign) -> CampaignKey | None:
    """What subject a campaign is about, and its name there; nothing where it is about none."""
    if campaign.campaign_key is None:
        return None
    return CampaignKey(campaign.subject_type or "", campaign.subject_id or "", campaign.campaign_key)


def of_key(key: CampaignKey) -> Select[Campaign]:
    """The campaign of a subject under a name."""
    return select(Campaign).where(
        Campaign.subject_type == key.subject_type,
        Campaign.subject_id == key.subject_id,
        Campaign.campaign_key == key.name,
    )


def new_campaign_of(ctx: Context, state: CampaignState, definition: Definition) -> tuple[Campaign, list[Problem]]:
    """The row of a campaign that was never stored, and what of its definition could not be found here."""
    problems: list[Problem] = []
    fields = given_fields(ctx, definition, state.data, problems)
    fields.pop("budget", None)
    key = state.key
    channels = fields.get("channels")
    row = Campaign(
        **{
            "channel": next(iter(channels)) if channels else "email",
            **fields,
            **_budget_fields(state.data),
            "name": state.title,
        },
        campaign_key=key.name,
        subject_type=key.subject_type,
        subject_id=key.subject_id,
        external_id=state.id,
        definition_id=definition.row_id,
        definition_version=definition.version if definition.reference is not None else None,
        data=dict(state.data),
        counters={},
        status=CampaignStatus.DRAFT,
        stage=definition.entry(CampaignStatus.DRAFT),
        version=0,
        created_at=state.created_at or ctx.now,
        updated_at=state.updated_at or ctx.now,
    )
    ctx.session.add(row)
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise StaleVersion(f"Somebody else launched {key} first; look at it and try again.", current=1) from error
    record(ctx, "campaign.created", "campaign", row.id, {"campaign_key": (None, key.name)})
    return row, problems


def _budget_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """A budget in the data as the campaign's own, where its currency is known."""
    if data.get("budget") is None or data.get("currency") is None:
        return {}
    return {"budget_minor": minor_units(data["budget"], data["currency"]), "currency": data["currency"]}


def remember(ctx: Context, campaign: Campaign, entry: HistoryEntry) -> None:
    """A line of history into its table."""
    append(
        ctx.session,
        History,
        campaign_id=campaign.id,
        version=entry.version,
        event=entry.event,
        before=dict(entry.before),
        after=dict(entry.after),
        actor=entry.actor,
        actor_id=ctx.actor.member_id,
        payload=dict(entry.metadata),
        at=entry.at,
    )


def note(ctx: Context, campaign: Campaign, event: str, metadata: Mapping[str, Any]) -> None:
    """Write into a locked campaign's history what was done for it; what is nothing is left out."""
    said = {name: value for name, value in metadata.items() if value is not None}
    move = Move(event, ctx.now, actor=ctx.actor.label, metadata=said)
    decision = lifecycle.note(state_of(campaign), event, move)
    write_state(campaign, decision.state)
    remember(ctx, campaign, decision.entry)
    ctx.session.flush()
