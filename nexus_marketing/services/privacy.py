"""Consent and suppression: what people said about being written to, appended and never rewritten."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address as parse_ip

from sqlalchemy import select

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.engagements import EngagementType, Verdict
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.events import LeadUnsubscribed
from nexus_marketing.core.privacy import ConsentState, SuppressionReason, SuppressionType
from nexus_marketing.core.values import canonical, email_norm
from nexus_marketing.db.models import Consent, Lead, Send, Suppression
from nexus_marketing.db.queries.privacy import claim_engagement, consent_states, lock_address, suppressed_hashes
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.engagements import write_engagements
from nexus_marketing.services.leads.lookup import follow_lead
from nexus_marketing.services.leads.removals import addresses_of
from nexus_marketing.services.segments.marks import mark_leads

_CLOCK_SKEW = timedelta(minutes=5)
_MARKETING = str(SuppressionType.MARKETING)


def record_consent(
    ctx: Context,
    lead_id: int,
    *,
    granted: bool,
    source: str,
    channel: str = "email",
    type: str = _MARKETING,  # noqa: A002 - the requirements' word
    at: datetime | None = None,
    text_version: str | None = None,
    ip_address: str | None = None,
    evidence: Mapping[str, object] | None = None,
    expires_at: datetime | None = None,
) -> Consent:
    """Append one act of giving or withdrawing consent, with what proves it (GDPR 7(1)).

    The newest act by ``at`` counts, so evidence of an older act never undoes a withdrawal. Giving
    consent lifts no suppression: that is a person's act of its own (:func:`lift`).

    Args:
        source: where it happened: a form, a page, a call.
        at: when, UTC; now without it.
        expires_at: when it ends by itself, as implied consent does (CASL).

    Raises:
        ValidationError: no source, a moment in the future, an impossible address or expiry.
    """
    lead = follow_lead(ctx, lead_id)
    moment = _checked_moment(ctx, at)
    if not source.strip():
        raise ValidationError.at("source", "required", "Consent needs a source: say where it was given.")
    if expires_at is not None and expires_at <= moment:
        raise ValidationError.at("expires_at", "out_of_bounds", "Consent ends after it was given.")
    consent = Consent(
        lead_id=lead.id,
        channel=channel,
        type=type,
        at=moment,
        granted_at=moment if granted else None,
        revoked_at=None if granted else moment,
        expires_at=expires_at,
        source=source.strip(),
        text_version=text_version,
        ip_address=_checked_address(ip_address),
        evidence=canonical(dict(evidence or {}), "evidence"),
    )
    ctx.session.add(consent)
    ctx.session.flush()
    changes: dict[str, tuple[object, object]] = {
        "consent": (None, f"{channel}/{type}"),
        "source": (None, consent.source),
        "ip_address": (None, consent.ip_address),
    }
    action = "consent.granted" if granted else "consent.revoked"
    record(ctx, action, "lead", lead.id, changes, personal=("ip_address",), lead_id=lead.id)
    mark_leads(ctx, [lead.id], [f"consent:{channel}"])
    return consent


def suppress(
    ctx: Context,
    address: str,
    *,
    reason: str,
    source: str,
    channel: str = "email",
    type: str = _MARKETING,  # noqa: A002 - the requirements' word
) -> Suppression:
    """Write to an address no more; kept as a keyed hash, so that it outlives the person's data.

    Every act is appended, also of an address that is suppressed already: the second bounce is
    evidence of its own (LESSONS.md 45).

    Args:
        type: ``marketing`` or ``all``.
        reason: one of ``core.privacy.SuppressionReason``.
    """
    return suppress_hash(ctx, address_hash(ctx, address), reason=reason, source=source, channel=channel, type=type)


def suppress_hash(
    ctx: Context,
    hashed: bytes,
    *,
    reason: str,
    source: str,
    channel: str = "email",
    type: str = _MARKETING,  # noqa: A002 - the requirements' word
) -> Suppression:
    """Like :func:`suppress`, for an address of which only the keyed hash is known."""
    return _append_suppression(ctx, hashed, channel, type, (reason, source), is_lifted=False)


def lift(
    ctx: Context,
    address: str,
    *,
    reason: str,
    source: str,
    channel: str = "email",
    type: str = _MARKETING,  # noqa: A002 - the requirements' word
) -> Suppression | None:
    """Allow an address again, on the person's own word; ``None`` where nothing was in the way."""
    hashed = address_hash(ctx, address)
    lock_address(ctx.session, hashed)
    covered = MessageClass.MARKETING if type == _MARKETING else MessageClass.TRANSACTIONAL
    if hashed not in suppressed_hashes(ctx.session, [hashed], channel, covered):
        return None
    return _append_suppression(ctx, hashed, channel, type, (reason, source), is_lifted=True)


def unsubscribe(
    ctx: Context,
    lead_id: int,
    *,
    source: str,
    channel: str | None = None,
    send_id: int | None = None,
    seq: int | None = None,
) -> bool:
    """Take a lead out of all marketing on a channel, for the whole tenant (BR-012; RFC 8058).

    Idempotent: the address is suppressed once, consent withdrawn once, and one engagement counted
    per message, however often the button is pressed.

    Args:
        source: what was pressed: ``one_click``, ``page``, ``api`` …
        channel: that of the message where it is left out, e-mail where no message led here.
        send_id: and ``seq``: the message that led here, where it is known.

    Returns:
        Whether anything changed.
    """
    lead = follow_lead(ctx, lead_id, lock=True)
    send = None if send_id is None else ctx.session.get(Send, (lead.tenant_id, send_id))
    channel = channel or (send.channel if send is not None else "email")
    suppressed = [suppress_once(ctx, address, channel, source) for address in _addresses(ctx, lead, channel)]
    changed = any(suppressed)
    states = consent_states(ctx.session, [lead.id], channel, _MARKETING)
    if states.get(lead.id) is not ConsentState.REVOKED:
        record_consent(ctx, lead.id, granted=False, channel=channel, source=source)
        changed = True
    if _is_first_of_message(ctx, send_id, seq, changed=changed):
        _count_unsubscribe(ctx, lead, channel, send, seq)
        changed = True
    if changed:
        ctx.emit(LeadUnsubscribed(lead.tenant_id, ctx.now, lead.id))
    return changed


def _addresses(ctx: Context, lead: Lead, channel: str) -> list[str]:
    """Also those of leads that were merged into it: its old messages went there."""
    kind = "email" if channel == "email" else "phone"
    return [address for each, address in addresses_of(ctx, lead) if each == kind]


def suppress_once(ctx: Context, address: str, channel: str, source: str) -> bool:
    """Write no more marketing to an address whose owner said so; whether that was not so before."""
    hashed = address_hash(ctx, address)
    lock_address(ctx.session, hashed)
    if hashed in suppressed_hashes(ctx.session, [hashed], channel, MessageClass.MARKETING):
        return False
    why = (str(SuppressionReason.UNSUBSCRIBED), source)
    _append_suppression(ctx, hashed, channel, _MARKETING, why, is_lifted=False)
    return True


def _is_first_of_message(ctx: Context, send_id: int | None, seq: int | None, *, changed: bool) -> bool:
    if send_id is None or seq is None:
        return changed
    return claim_engagement(ctx.session, send_id, seq, EngagementType.UNSUBSCRIBED, ctx.now)


def _count_unsubscribe(ctx: Context, lead: Lead, channel: str, send: Send | None, seq: int | None) -> None:
    send_id, campaign_id = (None, None) if send is None else (send.id, send.campaign_id)
    moment = to_text(ctx.now)
    row = {
        "tracked_at": moment,
        "type": str(EngagementType.UNSUBSCRIBED),
        "lead_id": lead.id,
        "campaign_id": campaign_id,
        "send_id": send_id,
        "seq": seq,
        "channel": channel,
        "verdict": str(Verdict.HUMAN),
        "metadata": {},
    }
    ctx.session.flush()
    write_engagements(ctx, [row], recipients=int(send_id is not None and seq is not None))


def _append_suppression(
    ctx: Context, hashed: bytes, channel: str, type_: str, why: tuple[str, str], *, is_lifted: bool
) -> Suppression:
    row = Suppression(
        address_hash=hashed,
        channel=channel,
        type=SuppressionType(type_),
        reason=why[0] if is_lifted else SuppressionReason(why[0]),
        source=why[1],
        suppressed_at=None if is_lifted else ctx.now,
        lifted_at=ctx.now if is_lifted else None,
    )
    lock_address(ctx.session, hashed)
    ctx.session.add(row)
    ctx.session.flush()
    changes = {"channel": (None, channel), "type": (None, type_), "reason": (None, why[0]), "source": (None, why[1])}
    record(ctx, "suppression.lifted" if is_lifted else "suppression.added", "suppression", row.id, changes)
    return row


def newest_suppression(ctx: Context, address: str, channel: str) -> Suppression | None:
    """The last act about marketing to an address on a channel; acts about one address follow each other from here on."""
    hashed = address_hash(ctx, address)
    lock_address(ctx.session, hashed)
    wanted = (
        Suppression.address_hash == hashed,
        Suppression.channel == channel,
        Suppression.type == SuppressionType.MARKETING,
    )
    return ctx.session.scalars(select(Suppression).where(*wanted).order_by(Suppression.id.desc()).limit(1)).first()


def address_hash(ctx: Context, address: str) -> bytes:
    """What stands for an address among the tenant's suppressions."""
    return ctx.runtime.keys.address_hash(tenant_of(ctx.session), email_norm(address))


def _checked_moment(ctx: Context, at: datetime | None) -> datetime:
    if at is None:
        return ctx.now
    if at.tzinfo is None or at > ctx.now + _CLOCK_SKEW:
        raise ValidationError.at("at", "out_of_bounds", "Consent lies in the past: write the moment with its zone.")
    return at


def _checked_address(text: str | None) -> str | None:
    if not text:
        return None
    try:
        return str(parse_ip(text.strip()))
    except ValueError:
        raise ValidationError.at(
            "ip_address", "not_an_ip_address", f"{text[:60]!a} is no IP address: write 192.0.2.1 or 2001:db8::1."
        ) from None
