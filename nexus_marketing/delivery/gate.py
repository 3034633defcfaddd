"""The gate: the only way to a channel. Whoever may not be written to is settled here, with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.deliveries import DeliveryState, SkipReason
from nexus_marketing.core.pacing.frequency import caps_of
from nexus_marketing.core.pacing.quiet import QuietHours, quiet_hours_of
from nexus_marketing.core.pacing.rates import RateLimit, own_rates_of, rates_of
from nexus_marketing.core.pacing.zones import UTC_ZONE, zone_named
from nexus_marketing.core.privacy import ConsentPolicy, ConsentState, consent_needed
from nexus_marketing.db.queries.deliveries import Recipient, speaker_of
from nexus_marketing.db.queries.privacy import consent_states, suppressed_hashes
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.db.queries.tenants import decisions
from nexus_marketing.db.queries.warm_ups import warm_up_limits
from nexus_marketing.delivery.composing import SendContent
from nexus_marketing.delivery.holding import Holding
from nexus_marketing.delivery.outcomes import withheld
from nexus_marketing.keys import Keys


class Decided(NamedTuple):
    """Who may be written to, what became of the others, and how fast it may go."""

    passing: list[Recipient]
    settled: list[Settlement]
    rates: Sequence[RateLimit]
    #: Those of the send itself, which it shares with nobody.
    own_rates: Sequence[RateLimit] = ()

    @property
    def is_limited(self) -> bool:
        """Whether there may be no room for them now."""
        return bool(self.rates or self.own_rates)


class Check(NamedTuple):
    """One question of the gate: what stands in the way (nothing: it passes), until when where time mends it."""

    name: str
    reason: str | None = None
    until: datetime | None = None
    #: Of a message that another goes before: which send.
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate decides by, for one send."""

    keys: Keys
    content: SendContent
    rng: Random = field(default_factory=Random)
    known: dict[int, bytes] = field(default_factory=dict)

    def decide(self, session: Session, rows: Sequence[Recipient]) -> "Decided":
        """Split a chunk's recipients into those who may be written to and those settled, or held for later."""
        self._know(rows)
        policy = _policy(session, self.content.campaign_id)
        is_marketing = self._is_personal_marketing
        reasons = self._reasons(session, rows, policy if is_marketing else None)
        passing = [row for row in rows if row.seq not in reasons] if reasons else list(rows)
        settled = [_skip(seq, reason) for seq, reason in reasons.items()]
        if passing:
            held = self._held(session, passing, policy, is_marketing=is_marketing)
            settled += held
            waiting = {settlement.seq for settlement in held}
            passing = [row for row in passing if row.seq not in waiting] if waiting else passing
        marks = {row.seq: row.mark for row in rows if row.mark is not None}
        if marks:
            settled = [withheld(each, marks.get(each.seq)) for each in settled]
        return Decided(passing, settled, self._rates(session, policy), policy.own_rates)

    def _rates(self, session: Session, policy: "_Policy") -> list[RateLimit]:
        found = list(rates_of(policy.settings, self.content.channel))
        if self.content.address_kind is AddressKind.EMAIL:
            found += warm_up_limits(session, policy.settings, policy.now)
        return found

    def trace(self, session: Session, row: Recipient) -> list["Check"]:
        """Everything that the gate asks of one recipient, each question with its answer, whatever the others say."""
        self._know([row])
        policy = _policy(session, self.content.campaign_id)
        is_marketing = self._is_personal_marketing
        lacks = self.content.needs_address and not row.address_norm
        found = [
            Check("address", SkipReason.NO_ADDRESS if lacks else None),
            Check("suppression", SkipReason.SUPPRESSED if self._suppressed(session) else None),
        ]
        if is_marketing:
            found.append(Check("consent", self._without_consent(session, [row], policy.consent).get(row.seq)))
        (timed,) = self._by_their_clocks([row])
        for name, held, until in self._holding(policy, is_marketing=is_marketing).trace(session, timed):
            code = None if held is None or held.code is None else held.code
            found.append(Check(name, None if held is None else str(held.reason), until, code))
        return found

    def _know(self, rows: Sequence[Recipient]) -> None:
        """Addresses may have changed since these recipients were last here."""
        self.known.clear()
        hashed = self.keys.address_hashes(
            self.content.tenant_id, [row.address_norm for row in rows if row.address_norm]
        )
        self.known.update(zip([row.seq for row in rows if row.address_norm], hashed, strict=True))

    @property
    def _is_personal_marketing(self) -> bool:
        """Whether somebody's consent and caps are asked: what everybody can read is sent to nobody."""
        content = self.content
        return content.message_class is MessageClass.MARKETING and content.address_kind is not AddressKind.AUDIENCE

    def _held(
        self, session: Session, rows: Sequence[Recipient], policy: "_Policy", *, is_marketing: bool
    ) -> list[Settlement]:
        return self._holding(policy, is_marketing=is_marketing).decide(session, self._by_their_clocks(rows))

    def _by_their_clocks(self, rows: Sequence[Recipient]) -> Sequence[Recipient]:
        """An audience keeps the tenant's hours, not those of the lead that happens to stand for it."""
        if self.content.address_kind is not AddressKind.AUDIENCE:
            return rows
        return [row._replace(time_zone=None, country=None) for row in rows]

    def _holding(self, policy: "_Policy", *, is_marketing: bool) -> Holding:
        content, settings = self.content, policy.settings
        return Holding(
            quiet_hours=self._quiet_hours(settings) if content.keeps_quiet else (),
            caps=caps_of(settings) if is_marketing and content.obeys_caps else (),
            local_start=content.local_start,
            default_zone=zone_named(settings.get("default_time_zone")) or UTC_ZONE,
            channel=content.channel,
            rank=content.rank,
            launch_id=content.launch_id,
            is_of_journey=content.is_of_journey,
            now=policy.now,
            rng=self.rng,
        )

    def _quiet_hours(self, settings: Mapping[str, Any]) -> tuple[QuietHours, ...]:
        """The tenant's and the message's own: whichever is the strictest holds it."""
        own = {"quiet_hours": self.content.quiet_hours}
        return quiet_hours_of(settings, self.content.channel) + quiet_hours_of(own, self.content.channel)

    def hashes(self, rows: Sequence[Recipient]) -> dict[int, bytes]:
        """Keyed hashes of the addresses of recipients that passed, by ``seq``: each window asks for them once more."""
        known = self.known
        return {row.seq: known[row.seq] for row in rows if row.seq in known}

    def _reasons(self, session: Session, rows: Sequence[Recipient], policy: "_Policy | None") -> dict[int, SkipReason]:
        reasons = {}
        if self.content.needs_address:
            reasons = {row.seq: SkipReason.NO_ADDRESS for row in rows if not row.address_norm}
        if self.content.address_kind is AddressKind.AUDIENCE:
            # Whoever planned it may not have had the channel, and not known that all of them are one.
            speaker = speaker_of(session, self.content.send_id)
            reasons = {row.seq: SkipReason.DUPLICATE_ADDRESS for row in rows if speaker not in (None, row.seq)}
        open_rows = [row for row in rows if row.seq not in reasons]
        reasons |= dict.fromkeys(self._suppressed(session), SkipReason.SUPPRESSED)
        if policy is not None:
            open_rows = [row for row in open_rows if row.seq not in reasons]
            reasons |= self._without_consent(session, open_rows, policy.consent)
        return reasons

    def _without_consent(
        self, session: Session, rows: Sequence[Recipient], policy: ConsentPolicy
    ) -> dict[int, SkipReason]:
        """BR-011: consent where the law asks for it; a withdrawal counts everywhere."""
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


@dataclass(frozen=True, slots=True)
class _Policy:
    """What the tenant decided, and the moment at which the gate looks (the database's)."""

    settings: Mapping[str, Any]
    now: datetime
    own_rates: Sequence[RateLimit] = ()

    @property
    def consent(self) -> ConsentPolicy:
        return ConsentPolicy(self.settings.get("consent_policy", ConsentPolicy.EU))


def _policy(session: Session, campaign_id: int) -> _Policy:
    settings, now, rates = decisions(session, campaign_id)
    return _Policy(settings, now, own_rates_of(rates))


def _skip(seq: int, reason: SkipReason) -> Settlement:
    return Settlement(seq, DeliveryState.SKIPPED, reason)
