"""Events from browsers: hostile by assumption, kept as they come, looked at by the workers.

The request writes one row and reads nothing, so that neither its answer nor its time tells whether there is
such a lead. An address is only a claim, so what it says of somebody proves nothing (``unknown``).
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.engagements import MachineHint, Verdict, machine_hint
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import PublicEvent
from nexus_marketing.db.queries.engagements import take_public_events
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.db.types import read_moment, to_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.engagements import MAX_BATCH, Judged, record_engagements
from nexus_marketing.services.leads.lookup import find_lead

#: Strangers' ids must not use up those that the tenant's own programs give.
_ID_PREFIX = "public:"


def lead_token(ctx: Context, lead_id: int) -> str:
    """A token that says which lead a browser belongs to; it does not expire and tells nothing but ids.

    Raises:
        NotFound: there is no such lead; ``Merged`` and ``Gone`` where there was.
    """
    lead = find_lead(ctx, lead_id)
    token: str = ctx.runtime.keys.tokens.sign(Token(TokenKind.LEAD, lead.tenant_id, 0, 0, lead.id))
    return token


def receive_event(ctx: Context, event: Mapping[str, Any], *, user_agent: str) -> None:
    """Keep an event, whosever it is; what the agent gives away is kept, the agent is not."""
    hint = machine_hint(user_agent)
    ctx.session.add(PublicEvent(received_at=ctx.now, machine_hint=hint, body=canonical(dict(event))))
    ctx.session.flush()
    ctx.ring("engagements")


def take_in_public_events(runtime: Runtime, tenant_id: int) -> int:
    """Record a piece of the waiting events of known leads and let the others go; answers how many there were."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        taken = take_public_events(ctx.session, MAX_BATCH)
        rows = [_reported(ctx, event) for event in taken]
        answers = record_engagements(ctx, rows, [_judged(event) for event in taken])
    dropped = sum(answer["status"] == "rejected" for answer in answers)
    if dropped:
        runtime.telemetry.count("events.public_dropped", dropped)
    return len(taken)


def _reported(ctx: Context, event: Row[Any]) -> dict[str, Any]:
    body = event.body
    moment = read_moment(event.received_at)
    row: dict[str, Any] = {
        "type": body["type"],
        "tracked_at": to_text(moment),
        "metadata": body.get("properties", {}),
    }
    if "event_id" in body:
        row["event_id"] = _ID_PREFIX + body["event_id"]
    if "email" in body:
        row["email"] = body["email"]
    else:
        token = ctx.runtime.keys.tokens.read(body["token"], TokenKind.LEAD)
        if token is not None and token.tenant_id == tenant_of(ctx.session):
            row["lead_id"] = str(token.lead_id)
    return row


def _judged(event: Row[Any]) -> Judged:
    if event.machine_hint == MachineHint.SCANNER:
        return Judged(Verdict.MACHINE, MachineHint.SCANNER)
    is_proven = event.machine_hint is None and "token" in event.body
    return Judged(Verdict.HUMAN if is_proven else Verdict.UNKNOWN, event.machine_hint)
