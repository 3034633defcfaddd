"""The gate: the only way to a channel. Whoever may not be written to is settled here, with the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.deliveries import DeliveryState, SkipReason
from nexus_marketing.core.privacy import ConsentPolicy, ConsentState, consent_needed
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.deliveries import Settlement
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

    def decide(self, session: Session, rows: Sequence[Row[Any]]) -> tuple[list[Row[Any]], list[Settlement]]:
        """Split a chunk's recipients into those who may be written to and those settled as skipped."""
        # Addresses may have changed since this recipient was last here.
        self.known.clear()
        self.known.update(self._hashed(rows))
        reasons = self._reasons(session, rows)
        passing = [row for row in rows if row.seq not in reasons]
        return passing, [_skip(seq, reason) for seq, reason in reasons.items()]

    def hashes(self, rows: Sequence[Row[Any]]) -> dict[int, bytes]:
        """Keyed hashes of the addresses of recipients that passed, by ``seq``: each window asks for them once more."""
        known = self.known
        return {row.seq: known[row.seq] for row in rows}

    def _reasons(self, session: Session, rows: Sequence[Row[Any]]) -> dict[int, SkipReason]:
        reasons = {row.seq: SkipReason.NO_ADDRESS for row in rows if not row.email_norm}
        open_rows = [row for row in rows if row.seq not in reasons]
        reasons |= dict.fromkeys(self._suppressed(session), SkipReason.SUPPRESSED)
        if self.content.message_class is MessageClass.MARKETING:
            reasons |= self._without_consent(session, [row for row in open_rows if row.seq not in reasons])
        return reasons

    def _without_consent(self, session: Session, rows: Sequence[Row[Any]]) -> dict[int, SkipReason]:
        """BR-011: consent where the law asks for it; a withdrawal counts everywhere."""
        policy = _consent_policy(session)
        states = consent_states(session, [row.lead_id for row in rows], self.content.channel, "marketing")
        reasons = {}
        for row in rows:
            state = states.get(row.lead_id)
            if state is ConsentState.REVOKED:
                reasons[row.seq] = SkipReason.OBJECTED
            elif state is not ConsentState.GRANTED and consent_needed(row.country, policy):
                expired = state is ConsentState.EXPIRED
                reasons[row.seq] = SkipReason.CONSENT_EXPIRED if expired else SkipReason.CONSENT_MISSING
        return reasons

    def _suppressed(self, session: Session) -> set[int]:
        content = self.content
        found = suppressed_hashes(session, list(self.known.values()), content.channel, content.message_class)
        return {seq for seq, hashed in self.known.items() if hashed in found}

    def _hashed(self, rows: Sequence[Row[Any]]) -> Iterator[tuple[int, bytes]]:
        tenant_id, hashed = self.content.tenant_id, self.keys.address_hash
        return ((row.seq, hashed(tenant_id, row.email_norm)) for row in rows if row.email_norm)


def _consent_policy(session: Session) -> ConsentPolicy:
    tenant = session.get(Tenant, tenant_of(session))
    settings = tenant.settings if tenant is not None else {}
    return ConsentPolicy(settings.get("consent_policy", ConsentPolicy.EU))


def _skip(seq: int, reason: SkipReason) -> Settlement:
    return Settlement(seq, DeliveryState.SKIPPED, reason)
