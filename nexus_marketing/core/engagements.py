"""What people do with messages, and whether it was people (BEHAVIOUR.md 5.2, Engagement ingest).

Three verdicts: a proxy that fetches every picture proves nothing about its user, so its opens are
``unknown``, neither ``human`` nor ``machine`` (LESSONS.md 32 to 37). Features are taken from a hit
when it arrives; the address and the agent string are not kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class EngagementType(StrEnum):
    """The requirements' types; custom events have names of their own."""

    EMAIL_SENT = "email_sent"
    EMAIL_OPENED = "email_opened"
    EMAIL_CLICKED = "email_clicked"
    UNSUBSCRIBED = "unsubscribed"
    SMS_SENT = "sms_sent"
    SMS_DELIVERED = "sms_delivered"
    FORM_SUBMITTED = "form_submitted"
    PAGE_VISITED = "page_visited"
    CONVERSION = "conversion"


class Verdict(StrEnum):
    """Who did it."""

    HUMAN = "human"
    MACHINE = "machine"
    UNKNOWN = "unknown"


class MachineHint(StrEnum):
    """What a single hit says about its sender."""

    SCANNER = "scanner"
    PROXY = "proxy"


#: Programs that say so themselves, and security gateways that follow every link.
_SCANNERS = re.compile(
    r"bot\b|crawl|spider|slurp|scanner|barracuda|mimecast|proofpoint|symantec|messagelabs|trendmicro|"
    r"curl/|wget/|python-|java/|go-http|okhttp|libwww|headless|facebookexternalhit|preview",
    re.IGNORECASE,
)
#: Mailbox providers that fetch pictures for everybody, opened or not.
_PROXIES = re.compile(r"GoogleImageProxy|YahooMailProxy|ggpht\.com", re.IGNORECASE)

#: Faster than a person reads: several links of one message at once, or a click right after hand-over.
_BURST = timedelta(seconds=2)
_BURST_LINKS = 3


@dataclass(frozen=True, slots=True)
class HitFact:
    """A hit as kept: no address, no agent."""

    id: int
    type: EngagementType
    at: datetime
    link: int | None
    hint: MachineHint | None


def machine_hint(user_agent: str, *, prefetch: bool = False) -> MachineHint | None:
    """What the request's own words give away.

    >>> machine_hint("Mozilla/5.0 (via ggpht.com GoogleImageProxy)")
    <MachineHint.PROXY: 'proxy'>
    """
    if _PROXIES.search(user_agent):
        return MachineHint.PROXY
    if prefetch or not user_agent.strip() or _SCANNERS.search(user_agent):
        return MachineHint.SCANNER
    return None


def judge(hits: Sequence[HitFact], handed_over_at: datetime | None) -> dict[int, Verdict]:
    """The verdict on each hit of one recipient, seen together once they have settled."""
    ordered = sorted(hits, key=lambda hit: (hit.at, hit.id))
    return {hit.id: _verdict(hit, ordered, handed_over_at) for hit in ordered}


def _verdict(hit: HitFact, all_hits: Sequence[HitFact], handed_over_at: datetime | None) -> Verdict:
    if hit.hint is MachineHint.SCANNER:
        return Verdict.MACHINE
    if hit.hint is MachineHint.PROXY:
        return Verdict.UNKNOWN
    if hit.type is EngagementType.EMAIL_CLICKED and _in_burst(hit, all_hits):
        return Verdict.MACHINE
    # Opened the moment it was handed over: a gateway looked, a person may still come (LESSONS.md 35).
    if handed_over_at is not None and timedelta(0) <= hit.at - handed_over_at < _BURST:
        return Verdict.UNKNOWN
    return Verdict.HUMAN


def _in_burst(hit: HitFact, all_hits: Sequence[HitFact]) -> bool:
    near = {
        other.link
        for other in all_hits
        if other.type is EngagementType.EMAIL_CLICKED and abs(other.at - hit.at) < _BURST
    }
    return len(near) >= _BURST_LINKS
