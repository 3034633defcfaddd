"""A campaign of texts by a channel of a plugin, and what became of it."""

from collections import Counter

from sqlalchemy import select

from nexus_marketing.db.models import Delivery
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.templates import create_template
from tests.common.factories import make_leads, make_segment


def launch(runtime: Runtime, tenant: int, channel: str, count: int) -> None:
    """Write to so many new leads."""
    segment = make_segment(runtime, tenant, make_leads(runtime, tenant, count))
    with runtime.work(tenant) as ctx:
        template = create_template(ctx, {"name": "t", "type": "text", "content": {"text": "Hello {{ first_name }}"}})
        data = {"name": "c", "channel": channel, "segment_id": segment, "template_id": template.id}
        move_campaign(ctx, create_campaign(ctx, data).id, "launch")


def states(runtime: Runtime, tenant: int) -> Counter[str]:
    """How many messages of the tenant there are in each state."""
    with runtime.work(tenant, mode="read") as ctx:
        return Counter(ctx.session.scalars(select(Delivery.state)))
