"""A campaign's numbers, derived from ledger rows and judged engagements."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.deliveries import OPEN_SENDS, TAKEN, DeliveryState
from nexus_marketing.core.engagements import EngagementType, Verdict
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.counters import campaign_counts
from nexus_marketing.db.queries.engagements import ledger_counts
from nexus_marketing.db.queries.provider_reports import moves_of
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.remembering import key_of, remembered

#: How long the numbers of a send that is over are kept.
LEDGER_LIFETIME: Final = timedelta(minutes=60)
#: Rows that may change without the send being opened again.
_MOVABLE: Final = frozenset({DeliveryState.PLANNED, DeliveryState.UNKNOWN})
_NAMES = {EngagementType.EMAIL_OPENED: "opens", EngagementType.EMAIL_CLICKED: "clicks"}


def campaign_analytics(ctx: Context, campaign_id: int) -> dict[str, Any]:
    """What became of a campaign.

    Returns:
        ``planned`` = ``open`` + ``accepted`` (with its successors) + ``failed`` + ``unknown`` + the sum of
        ``skipped`` by reason; ``opens`` and ``clicks`` count recipients by verdict (``unique`` without
        machines) and ``hits``; ``unsubscribes``; ``engagements`` of every type by verdict; ``sends`` with channel,
        status and planned per send.
    """
    campaign = find(ctx.session, Campaign, campaign_id)
    sends = ctx.session.scalars(select(Send).where(Send.campaign_id == campaign.id).order_by(Send.id)).all()
    states, skipped = _ledger(ctx, sends)
    return {
        "campaign_id": str(campaign.id),
        "status": campaign.status,
        "planned": sum(states.values()),
        "open": states[DeliveryState.PLANNED],
        "accepted": sum(states[state] for state in TAKEN),
        "delivered": states[DeliveryState.DELIVERED],
        "bounced": states[DeliveryState.BOUNCED_SOFT] + states[DeliveryState.BOUNCED_HARD],
        "complained": states[DeliveryState.COMPLAINED],
        "failed": states[DeliveryState.FAILED],
        "unknown": states[DeliveryState.UNKNOWN],
        "skipped": dict(sorted(skipped.items())),
        **_engagements(ctx, campaign.id),
        "sends": [
            {
                "id": str(send.id),
                "channel": send.channel,
                "status": send.status,
                "status_reason": send.status_reason,
                "planned": send.planned,
            }
            for send in sends
        ],
    }


def _ledger(ctx: Context, sends: Sequence[Send]) -> tuple[Counter[str], Counter[str]]:
    states: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for send in sends:
        for state, reason, n in _send_counts(ctx, send):
            states[state] += n
            if reason is not None:
                skipped[reason] += n
    return states, skipped


def _send_counts(ctx: Context, send: Send) -> list[tuple[str, str | None, int]]:
    """The ledger of a million recipients takes a tenth of a second to count: once is enough where all are settled.

    Workers change the state of planned rows only, people that of unknown ones; whoever takes up failed ones opens the send
    again, which ends at another time then. What providers tell later is counted as moves.
    """

    def count() -> list[tuple[str, str | None, int]]:
        return [(row.state, row.reason, row.n) for row in ledger_counts(ctx.session, send.id)]

    if send.status in OPEN_SENDS:
        return count()
    is_settled = lambda rows: not any(state in _MOVABLE for state, _, _ in rows)  # noqa: E731
    found: list[tuple[str, str | None, int]] = remembered(
        ctx,
        key_of("ledger", send.id, send.finished_at, moves_of(ctx.session, send.id)),
        LEDGER_LIFETIME,
        count,
        keep=is_settled,
    )
    return found


def _engagements(ctx: Context, campaign_id: int) -> dict[str, Any]:
    found = {name: {"unique": 0, "hits": 0, **dict.fromkeys(map(str, Verdict), 0)} for name in _NAMES.values()}
    by_type: dict[str, dict[str, int]] = {}
    for row in campaign_counts(ctx.session, campaign_id):
        by_type.setdefault(row.type, dict.fromkeys(map(str, Verdict), 0))[row.verdict] += row.hits
        if row.type in _NAMES:
            counts = found[_NAMES[EngagementType(row.type)]]
            counts[row.verdict] += row.recipients
            counts["hits"] += row.hits
            counts["unique"] += row.recipients if row.verdict != Verdict.MACHINE else 0
    unsubscribed = by_type.get(EngagementType.UNSUBSCRIBED, {})
    return {**found, "unsubscribes": sum(unsubscribed.values()), "engagements": dict(sorted(by_type.items()))}
