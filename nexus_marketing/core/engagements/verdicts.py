"""Whether people or machines did it (BEHAVIOUR.md 5.2, Engagement ingest).

Three verdicts: a proxy that fetches every picture proves nothing about its user, so its opens are
``unknown``, neither ``human`` nor ``machine`` (LESSONS.md 32 to 37). Features are taken from a hit
when it arrives; the address and the agent string are not kept. All hits of a recipient are judged
together: a burst also tells what the hits shortly before it were.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nexus_marketing.core.engagements.vocabulary import EngagementType, MachineHint, Verdict

#: Faster than a person reads: several links of one message at once, or an open right after hand-over.
_BURST = timedelta(seconds=2)
_BURST_LINKS = 3
#: A gateway looks at a message in several rounds: what came this long before a burst was part of it.
SCAN_WINDOW = timedelta(minutes=2)
_HUMANITY = (Verdict.HUMAN, Verdict.UNKNOWN, Verdict.MACHINE)


@dataclass(frozen=True, slots=True)
class HitFact:
    """A hit as kept: no address, no agent. ``id`` is the caller's own, whatever tells hits apart."""

    id: int
    type: EngagementType
    at: datetime
    link: int | None
    hint: MachineHint | None


def judge(hits: Sequence[HitFact], handed_over_at: datetime | None) -> dict[int, Verdict]:
    """The verdict on each hit of one recipient, seen together once they have settled."""
    scans = [at - SCAN_WINDOW for at in bursts(hits)]
    ends = [start + SCAN_WINDOW + _BURST for start in scans]
    return {hit.id: _verdict(hit, scans, ends, handed_over_at) for hit in hits}


def bursts(hits: Iterable[HitFact]) -> list[datetime]:
    """When bursts began, in order: as many links as people do not follow within two seconds."""
    clicks = sorted((hit.at, hit.link) for hit in hits if hit.type is EngagementType.EMAIL_CLICKED)
    found: list[datetime] = []
    within: Counter[int | None] = Counter()
    start = 0
    for at, link in clicks:
        within[link] += 1
        while at - clicks[start][0] >= _BURST:
            gone = clicks[start][1]
            within[gone] -= 1
            if not within[gone]:
                del within[gone]
            start += 1
        if len(within) >= _BURST_LINKS:
            found.append(clicks[start][0])
    return found


def most_human(verdicts: Iterable[str]) -> Verdict:
    """What several hits of one recipient prove together: one human hit is enough."""
    given = set(verdicts)
    return next((verdict for verdict in _HUMANITY if verdict in given), Verdict.UNKNOWN)


def _verdict(
    hit: HitFact, scans: Sequence[datetime], ends: Sequence[datetime], handed_over_at: datetime | None
) -> Verdict:
    if hit.hint is MachineHint.SCANNER:
        return Verdict.MACHINE
    if hit.hint is MachineHint.PROXY:
        return Verdict.UNKNOWN
    # Both lists are in order: some scan began before the hit and was not over yet.
    if bisect_right(scans, hit.at) > bisect_left(ends, hit.at):
        return Verdict.MACHINE
    # Opened the moment it was handed over: a gateway looked, a person may still come (LESSONS.md 35).
    if handed_over_at is not None and timedelta(0) <= hit.at - handed_over_at < _BURST:
        return Verdict.UNKNOWN
    return Verdict.HUMAN
