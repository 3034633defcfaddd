"""Messages from people: STOP, START and HELP (BR-012; CTIA Messaging Principles 5.1.3).

The provider itself confirms to whoever wrote; a second answer of ours would be one too many.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.engagements import EngagementType, Verdict
from nexus_marketing.core.sms import Keyword, keyword_of
from nexus_marketing.db.models import Consent, Lead
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.privacy import lift, newest_suppression, record_consent, suppress_once, unsubscribe

#: Where a suppression says that it comes from, so that only START lifts what STOP began.
STOP_SOURCE: Final = "keyword:stop"
START_SOURCE: Final = "keyword:start"
_MOST_LEADS: Final = 20


def answer_keyword(ctx: Context, channel: str, body: Mapping[str, str], at: datetime) -> list[dict[str, Any]]:
    """Do what somebody's message asks for; answers the engagements to be written, without the text.

    Args:
        ctx: of the tenant that was written to.
        channel: by which one.
        body: ``address`` of who wrote, and ``detail``, the text.
        at: when.
    """
    number = body["address"]
    if not number:
        return []
    keyword = keyword_of(body["detail"])
    wanted = (Lead.phone == number, Lead.gone_at.is_(None))
    leads = list(ctx.session.scalars(select(Lead.id).where(*wanted).order_by(Lead.id).limit(_MOST_LEADS)))
    if keyword is Keyword.STOP:
        _stop(ctx, channel, number, leads)
    elif keyword is Keyword.START:
        _start(ctx, channel, number, leads)
    ctx.runtime.telemetry.count("hooks.keywords", keyword="none" if keyword is None else str(keyword))
    return [_engagement(channel, lead_id, at, keyword) for lead_id in leads]


def _stop(ctx: Context, channel: str, number: str, leads: list[int]) -> None:
    """Also a number that no lead has: it may have one tomorrow."""
    for lead_id in leads:
        unsubscribe(ctx, lead_id, source=STOP_SOURCE, channel=channel)
    suppress_once(ctx, number, channel, STOP_SOURCE)


def _start(ctx: Context, channel: str, number: str, leads: list[int]) -> None:
    """Take back what STOP did, and nothing that anything else did."""
    newest = newest_suppression(ctx, number, channel)
    if newest is None or newest.suppressed_at is None or newest.source != STOP_SOURCE:
        return
    lift(ctx, number, reason="start", source=START_SOURCE, channel=channel)
    for lead_id in leads:
        acts = select(Consent).where(
            Consent.lead_id == lead_id, Consent.channel == channel, Consent.type == "marketing"
        )
        last = ctx.session.scalars(acts.order_by(Consent.at.desc(), Consent.id.desc()).limit(1)).first()
        if last is not None and last.source == STOP_SOURCE:
            record_consent(ctx, lead_id, granted=True, source=START_SOURCE, channel=channel)


def _engagement(channel: str, lead_id: int, at: datetime, keyword: Keyword | None) -> dict[str, Any]:
    return {
        "tracked_at": to_text(at),
        "type": str(EngagementType.CUSTOM),
        "name": f"{channel}_received",
        "lead_id": lead_id,
        "channel": channel,
        "verdict": str(Verdict.HUMAN),
        "metadata": {} if keyword is None else {"keyword": str(keyword)},
    }
