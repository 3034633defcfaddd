"""Opens and clicks of messages: noted as they arrive, judged once they have settled (BEHAVIOUR.md 5.2)."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.engagements import (
    EngagementType,
    HitFact,
    MachineHint,
    judge,
    machine_hint,
    most_human,
)
from nexus_marketing.core.engagements.verdicts import SCAN_WINDOW
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import Hit, Send, TemplateVersion
from nexus_marketing.db.queries.engagements import (
    change_verdicts,
    earlier_hits,
    handed_over_at,
    known_recipients,
    recipient_verdicts,
    remember_recipients,
    take_settled_hits,
)
from nexus_marketing.db.queries.event_batches import append_deltas
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.db.types import read_moment, to_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.engagements import write_engagements
from nexus_marketing.services.leads.lookup import current_ids
from nexus_marketing.services.scores.marks import mark_engaged
from nexus_marketing.services.segments.marks import mark_leads

_TYPES = {TokenKind.OPEN: EngagementType.EMAIL_OPENED, TokenKind.CLICK: EngagementType.EMAIL_CLICKED}


def record_hit(ctx: Context, token: Token, *, user_agent: str = "", prefetch: bool = False) -> None:
    """Append an open or click as it arrives; it is judged after the settling delay."""
    ctx.session.add(
        Hit(
            at=ctx.now,
            type=_TYPES[token.kind],
            send_id=token.send_id,
            seq=token.seq,
            lead_id=token.lead_id,
            link=token.link if token.kind is TokenKind.CLICK else None,
            machine_hint=machine_hint(user_agent, prefetch=prefetch),
        )
    )


def click_destination(ctx: Context, token: Token) -> str | None:
    """Where a click token leads: the URL stored with the template version that was sent, or nowhere."""
    links = ctx.session.execute(
        select(TemplateVersion.links)
        .join(
            Send,
            (Send.tenant_id == TemplateVersion.tenant_id)
            & (Send.template_id == TemplateVersion.template_id)
            & (Send.template_version == TemplateVersion.number),
        )
        .where(Send.id == token.send_id)
    ).scalar()
    return str(links[token.link]) if links and token.link < len(links) else None


class _Recipient(NamedTuple):
    """A message to somebody: a ledger row, and whose it is."""

    send_id: int
    seq: int
    lead_id: int


class _Origin(NamedTuple):
    """What a message was part of."""

    campaign_id: int | None
    channel: str | None


_NOWHERE = _Origin(None, None)


@dataclass(slots=True)
class _Judgement:
    """What a piece of hits leads to: engagements, earlier ones seen in another light, and counters."""

    sends: Mapping[int, _Origin]
    rows: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    reopened: set[_Recipient] = field(default_factory=set)
    #: Per (send, seq, type) the moments and verdicts of its new hits.
    new: dict[tuple[int, int, str], list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    #: Per (campaign, day, type, verdict) the engagements and the recipients more or less.
    hits: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    recipients: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)


def judge_hits(runtime: Runtime, tenant_id: int) -> int:
    """Turn a piece of a tenant's settled hits into engagements with a verdict; answers how many.

    Hits are taken out and engagements written in one transaction: each becomes exactly one. One worker at
    a time judges a tenant, because a verdict depends on what was judged before.
    """
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if not try_alone(ctx.session, "judging"):
            return 0
        hits = take_settled_hits(ctx.session, runtime.settings.settling.total_seconds())
        if hits:
            _judge(ctx, hits)
        return len(hits)


def _judge(ctx: Context, hits: Sequence[Row[Any]]) -> None:
    by_recipient: dict[_Recipient, list[Row[Any]]] = defaultdict(list)
    merged = current_ids(ctx, (hit.lead_id for hit in hits))
    for hit in hits:
        lead_id = merged.get(hit.lead_id, hit.lead_id)
        by_recipient[_Recipient(hit.send_id, hit.seq, lead_id)].append(hit)
    earlier = _earlier(ctx, by_recipient, hits)
    answered = _answered(ctx, by_recipient)
    found = _Judgement(_sends(ctx, {hit.send_id for hit in hits}))
    for recipient in sorted(by_recipient):
        _judge_recipient(found, recipient, by_recipient[recipient], earlier[recipient], answered.get(recipient[:2]))
    write_engagements(ctx, found.rows)
    change_verdicts(ctx.session, sorted(found.changed, key=lambda row: (row["tracked_at"], row["id"])))
    # Who is now believed to be human, or no more, counts for segments and scores too.
    changed = sorted({recipient.lead_id for recipient in found.reopened})
    mark_leads(ctx, changed, sorted({f"event:{row['type']}" for row in found.changed}))
    mark_engaged(ctx, found.changed, only_human=False)
    _count_recipients(ctx, found)
    keys = sorted({*found.hits, *found.recipients})
    deltas = [_delta(key, found.hits[key], found.recipients[key]) for key in keys]
    append_deltas(ctx.session, [each for each in deltas if each["hits"] or each["recipients"]])


def _judge_recipient(
    found: _Judgement,
    recipient: _Recipient,
    hits: Sequence[Row[Any]],
    earlier: Sequence[Row[Any]],
    answered: datetime | None,
) -> None:
    both = [*earlier, *hits]
    verdicts = judge([_fact(number, hit) for number, hit in enumerate(both)], answered)
    origin = found.sends.get(recipient.send_id, _NOWHERE)
    for number, old in enumerate(earlier):
        verdict = str(verdicts[number])
        if verdict != old.verdict:
            moment = _text(old.at)
            kept = {"lead_id": recipient.lead_id, "type": old.type, "tracked_at": moment, "id": old.id}
            found.changed.append({**kept, "verdict": verdict})
            found.reopened.add(recipient)
            found.hits[(old.campaign_id or 0, moment[:10], old.type, old.verdict)] -= 1
            found.hits[(old.campaign_id or 0, moment[:10], old.type, verdict)] += 1
    for number, hit in enumerate(hits, start=len(earlier)):
        verdict, moment = str(verdicts[number]), _text(hit.at)
        found.rows.append(_engagement(hit, recipient.lead_id, moment, verdict, origin))
        found.new[(hit.send_id, hit.seq, hit.type)].append((moment, verdict))


def _count_recipients(ctx: Context, found: _Judgement) -> None:
    """Opens and clicks count once per recipient, by the most human of their verdicts."""
    recounted: dict[tuple[int, int, str], list[str]] = defaultdict(list)
    for row in recipient_verdicts(ctx.session, [each._asdict() for each in sorted(found.reopened)]):
        recounted[(row.send_id, row.seq, row.type)].append(row.verdict)
    keys = sorted({*found.new, *recounted})
    asked = [{"send_id": send_id, "seq": seq, "type": type_} for send_id, seq, type_ in keys]
    known = {(row.send_id, row.seq, row.type): row for row in known_recipients(ctx.session, asked)}
    rows = []
    for key in keys:
        old, new = known.get(key), found.new.get(key, [])
        if old is None and not new:
            continue  # of another kind than opens and clicks
        given = recounted[key] if key in recounted else [verdict for _, verdict in new]
        verdict = str(most_human(given if old is None or key in recounted else [*given, old.verdict]))
        first = min(moment for moment, _ in new) if old is None else _text(old.first_at)
        counted = (found.sends.get(key[0], _NOWHERE).campaign_id or 0, first[:10], key[2])
        if old is not None:
            found.recipients[(*counted, old.verdict)] -= 1
        found.recipients[(*counted, verdict)] += 1
        rows.append(
            {"send_id": key[0], "seq": key[1], "type": key[2], "verdict": verdict, "first_at": first, "hits": len(new)}
        )
    remember_recipients(ctx.session, rows)


def _earlier(
    ctx: Context, recipients: Mapping[_Recipient, Any], hits: Sequence[Row[Any]]
) -> Mapping[_Recipient, list[Row[Any]]]:
    moments = [read_moment(hit.at) for hit in hits]
    asked = [recipient._asdict() for recipient in sorted(recipients)]
    found: dict[_Recipient, list[Row[Any]]] = defaultdict(list)
    since, until = min(moments) - 2 * SCAN_WINDOW, max(moments) + SCAN_WINDOW
    for row in earlier_hits(ctx.session, asked, since, until):
        found[_Recipient(row.send_id, row.seq, row.lead_id)].append(row)
    return found


def _answered(ctx: Context, recipients: Mapping[_Recipient, Any]) -> dict[tuple[int, ...], datetime]:
    """When each message was answered by the receiving server."""
    found: dict[tuple[int, ...], datetime] = {}
    for send_id in sorted({recipient.send_id for recipient in recipients}):
        seqs = [recipient.seq for recipient in recipients if recipient.send_id == send_id]
        for seq, moment in handed_over_at(ctx.session, send_id, seqs).items():
            if moment is not None:
                found[(send_id, seq)] = read_moment(moment)
    return found


def _sends(ctx: Context, send_ids: set[int]) -> dict[int, _Origin]:
    found = ctx.session.execute(select(Send.id, Send.campaign_id, Send.channel).where(Send.id.in_(send_ids)))
    return {row.id: _Origin(row.campaign_id, row.channel) for row in found}


def _fact(number: int, hit: Row[Any]) -> HitFact:
    hint = MachineHint(hit.machine_hint) if hit.machine_hint else None
    return HitFact(number, EngagementType(hit.type), read_moment(hit.at), hit.link, hint)


def _engagement(hit: Row[Any], lead_id: int, moment: str, verdict: str, origin: _Origin) -> dict[str, Any]:
    return {
        "tracked_at": moment,
        "type": hit.type,
        "lead_id": lead_id,
        "campaign_id": origin.campaign_id,
        "send_id": hit.send_id,
        "seq": hit.seq,
        "link": hit.link,
        "channel": origin.channel,
        "verdict": verdict,
        "machine_hint": hit.machine_hint,
        "metadata": {},
    }


def _delta(key: tuple[int, str, str, str], hits: int, recipients: int) -> dict[str, Any]:
    campaign, day, type_, verdict = key
    return {
        "campaign_id": campaign,
        "day": day,
        "type": type_,
        "verdict": verdict,
        "hits": hits,
        "recipients": recipients,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_text(value)
