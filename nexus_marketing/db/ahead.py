"""Statements of a session's transaction that PostgreSQL works on while their caller goes on working.

They leave at once and their answers are waited for at the end of the block (libpq's pipeline mode): one wait instead
of one for each, during which Python does something useful. On SQLite, which works in our own thread, they are executed
one by one as ever. A transaction of its own that is under way is ``db.underway``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg
import zope.sqlalchemy
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Executable, bindparam, insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from nexus_marketing.db.base import TenantScoped
from nexus_marketing.db.tenancy import run, tenant_clause, tenant_of

_DIALECT = PGDialect_psycopg()
_TIMESTAMPTZ = psycopg.postgres.types["timestamptz"].oid


@contextmanager
def sent_ahead(session: Session) -> Iterator[None]:
    """Send the statements of the block one behind the other; its end waits until all were executed.

    Statements of which somebody wants an answer are asked by :func:`ask`; no rows of others come back, and no count.

    Raises:
        DBAPIError: one of them failed; those behind it were not executed.
    """
    _, connection = _lent_to(session)
    if connection is None:
        yield
        return
    try:
        with connection.pipeline():
            yield
    except psycopg.Error as error:
        raise _told(error, "statements sent ahead") from error


class Question(NamedTuple):
    """A hand-written statement with its parameters; one that writes says so."""

    statement: str | Executable
    parameters: Mapping[str, Any]
    writes: bool = False


def ask(session: Session, question: Question) -> Callable[[], list[Any]]:
    """Have a statement executed, inside :func:`sent_ahead` while the block goes on; what is answered tells its rows.

    It tells them once, and inside the block waits for them. The rules are those of :func:`answers`.

    Raises:
        DBAPIError: it failed; inside a block at its end.
    """
    lent, connection = _lent_to(session)
    if connection is None:
        found = list(run(session, question.statement, question.parameters, writes=question.writes))
        return lambda: found
    cursor, sql, values = _made_ready(session, lent, connection.cursor(row_factory=_row_of), question)
    try:
        return cursor.execute(sql.encode(), values).fetchall
    except psycopg.Error as error:
        raise _told(error, sql) from error


def answers(session: Session, *questions: Question) -> list[list[Any]]:
    """The rows of several statements, which are executed one behind the other, with one wait for all of them.

    The rules are those of :func:`nexus_marketing.db.tenancy.run`. On PostgreSQL the driver answers itself, which costs
    a third; ``columns`` of a statement hold for SQLite, and moments are UTC on both.

    Raises:
        DBAPIError: one of them failed.
    """
    if len(questions) == 1:
        return [ask(session, questions[0])()]
    with sent_ahead(session):
        asked = [ask(session, each) for each in questions]
    return [rows() for rows in asked]


def send(session: Session, statement: str | Executable, parameters: Mapping[str, Any]) -> None:
    """Execute a statement that writes and that nobody wants an answer of, as ``run`` does at twice the price.

    Raises:
        DBAPIError: it failed; inside :func:`sent_ahead` perhaps one before it.
    """
    lent, connection = _lent_to(session)
    if connection is None:
        run(session, statement, parameters, writes=True)
        return
    cursor, sql, values = _made_ready(session, lent, connection.cursor(), Question(statement, parameters, writes=True))
    try:
        cursor.execute(sql.encode(), values)
    except psycopg.Error as error:
        raise _told(error, sql) from error


def append_ahead(session: Session, model: type[TenantScoped], **values: Any) -> None:
    """As ``db.tenancy.append``, where nobody asks for the id: nothing comes back, so that it may be sent ahead."""
    send(session, _insert_of(model, tuple(values)), values)  # type: ignore[arg-type]  # classes are hashable


@lru_cache(maxsize=100)
def _insert_of(model: Any, names: tuple[str, ...]) -> Executable:
    columns = model.__table__.c
    bound = {name: bindparam(name, type_=columns[name].type) for name in ("tenant_id", *names)}
    return insert(model.__table__).values(bound).inline()


def _made_ready(
    session: Session, lent: Connection, cursor: psycopg.Cursor[Any], question: Question
) -> tuple[psycopg.Cursor[Any], str, dict[str, Any]]:
    """What the driver is to execute; whoever listens to the engine's statements hears of it, as of any other."""
    sql, processors = _spelled(question.statement)
    values = {**question.parameters, "tenant_id": tenant_of(session)}
    for name, process in processors.items():
        values[name] = process(values[name])
    if question.writes and session.info["managed"]:
        zope.sqlalchemy.mark_changed(session)
    for heard in lent.dispatch.before_cursor_execute:
        heard(lent, cursor, sql, values, None, False)
    return cursor, sql, values


def _row_of(cursor: Any) -> Callable[[Sequence[Any]], Any]:
    make, result = namedtuple_row(cursor), cursor.pgresult
    if result is None or cursor.connection.info.timezone is UTC:
        return make
    moments = [n for n in range(result.nfields) if result.ftype(n) == _TIMESTAMPTZ]

    def of(values: Sequence[Any]) -> Any:
        fields = list(values)
        for n in moments:
            if fields[n] is not None:
                fields[n] = fields[n].astimezone(UTC)
        return make(fields)

    return of


def _lent_to(session: Session) -> tuple[Connection, psycopg.Connection[Any] | None]:
    """The session's connection, which takes longer to ask for than many a statement to execute, and PostgreSQL's driver."""
    lent = session.connection()
    driver = lent.connection.driver_connection
    return lent, driver if isinstance(driver, psycopg.Connection) else None


def _told(error: psycopg.Error, statement: str) -> BaseException:
    """The error as SQLAlchemy tells it, so that ``db.retry`` knows it: that of the statement which failed first."""
    while isinstance(error, psycopg.errors.PipelineAborted) and isinstance(error.__context__, psycopg.Error):
        error = error.__context__
    return DBAPIError.instance(statement, None, error, psycopg.Error, dialect=_DIALECT)


@lru_cache(maxsize=1000)
def _spelled(statement: str | Executable) -> tuple[str, Mapping[str, Callable[[Any], Any]]]:
    """A statement as the driver reads it, and what is to be done to the values of its typed parameters."""
    clause: Any = tenant_clause(statement)
    compiled = clause.compile(dialect=_DIALECT)
    return str(compiled), compiled._bind_processors  # noqa: SLF001 - there is no public way to ask
