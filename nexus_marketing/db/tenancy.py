"""The first two fences: every read gets the tenant, every write is stamped or refused (DATABASE.md).

The third is PostgreSQL's row-level security; on SQLite these two hold alone. What the ORM cannot
see (Core tables, ``text()``) must come through :func:`run`, which binds the tenant itself.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import zope.sqlalchemy
from sqlalchemy import (
    BindParameter,
    Delete,
    Engine,
    Executable,
    Insert,
    Result,
    Select,
    TextClause,
    Update,
    event,
    insert,
    text,
)
from sqlalchemy import Row as SqlRow
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria
from sqlalchemy.sql import visitors
from transaction.interfaces import ITransactionManager
from zope.sqlalchemy.datamanager import ZopeTransactionEvents

from nexus_marketing.core.errors import ForeignTenant, NotFound, TenantRequired
from nexus_marketing.db.base import Base, TenantScoped
from nexus_marketing.db.engines import BY_INDEX
from nexus_marketing.db.statements import check_written_tenant, touches_tenant_rows

Row = TypeVar("Row", bound=Base)

#: Execution option by which worker code says: this statement is about all tenants on purpose.
ALL_TENANTS = "nexus_all_tenants"
_CHECKED = "nexus_checked"
#: No id has it, nor has any database a place for it.
_BEYOND_IDS = 2**63
_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: On what follows from a statement that was looked through.
_SEEN = "nexus_seen"
# Passed by Session.get() and refresh(), and by the legacy Query, which is refused below.
_LOADS_ONE = "_sa_orm_load_options"


class TenantSession(Session):
    """A session that belongs to one tenant, or to none and then refuses tenant tables.

    ``info['tenant_id']`` is the tenant; :func:`open_session` sets it.
    """

    def _refuse(self, *_args: Any, **_options: Any) -> NoReturn:
        raise TenantRequired("The session's legacy methods pass the fences by: use execute() with a statement.")

    query = bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = _refuse


def open_session(
    engine: Engine,
    *,
    tenant_id: int | None,
    mode: str = "write",
    manager: ITransactionManager | None = None,
    timeout_seconds: float | None = None,
    by_index: bool = False,
) -> TenantSession:
    """A session for one unit of work.

    Args:
        engine: of the role that acts.
        tenant_id: whose rows; ``None`` only for work over all tenants.
        mode: ``read``, ``write`` or ``durable`` (see ``db.engines``).
        manager: the transaction manager whose commit commits the session; without one the
            caller commits.
        timeout_seconds: when the database gives up a statement; ``None`` for never.
        by_index: for work that looks rows up and goes through no table (``db.by_index``).
    """
    options: dict[str, Any] = {"nexus_mode": mode}
    if tenant_id is not None:
        options["nexus_tenant"] = tenant_id
    if timeout_seconds is not None:
        options["nexus_timeout_seconds"] = timeout_seconds
    if by_index:
        options[BY_INDEX] = True
    session = TenantSession(bind=engine.execution_options(**options), expire_on_commit=False)
    session.info.update(tenant_id=tenant_id, managed=manager is not None)
    if manager is not None:
        session.info["joining"] = ZopeTransactionEvents(transaction_manager=manager)
    return session


def _joining(name: str) -> Callable[..., None]:
    """Forward an event to the session's own transaction manager.

    ``zope.sqlalchemy.register`` on each session would cost 0.1 ms a request for seven listeners.
    """

    def forward(first: Any, *rest: Any) -> None:
        session = first if isinstance(first, Session) else first.session
        events = session.info.get("joining")
        if events is not None:
            getattr(events, name)(first, *rest)

    return forward


for _event in (
    "after_begin",
    "after_attach",
    "after_flush",
    "after_bulk_update",
    "after_bulk_delete",
    "before_commit",
    "do_orm_execute",
):
    event.listen(TenantSession, _event, _joining(_event))


def tenant_of(session: Session) -> int:
    """The tenant this session works for.

    Raises:
        TenantRequired: it works for none.
    """
    tenant_id = session.info.get("tenant_id")
    if tenant_id is None:
        raise TenantRequired("This work needs a tenant and the session has none.")
    return int(tenant_id)


def find(session: Session, model: type[Row], id_: int, *, lock: bool = False) -> Row:
    """The tenant's row with this id.

    Raises:
        NotFound: there is none; a foreign id looks exactly like an unknown one.
    """
    row = None
    if abs(id_) < _BEYOND_IDS:  # a larger one is none, and SQLite cannot even be asked for it
        row = session.get(model, (tenant_of(session), id_), with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise NotFound(f"There is no {_noun(model)} {id_}.", id=id_)
    return row


def _noun(model: type[Any]) -> str:
    """What people call its rows: ``lead import`` of ``LeadImport``."""
    return getattr(model, "__noun__", None) or _WORD_BEGINS.sub(" ", model.__name__).lower()


@event.listens_for(TenantSession, "do_orm_execute")
def _scope_statement(state: ORMExecuteState) -> None:
    options = state.execution_options
    if options.get(ALL_TENANTS) or options.get(_CHECKED):
        return
    statement = state.statement
    if not state.is_orm_statement or not isinstance(statement, Select | Insert | Update | Delete):
        raise TenantRequired("Core and text statements go through nexus_marketing.db.tenancy.run().")
    if isinstance(statement, Insert):
        if _is_tenant_scoped(state):
            check_written_tenant(statement, state.parameters, tenant_of(state.session))
        return
    # What the ORM makes itself (get, refresh, relationships, the rows of an UPDATE already looked through)
    # holds nothing that could escape; statements of ours are looked through.
    generated = state.is_relationship_load or state.is_column_load or _LOADS_ONE in options or _SEEN in options
    if not (_is_tenant_scoped(state) if generated else touches_tenant_rows(statement)):
        return
    tenant_id = tenant_of(state.session)
    if isinstance(statement, Update):
        check_written_tenant(statement, state.parameters, tenant_id)
    state.update_execution_options(**{_SEEN: True})
    state.statement = statement.options(
        with_loader_criteria(TenantScoped, lambda cls: cls.tenant_id == tenant_id, include_aliases=True)
    )


def _is_tenant_scoped(state: ORMExecuteState) -> bool:
    return any(issubclass(mapper.class_, TenantScoped) for mapper in state.all_mappers)


@event.listens_for(TenantSession, "before_flush")
def _stamp_rows(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    for row in session.new:
        if isinstance(row, TenantScoped) and row.tenant_id is None:
            row.tenant_id = tenant_of(session)
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, TenantScoped) and row.tenant_id != tenant_of(session):
            raise ForeignTenant(f"A {_noun(type(row))} of another tenant was about to be written.")


def run(
    session: Session,
    statement: str | Executable,
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    writes: bool,
) -> Result[Any]:
    """Execute a hand-written statement for the session's tenant.

    The statement must mention ``:tenant_id`` (a bind of that name), which is set here and nowhere
    else. ``writes`` marks the transaction as changed: zope.sqlalchemy cannot see Core writes and
    would silently roll them back.

    Raises:
        TenantRequired: the statement has no ``:tenant_id`` or the session has no tenant.
    """
    tenant_id = tenant_of(session)
    clause = tenant_clause(statement)
    bound: Any
    if parameters is None or isinstance(parameters, Mapping):
        bound = {**(parameters or {}), "tenant_id": tenant_id}
    else:
        bound = [{**row, "tenant_id": tenant_id} for row in parameters]
    return _execute(session, clause, bound, writes=writes)


def append(session: Session, model: type[TenantScoped], **values: Any) -> int:
    """Insert a row of the session's tenant and answer its id, without an object for it.

    For rows that are written once and not looked at again in their transaction: a third of what the unit of
    work costs. The row is there at once; what is pending in the session is not flushed first.
    """
    bound = {**values, "tenant_id": tenant_of(session)}
    statement = _insert_of(model)  # type: ignore[arg-type]  # classes are hashable
    row_id: int = session.connection().execute(statement, bound).scalar_one()
    if session.info["managed"]:
        zope.sqlalchemy.mark_changed(session)
    return row_id


@lru_cache(maxsize=100)
def _insert_of(model: Any) -> Executable:
    return insert(model.__table__).returning(model.__table__.c.id)


def run_alone(
    engine: Engine, statement: str, parameters: Mapping[str, Any], *, tenant_id: int, mode: str
) -> Sequence[SqlRow[Any]]:
    """Execute a hand-written statement as a transaction of its own, at a third of the price of a session.

    The rules are those of :func:`run`; ``mode`` is that of :func:`open_session`.

    Raises:
        TenantRequired: the statement has no ``:tenant_id``.
    """
    clause = tenant_clause(statement)
    with engine.connect() as connection:
        connection.execution_options(nexus_mode=mode, nexus_tenant=tenant_id)
        with connection.begin():
            return connection.execute(clause, {**parameters, "tenant_id": tenant_id}).all()


def run_for_all(
    session: Session, statement: str | Executable, parameters: Mapping[str, Any] | None = None, *, writes: bool
) -> Result[Any]:
    """Execute a worker's statement that looks across tenants on purpose (claims, sweeps).

    Returned rows must carry ``tenant_id``; what follows for each of them runs in a session of
    that tenant. The plan check in tests reads every statement that comes through here.
    """
    clause = _cached_text(statement) if isinstance(statement, str) else statement
    return _execute(session, clause, dict(parameters or {}), writes=writes)


def _execute(session: Session, clause: Executable, bound: Any, *, writes: bool) -> Result[Any]:
    result = session.execute(clause, bound, execution_options={_CHECKED: True})
    if writes and session.info["managed"]:
        zope.sqlalchemy.mark_changed(session)
    return result


def tenant_clause(statement: str | Executable) -> Executable:
    """The statement, provided it can be bound to a tenant.

    Raises:
        TenantRequired: it has no ``:tenant_id``.
    """
    clause = _cached_text(statement) if isinstance(statement, str) else statement
    if "tenant_id" not in _bind_names(clause):
        raise TenantRequired("A statement without :tenant_id may not touch tenant tables.")
    return clause


@lru_cache(maxsize=1000)
def _cached_text(statement: str) -> TextClause:
    return text(statement)


@lru_cache(maxsize=1000)
def _bind_names(clause: Executable) -> set[str]:
    # By identity: looking through a statement costs as much as PostgreSQL needs for a page of rows.
    if isinstance(clause, TextClause):
        return set(clause._bindparams)  # noqa: SLF001 - there is no public way to ask
    return {str(element.key) for element in visitors.iterate(clause) if isinstance(element, BindParameter)}  # type: ignore[arg-type]
