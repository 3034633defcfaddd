"""The campaign's life: six statuses and the moves between them (DESIGN.md 4.17)."""

from collections.abc import Mapping
from enum import StrEnum

from nexus_marketing.core.errors import TransitionRefused


class CampaignStatus(StrEnum):
    """The requirements' statuses."""

    DRAFT = "draft"
    QUEUED = "queued"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class CampaignAction(StrEnum):
    """What may be asked of a campaign."""

    LAUNCH = "launch"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    CANCEL = "cancel"


class MessageClass(StrEnum):
    """Decides consent, caps and what happens to an ambiguous hand-over."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"


_MOVES: Mapping[tuple[CampaignStatus, CampaignAction], CampaignStatus] = {
    (CampaignStatus.DRAFT, CampaignAction.LAUNCH): CampaignStatus.ACTIVE,
    (CampaignStatus.QUEUED, CampaignAction.LAUNCH): CampaignStatus.ACTIVE,
    (CampaignStatus.ACTIVE, CampaignAction.PAUSE): CampaignStatus.PAUSED,
    (CampaignStatus.QUEUED, CampaignAction.PAUSE): CampaignStatus.PAUSED,
    (CampaignStatus.PAUSED, CampaignAction.RESUME): CampaignStatus.ACTIVE,
    (CampaignStatus.ACTIVE, CampaignAction.COMPLETE): CampaignStatus.COMPLETED,
    (CampaignStatus.DRAFT, CampaignAction.CANCEL): CampaignStatus.CANCELLED,
    (CampaignStatus.QUEUED, CampaignAction.CANCEL): CampaignStatus.CANCELLED,
    (CampaignStatus.ACTIVE, CampaignAction.CANCEL): CampaignStatus.CANCELLED,
    (CampaignStatus.PAUSED, CampaignAction.CANCEL): CampaignStatus.CANCELLED,
}

FINAL_STATUSES = frozenset({CampaignStatus.COMPLETED, CampaignStatus.CANCELLED})


def move(status: CampaignStatus, action: CampaignAction) -> CampaignStatus:
    """Where an action leads.

    >>> move(CampaignStatus.DRAFT, CampaignAction.LAUNCH)
    <CampaignStatus.ACTIVE: 'active'>

    Raises:
        TransitionRefused: the action is not possible from here; names those that are.
    """
    try:
        return _MOVES[(status, action)]
    except KeyError:
        possible = ", ".join(sorted(a for s, a in _MOVES if s is status)) or "nothing more"
        raise TransitionRefused(
            f"A campaign that is {status} cannot be asked to {action}: possible here: {possible}.",
            status=status,
            action=action,
        ) from None
