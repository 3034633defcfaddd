"""Statements of a session's transaction that PostgreSQL works on while their caller goes on working.

They leave at once and their answers are waited for at the end of the block (libpq's pipeline mode): one wait instead
of one for each, during which Python does something useful. On SQLite, which works in our own thread, they are executed
one by one as ever. A transaction of its own that is under way is ``db.underway``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
import zope.sqlalchemy
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run, tenant_clause, tenant_of

_DIALECT = PGDialect_psycopg()


@contextmanager
def sent_ahead(session: Session) -> Iterator[None]:
    """Send the statements of the block one behind the other; its end waits until all were executed.

    Only for statements that nobody wants an answer of: no rows come back, and no count of them.

    Raises:
        DBAPIError: one of them failed; those behind it were not executed.
    """
    connection = _driver_of(session)
    if connection is None:
        yield
        return
    try:
        with connection.pipeline():
            yield
    except psycopg.Error as error:
        raise _told(error, "statements sent ahead") from error


@contextmanager
def under_way(
    session: Session, statement: str, parameters: Mapping[str, Any]
) -> Iterator[Callable[[], Sequence[Sequence[Any]]]]:
    """Have a hand-written statement that writes executed during the block, which must leave the session alone.

    The rules are those of :func:`nexus_marketing.db.tenancy.run`. What is yielded answers its rows, after the block.

    Raises:
        DBAPIError: it failed; at the end of the block.
    """
    connection = _driver_of(session)
    if connection is None:
        found = run(session, statement, parameters, writes=True).all()
        yield lambda: found
        return
    if session.info["managed"]:
        zope.sqlalchemy.mark_changed(session)
    try:
        with connection.pipeline():
            yield connection.execute(_spelled(statement), {**parameters, "tenant_id": tenant_of(session)}).fetchall
    except psycopg.Error as error:
        raise _told(error, statement) from error


def _driver_of(session: Session) -> psycopg.Connection[Any] | None:
    driver = session.connection().connection.driver_connection
    return driver if isinstance(driver, psycopg.Connection) else None


def _told(error: psycopg.Error, statement: str) -> BaseException:
    """The error as SQLAlchemy tells it, so that ``db.retry`` knows it."""
    return DBAPIError.instance(statement, None, error, psycopg.Error, dialect=_DIALECT)


@lru_cache(maxsize=100)
def _spelled(statement: str) -> bytes:
    return str(tenant_clause(statement).compile(dialect=_DIALECT)).encode()
