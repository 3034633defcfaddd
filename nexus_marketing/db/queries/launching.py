"""What a launch looks at besides the campaign: its message and its sender, in one round trip."""

from typing import Any

from sqlalchemy import Row, Select, Table, and_, bindparam, literal, select
from sqlalchemy.orm import Session

from nexus_marketing.db.models import ChannelAccount, Template
from nexus_marketing.db.queries.listings import TENANT, table_of
from nexus_marketing.db.tenancy import run


def _statement(template: Table, account: Table) -> Select[Any]:
    sender = (
        select(account.c.config)
        .where(account.c.tenant_id == TENANT, account.c.type == bindparam("channel"), account.c.enabled.is_(True))
        .order_by(account.c.id)
        .limit(1)
        .scalar_subquery()
    )
    always = select(literal(1).label("one")).subquery()
    its_message = and_(template.c.tenant_id == TENANT, template.c.id == bindparam("template_id"))
    return select(
        template.c.id,
        template.c.type,
        template.c.version,
        template.c.content,
        template.c.variables,
        sender.label("sender"),
    ).select_from(always.outerjoin(template, its_message))


_MESSAGE_AND_SENDER = _statement(table_of(Template), table_of(ChannelAccount))


def message_and_sender(session: Session, template_id: int | None, channel: str) -> Row[Any]:
    """Template (``id`` is nothing where there is none) and ``sender``, the settings of the channel's first account."""
    return run(session, _MESSAGE_AND_SENDER, {"template_id": template_id, "channel": channel}, writes=False).one()
