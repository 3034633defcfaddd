"""Rows for tests, made straight through the models: each function commits and answers ids.

What a service would compute is given plainly; tests of the services themselves call those instead.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert

from nexus_marketing.core.values import email_norm
from nexus_marketing.db.models import (
    Campaign,
    Delivery,
    DeliveryChunk,
    Lead,
    Segment,
    SegmentMember,
    Send,
    Template,
    TemplateVersion,
    Tenant,
)
from nexus_marketing.runtime import Runtime


def make_tenant(runtime: Runtime, slug: str = "acme", **values: Any) -> int:
    """A tenant, made by the owner as ``nexus-marketing tenants`` does."""
    with runtime.work(None, role="owner") as ctx:
        row = Tenant(**{"slug": slug, "name": slug.title(), "settings": {}, "created_at": ctx.now, **values})
        ctx.session.add(row)
        ctx.session.flush()
        return row.id


def lead_values(number: int, **values: Any) -> dict[str, Any]:
    """Column values of an ordinary lead; ``email_norm`` follows ``email`` unless it is given."""
    row = {
        "email": f"person{number}@example.org",
        "name": f"Person {number}",
        "first_name": f"First{number}",
        "last_name": f"Last{number}",
        "country": "US",
        "locale": "en",
        "time_zone": "UTC",
        "score": float(number % 100),
        "tags": [],
        "attributes": {},
        **values,
    }
    row.setdefault("email_norm", None if row["email"] is None else email_norm(row["email"]))
    return row


def make_leads(runtime: Runtime, tenant_id: int, count: int = 1, *, first: int = 1, **values: Any) -> list[int]:
    """Leads numbered from ``first``; ids in that order."""
    with runtime.work(tenant_id) as ctx:
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        rows = [{"tenant_id": tenant_id, **times, **lead_values(first + n, **values)} for n in range(count)]
        if not rows:
            return []
        statement = insert(Lead).returning(Lead.id, sort_by_parameter_order=True)
        return list(ctx.session.scalars(statement, rows))


def make_segment(
    runtime: Runtime, tenant_id: int, lead_ids: Sequence[int] = (), name: str = "All", **values: Any
) -> int:
    """A static segment with these members."""
    with runtime.work(tenant_id) as ctx:
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        row = Segment(**{"name": name, "kind": "static", "lead_count": len(lead_ids), **times, **values})
        ctx.session.add(row)
        ctx.session.flush()
        member = {"tenant_id": tenant_id, "segment_id": row.id, "entered_at": ctx.now, "generation": 1}
        if lead_ids:
            ctx.session.execute(insert(SegmentMember), [{**member, "lead_id": each} for each in lead_ids])
        return row.id


def make_template(runtime: Runtime, tenant_id: int, name: str = "Welcome", **values: Any) -> int:
    """A template whose version 1 is published."""
    with runtime.work(tenant_id) as ctx:
        content = {"subject": "Hello {{ lead.first_name }}", "html": "<p>Hello</p>", "text": "Hello"}
        shared = {"content": content, "variables": {}, **values}
        row = Template(name=name, type="email", created_at=ctx.now, updated_at=ctx.now, **shared)
        ctx.session.add(row)
        ctx.session.flush()
        ctx.session.add(
            TemplateVersion(template_id=row.id, number=1, links=[], digest="0" * 64, created_at=ctx.now, **shared)
        )
        return row.id


def make_campaign(runtime: Runtime, tenant_id: int, name: str = "Spring", **values: Any) -> int:
    """A draft of a marketing e-mail campaign."""
    with runtime.work(tenant_id) as ctx:
        defaults = {
            "status": "draft",
            "message_class": "marketing",
            "channel": "email",
            "data": {},
            "created_at": ctx.now,
            "updated_at": ctx.now,
        }
        row = Campaign(name=name, **{**defaults, **values})
        ctx.session.add(row)
        ctx.session.flush()
        return row.id


def make_send(
    runtime: Runtime, tenant_id: int, campaign_id: int, template_id: int, lead_ids: Sequence[int] = (), **values: Any
) -> int:
    """A running send with one open chunk of planned recipients."""
    with runtime.work(tenant_id) as ctx:
        defaults = {
            "campaign_version": 1,
            "occurrence_key": "launch",
            "status": "running",
            "message_class": "marketing",
            "channel": "email",
            "template_version": 1,
            "sender": {},
            "planned": len(lead_ids),
            "send_not_after": ctx.now,
            "created_at": ctx.now,
        }
        row = Send(campaign_id=campaign_id, template_id=template_id, **{**defaults, **values})
        ctx.session.add(row)
        ctx.session.flush()
        shared = {"tenant_id": tenant_id, "send_id": row.id, "channel": "email", "state": "planned"}
        rows = [{**shared, "seq": seq, "lead_id": lead_id} for seq, lead_id in enumerate(lead_ids, start=1)]
        if rows:
            ctx.session.execute(insert(Delivery), rows)
            ctx.session.add(DeliveryChunk(send_id=row.id, chunk_no=1, seq_lo=1, seq_hi=len(rows)))
        return row.id
