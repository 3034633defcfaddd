"""Reading leads in bulk and finding one of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, RowMapping, bindparam, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus_marketing.core.audience import EXPORTED, WORDS
from nexus_marketing.db.models import Lead, LeadImportError, SegmentMember
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, tenant_of
from nexus_marketing.db.types import BigInt

_LEADS = Lead.__table__
_MEMBERS = SegmentMember.__table__
_TENANT = bindparam("tenant_id", type_=BigInt)


def leads_after(
    session: Session, names: Sequence[str], after: int, size: int, segment_id: int | None = None
) -> list[RowMapping]:
    """Leads after an id, in the order of ids; only a segment's members when one is given."""
    columns = [_LEADS.c[name] for name in names]
    alive = _LEADS.c.gone_at.is_(None)
    statement = select(*columns).where(_LEADS.c.tenant_id == _TENANT, _LEADS.c.id > after, alive)
    if segment_id is not None:
        members = select(_MEMBERS.c.lead_id).where(_MEMBERS.c.tenant_id == _TENANT, _MEMBERS.c.segment_id == segment_id)
        statement = statement.where(_LEADS.c.id.in_(members))
    return list(run(session, statement.order_by(_LEADS.c.id).limit(size), writes=False).mappings())


_AS_TEXT = {
    "tags": "CAST(l.tags AS text)",
    "metadata": "CAST(l.metadata AS text)",
    **{
        name: f"""to_char(l.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
        for name in ("created_at", "updated_at")
    },
}


def export_page(session: Session, after: int, size: int, segment_id: int | None = None) -> list[Row[Any]]:
    """``EXPORTED`` of leads after an id, in the order of ids; documents as JSON text, moments as canonical text."""
    texts = _AS_TEXT if is_postgresql(session) else {}
    picked = ", ".join(texts.get(name, f"l.{name}") for name in EXPORTED)
    statement = f"SELECT {picked} {_source(segment_id)} AND l.id > :after ORDER BY l.id LIMIT :size"
    return list(run(session, statement, _page(after, segment_id, size=size), writes=False))


def export_bound(session: Session, after: int, size: int, segment_id: int | None = None) -> tuple[int, int]:
    """The last id and the number of the next leads after an id, at most ``size``; (0, 0) when there is none."""
    found = f"SELECT l.id {_source(segment_id)} AND l.id > :after ORDER BY l.id LIMIT :size"
    statement = f"SELECT coalesce(max(id), 0) AS last, count(*) AS n FROM ({found}) AS page"  # noqa: S608
    row = run(session, statement, _page(after, segment_id, size=size), writes=False).one()
    return row.last, row.n


def export_table(session: Session, after: int, last: int, segment_id: int | None = None) -> str:
    """Lines of a CSV file (RFC 4180) about the leads between two ids, written by PostgreSQL itself.

    Tags are joined by semicolons, and cells that a spreadsheet would run neutralised as by ``services.leads.exports``.
    """
    cells = _AS_TEXT | {name: neutral_sql(f"l.{name}") for name in WORDS} | {"tags": _TAGS}
    picked = ", ".join(cells.get(name, f"l.{name}") for name in EXPORTED)
    query = f"SELECT {picked} {_source(segment_id)} AND l.id > :after AND l.id <= :last ORDER BY l.id"
    for name, number in (_page(after, segment_id, last=last) | {"tenant_id": tenant_of(session)}).items():
        query = query.replace(f":{name}", str(int(number)))  # COPY takes no parameters
    connection: Any = session.connection().connection.driver_connection
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)") as copy:
        return b"".join(copy).decode()


#: White space as Python's ``\s`` has it, whatever the locale of the database.
_SPACE = r"[ \t\n\r\f\v\u001c-\u001f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*"
_LIVE = r"[-=+@|%\uff1d\uff0b\uff0d\uff20]"


def neutral_sql(cell: str) -> str:
    """The SQL of a cell that no spreadsheet runs: what is empty or begins with a letter or digit is compared only."""
    first = f'{cell} COLLATE "C"'
    plain = f"{cell} = '' OR {first} >= 'A' AND {first} < '{{' OR {first} >= '0' AND {first} < ':'"
    live = f"{cell} ~ '^''*{_SPACE}{_LIVE}' AND {cell} !~ '^[-+]?[0-9]+([.][0-9]+)?$'"
    return f"CASE WHEN {plain} THEN {cell} WHEN NOT ({live}) THEN {cell} ELSE '''' || {cell} END"


#: A list of JSON where a tag has a separator of its own (``core.audience.joined_tags``).
_TAGS = f"""CASE WHEN l.tags = '[]' THEN '' ELSE (
  SELECT {neutral_sql("j.cell")} FROM (
    SELECT CASE WHEN bool_or(t.value ~ '[,;|]|^[[]') THEN CAST(l.tags AS text)
                ELSE string_agg(t.value, ';' ORDER BY t.place) END AS cell
    FROM jsonb_array_elements_text(l.tags) WITH ORDINALITY AS t(value, place) OFFSET 0) AS j) END"""  # noqa: S608 - our own words


def _page(after: int, segment_id: int | None, **more: int) -> dict[str, int]:
    return {"after": after, **more} | ({} if segment_id is None else {"segment_id": segment_id})


def _source(segment_id: int | None) -> str:
    if segment_id is None:
        return "FROM marketing_leads l WHERE l.tenant_id = :tenant_id AND l.gone_at IS NULL"
    return (
        "FROM marketing_segment_members m JOIN marketing_leads l ON l.tenant_id = :tenant_id AND l.id = m.lead_id"
        " WHERE m.tenant_id = :tenant_id AND m.segment_id = :segment_id AND l.gone_at IS NULL"
    )


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


Values = Mapping[str, Any]


def lock_leads(session: Session, external_ids: Sequence[str], emails: Sequence[str]) -> list[Lead]:
    """Leads with one of these external ids or folded addresses, locked in the order of their ids."""
    if not external_ids and not emails:
        return []
    # Two index scans; one condition with OR would have PostgreSQL read the table.
    known = {
        *session.scalars(select(Lead.id).where(Lead.external_id.in_(external_ids))),
        *session.scalars(select(Lead.id).where(Lead.email_norm.in_(emails))),
    }
    statement = (
        select(Lead)
        .where(Lead.id.in_(known))
        .order_by(Lead.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list(session.scalars(statement)) if known else []


def insert_leads(session: Session, rows: Sequence[Values], now: datetime) -> list[int | None]:
    """Insert leads, by public field names; ``None`` for each whose address or external id was there already."""
    if not rows:
        return []
    shared = {"tenant_id": tenant_of(session), "score": 0.0, "version": 1, "created_at": now, "updated_at": now}
    bound = [{**dict.fromkeys(_OPTIONAL), **_attributes(row), **shared} for row in rows]
    dialect: Any = postgresql if is_postgresql(session) else sqlite
    statement = dialect.insert(Lead).on_conflict_do_nothing().returning(Lead.id, Lead.email_norm, Lead.external_id)
    written = session.execute(statement, bound).all()
    ids = {(row.email_norm, row.external_id): row.id for row in written}
    return [ids.get((row.get("email_norm"), row.get("external_id"))) for row in rows]


_TEXTS = ("email", "email_norm", "external_id", "phone", "name", "first_name", "last_name")
_OPTIONAL = (*_TEXTS, "country", "locale", "time_zone", "owner_id")


def _attributes(row: Values) -> dict[str, Any]:
    return {"attributes" if name == "metadata" else name: value for name, value in row.items()}


def update_leads(
    session: Session, changed: Sequence[tuple[Lead, Mapping[str, tuple[Any, Any]]]], now: datetime
) -> None:
    """Write changes of locked leads, by public field names, and raise their versions."""
    for lead, changes in changed:
        for name, (_, after) in changes.items():
            setattr(lead, "attributes" if name == "metadata" else name, after)
        lead.version += 1
        lead.updated_at = now
    session.flush()


def leads_of(session: Session, names: Sequence[str], lead_ids: Sequence[int]) -> list[RowMapping]:
    """These leads, without those that are gone."""
    columns = [_LEADS.c[name] for name in names]
    wanted = (_LEADS.c.tenant_id == _TENANT, _LEADS.c.gone_at.is_(None), _LEADS.c.id.in_(lead_ids))
    return list(run(session, select(*columns).where(*wanted), writes=False).mappings())


def count_leads(session: Session) -> int:
    """How many leads the tenant has; those that are gone are none."""
    statement = "SELECT count(*) FROM marketing_leads WHERE tenant_id = :tenant_id AND gone_at IS NULL"
    return int(run(session, statement, writes=False).scalar_one())


def lead_id_bounds(session: Session) -> tuple[int, int]:
    """The lowest and the highest id of a tenant that has leads."""
    statement = (
        "SELECT (SELECT id FROM marketing_leads WHERE tenant_id = :tenant_id ORDER BY id LIMIT 1) AS low,"
        " (SELECT id FROM marketing_leads WHERE tenant_id = :tenant_id ORDER BY id DESC LIMIT 1) AS high"
    )
    row = run(session, statement, writes=False).one()
    return int(row.low), int(row.high)
