"""Reading leads in bulk and finding one of them."""

from collections.abc import Sequence

from sqlalchemy import RowMapping, bindparam, or_, select
from sqlalchemy.orm import Session

from nexus_marketing.db.models import Lead, LeadImportError, SegmentMember
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import BigInt

_LEADS = Lead.__table__
_MEMBERS = SegmentMember.__table__
_TENANT = bindparam("tenant_id", type_=BigInt)


def export_page(
    session: Session, names: Sequence[str], after: int, size: int, segment_id: int | None
) -> list[RowMapping]:
    """Leads after an id, in the order of ids; only a segment's members when one is given."""
    columns = [_LEADS.c[name] for name in names]
    statement = select(*columns).where(_LEADS.c.tenant_id == _TENANT, _LEADS.c.id > after)
    if segment_id is not None:
        members = select(_MEMBERS.c.lead_id).where(_MEMBERS.c.tenant_id == _TENANT, _MEMBERS.c.segment_id == segment_id)
        statement = statement.where(_LEADS.c.id.in_(members))
    return list(run(session, statement.order_by(_LEADS.c.id).limit(size), writes=False).mappings())


def lead_by_address(session: Session, text: str, email_norm: str) -> int | None:
    """The id of the lead with this e-mail address or external id."""
    wanted = or_(Lead.email_norm == email_norm, Lead.external_id == text)
    return session.scalars(select(Lead.id).where(wanted).order_by(Lead.id).limit(1)).first()


def import_errors(session: Session, import_id: int, after: int, size: int) -> list[LeadImportError]:
    """Rejected rows of an import after a row number, in the order of the file."""
    statement = (
        select(LeadImportError)
        .where(LeadImportError.import_id == import_id, LeadImportError.row_no > after)
        .order_by(LeadImportError.row_no)
        .limit(size)
    )
    return list(session.scalars(statement))
