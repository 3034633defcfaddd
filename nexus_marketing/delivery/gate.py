"""The gate: the only way to a channel. Whoever may not be written to is settled here, with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.deliveries import DeliveryState, SkipReason
from nexus_marketing.core.privacy import ConsentPolicy, ConsentState, consent_needed
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.deliveries import Recipient, Settlement
from nexus_marketing.db.queries.privacy import consent_states, suppressed_hashes
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.delivery.composing import SendContent
from nexus_marketing.keys import Keys


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate decides by, for one send."""

    keys: Keys
    content: SendContent
    known: dict[int, bytes] = field(default_factory=dict)

    def decide(self, session: Session, rows: Sequence[Recipient]) -> tuple[list[Recipient], list[Settlement]]:
        """Split a chunk's recipients into those who may be written to and those settled as skipped."""
        # Addresses may have changed since this recipient was last here.
        self.known.clear()
        hashed = self.keys.address_hashes(self.content.tenant_id, [row.email_norm for row in rows if row.email_norm])
        self.known.update(zip([row.seq for row in rows if row.email_norm], hashed, strict=True))
        reasons = self._reasons(session, rows)
        if not reasons:
            return list(rows), []
        passing = [row for row in rows if row.seq not in reasons]
        return passing, [_skip(seq, reason) for seq, reason in reasons.items()]

    def hashes(self, rows: Sequence[Recipient]) -> dict[int, bytes]:
        """Keyed hashes of the addresses of recipients that passed, by ``seq``: each window asks for them once more."""
        known = self.known
        return {row.seq: known[row.seq] for row in rows}

    def _reasons(self, session: Session, rows: Sequence[Recipient]) -> dict[int, SkipReason]:
        reasons = {row.seq: SkipReason.NO_ADDRESS for row in rows if not row.email_norm}
        open_rows = [row for row in rows if row.seq not in reasons]
        reasons |= dict.fromkeys(self._suppressed(session), SkipReason.SUPPRESSED)
        if self.content.message_class is MessageClass.MARKETING:
            reasons |= self._without_consent(session, [row for row in open_rows if row.seq not in reasons])
        return reasons

    def _without_consent(self, session: Session, rows: Sequence[Recipient]) -> dict[int, SkipReason]:
        """BR-011: consent where the law asks for it; a withdrawal counts everywhere."""
        policy = _consent_policy(session)
        states = consent_states(session, [row.lead_id for row in rows], self.content.channel, "marketing")
        needed = {country: consent_needed(country, policy) for country in {row.country for row in rows}}
        reasons = {}
        for row in rows:
            state = states.get(row.lead_id)
            if state is ConsentState.REVOKED:
                reasons[row.seq] = SkipReason.OBJECTED
            elif needed[row.country] and state is not ConsentState.GRANTED:
                expired = state is ConsentState.EXPIRED
                reasons[row.seq] = SkipReason.CONSENT_EXPIRED if expired else SkipReason.CONSENT_MISSING
        return reasons

    def _suppressed(self, session: Session) -> set[int]:
        content = self.content
        found = suppressed_hashes(session, list(self.known.values()), content.channel, content.message_class)
        return {seq for seq, hashed in self.known.items() if hashed in found}


def _consent_policy(session: Session) -> ConsentPolicy:
    # The column alone: loading the row as an object takes three times as long.
    settings = session.scalar(select(Tenant.settings).where(Tenant.id == tenant_of(session))) or {}
    return ConsentPolicy(settings.get("consent_policy", ConsentPolicy.EU))


def _skip(seq: int, reason: SkipReason) -> Settlement:
    return Settlement(seq, DeliveryState.SKIPPED, reason)
