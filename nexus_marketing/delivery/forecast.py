"""Looks at an audience as a send would, and writes to nobody: what pre-flights are made of.

Every member passes the gate itself and is composed for, so that the counts are those of a launch at this moment. A
piece is one transaction; a worker that dies leaves the pieces that were counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus_marketing.core.deliveries import DeliveryState, HoldReason, SkipReason
from nexus_marketing.core.fan_out import Leg, legs_of
from nexus_marketing.core.messages import plain_text
from nexus_marketing.core.pacing.rates import account_limits, named_domains
from nexus_marketing.core.preflight import PreflightStatus, Tally
from nexus_marketing.core.sms import measure
from nexus_marketing.db.models import Campaign, Preflight, Send
from nexus_marketing.db.queries.launching import message_and_sender
from nexus_marketing.db.queries.preflights import audience_piece, one_of_audience
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.admission import domain_of
from nexus_marketing.delivery.composing import Composer, load_content
from nexus_marketing.delivery.gate import Check, Gate
from nexus_marketing.delivery.senders import carrying_accounts, sender_of
from nexus_marketing.runtime import Runtime

#: Members per transaction: as long as it lasts a tenant's senders wait for its caps, and on SQLite everybody who writes.
PIECE: Final = {"postgresql": 500, "sqlite": 200}
#: The launch that is not there yet comes after every other of its priority.
_LAST: Final = 2**62


def advance_preflight(runtime: Runtime, tenant_id: int, preflight_id: int) -> bool:
    """Look at the next piece of an audience; ``False`` when there is none left, or another worker is at it."""
    with open_session(runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
        row = session.get(Preflight, (tenant_id, preflight_id), with_for_update={"skip_locked": True})
        if row is None or row.status != PreflightStatus.WAITING:
            return False
        campaign = find(session, Campaign, row.campaign_id)
        if campaign.version != row.campaign_version or campaign.segment_id is None:
            _end(row, runtime, PreflightStatus.FAILED, "The campaign was changed meanwhile: ask again.")
            return False
        legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
        tallies, last, count, size = {}, row.cursor, 0, PIECE[runtime.engines.dialect]
        for leg in legs:
            forecast = _Forecast(runtime, session, campaign, leg, row.templates)
            found = row.tallies.get(leg.channel)
            tally = Tally() if found is None else Tally.read(found)
            last, count = forecast.look(row.cursor, size, tally)
            tallies[leg.channel] = tally.document()
        row.tallies, row.cursor, row.audience = tallies, last, row.audience + count
        if count < size:
            _end(row, runtime, PreflightStatus.DONE)
            return False
        return True


def trace_lead(
    runtime: Runtime, session: Session, campaign: Campaign, leg: Leg, template_version: int, lead_id: int
) -> list[Check]:
    """What a launch at this moment would ask of one lead by one channel, question by question."""
    forecast = _Forecast(runtime, session, campaign, leg, {leg.channel: template_version})
    return forecast.trace(lead_id)


def _end(row: Preflight, runtime: Runtime, status: PreflightStatus, error: str | None = None) -> None:
    row.status, row.error, row.finished_at = status, error, runtime.clock.now()


class _Forecast:
    """One channel of a campaign, prepared as a send prepares it."""

    def __init__(
        self, runtime: Runtime, session: Session, campaign: Campaign, leg: Leg, templates: Mapping[str, Any]
    ) -> None:
        self.session = session
        self.segment_id = int(campaign.segment_id or 0)
        about = runtime.channels[leg.channel].capabilities
        self.kind = about.address_kind
        account = message_and_sender(session, leg.template_id, leg.channel).sender
        send = Send(
            tenant_id=campaign.tenant_id,
            id=_LAST,
            campaign_id=campaign.id,
            message_class=campaign.message_class,
            channel=leg.channel,
            template_id=leg.template_id,
            template_version=templates[leg.channel],
            sender=sender_of(runtime, session, leg.channel, account) or {},
            local_start=campaign.local_start,
            priority=campaign.priority,
            obeys_caps=campaign.obeys_caps,
            created_at=runtime.clock.now(),
        )
        content = load_content(session, send, self.kind)
        carrying = carrying_accounts(runtime, session, leg.channel, send.sender)
        self.of_accounts = [limit for each in carrying for limit in account_limits(each.rates, each.id)]
        self.gate = Gate(runtime.keys, content, runtime.rng)
        self.composer = Composer(runtime, content)
        sent = content.content(runtime.settings.public_url).message
        self.paid_text = sent.parts["text"] if about.cost_minor_per_segment else None

    def look(self, cursor: int, size: int, tally: Tally) -> tuple[int, int]:
        """Count the next piece; answers the last lead and how many there were."""
        piece = audience_piece(self.session, self.segment_id, self.kind, cursor, size, self.composer.columns)
        rows = {row.seq: row for excluded, row in piece if excluded is None}
        for excluded, _ in piece:
            if excluded is not None:
                tally.skip(excluded)
        decided, sendable = self.gate.decide(self.session, list(rows.values())), []
        left = [rows[each.seq] for each in decided.settled if each.state == DeliveryState.PLANNED] + decided.passing
        lacking = self._lacking(left, tally)
        for settled in decided.settled:
            if settled.state != DeliveryState.PLANNED:
                tally.skip(str(settled.reason))
            elif settled.seq not in lacking:
                first = settled.code if settled.reason == HoldReason.OUTRANKED else None
                tally.hold(str(settled.reason), settled.due_in_seconds or 0.0, first and first.removeprefix("send "))
                sendable.append(rows[settled.seq])
        passing = [row for row in decided.passing if row.seq not in lacking]
        tally.go(len(passing))
        sendable += passing
        named = named_domains([*decided.rates, *self.of_accounts])
        tally.domains.update(domain for row in sendable if (domain := domain_of(row)) in named)
        return (piece[-1][1].lead_id if piece else cursor), len(piece)

    def trace(self, lead_id: int) -> list[Check]:
        """Every question about one lead."""
        columns = self.composer.columns
        excluded, row = one_of_audience(self.session, self.segment_id, self.kind, lead_id, columns)
        (composed,) = self.composer.compose([row], [0])
        found = self.gate.trace(self.session, row)
        if excluded == SkipReason.DUPLICATE_ADDRESS:
            found.insert(1, Check("shared_address", excluded))
        return [*found, Check("message", SkipReason.MISSING_VARIABLE if isinstance(composed, str) else None)]

    def _lacking(self, rows: Sequence[Any], tally: Tally) -> set[int]:
        """For whom there is no message, which is counted, as is what the others take on the air."""
        lacking = set()
        for row, composed in zip(rows, self.composer.compose(rows, range(len(rows))), strict=True):
            if isinstance(composed, str):
                tally.skip(SkipReason.MISSING_VARIABLE)
                lacking.add(row.seq)
            elif self.paid_text is not None:
                tally.segments += measure(plain_text(self.paid_text, composed.values).strip()).segments
        return lacking
