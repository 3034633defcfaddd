"""Showing a lead's message as it left."""

from sqlalchemy import select

from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.models import Delivery, Send
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.renders import Again, make_again
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.lookup import all_ids, find_lead

_NEVER_LEFT = (DeliveryState.PLANNED, DeliveryState.SKIPPED)


def sent_message(ctx: Context, lead_id: int, send_id: int) -> Again:
    """The message that a send handed over for a lead, made again byte for byte.

    Where it was handed over more than once, it is the last one.

    Raises:
        NotFound: there is no such lead or send, or what the message was made of was not kept.
        Conflict: nothing left for this lead.
        Gone: the lead has been erased; ``Merged`` names the one that it is now.
    """
    find_lead(ctx, lead_id)
    send = find(ctx.session, Send, send_id)
    wanted = (Delivery.send_id == send_id, Delivery.lead_id.in_(all_ids(ctx, lead_id)))
    rows = ctx.session.execute(select(Delivery.seq, Delivery.state).where(*wanted))
    left = [row.seq for row in rows if row.state not in _NEVER_LEFT]
    if not left:
        raise Conflict("Nothing left for this lead by this send: its explanation says why.")
    return make_again(ctx.runtime, ctx.session, send, left[0])
