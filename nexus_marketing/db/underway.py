"""A transaction of PostgreSQL that is under way while its caller goes on working.

All of it leaves in one write (libpq's pipeline mode), so the server runs and commits it without asking back; only the
answer is waited for, and later. The driver's own pipeline sends each statement by itself and the end only when it is
waited for: five wake-ups of another process instead of one.
"""

import select
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine, PoolProxiedConnection, TextClause
from sqlalchemy.dialects import postgresql

from nexus_marketing.db.tenancy import tenant_clause

_SETTINGS = b"SELECT set_config('app.tenant', $1, true), set_config('synchronous_commit', 'on', true)"
#: Where a connection keeps which statements it has prepared.
_PREPARED = "nexus_underway"
_NUMBERED = postgresql.dialect(paramstyle="numeric_dollar")


class DurableStatement:
    """One hand-written statement as a durable transaction of its own; a context that ends when it does.

    The rules are those of :func:`nexus_marketing.db.tenancy.run`.
    """

    def __init__(self, engine: Engine, statement: str, parameters: Mapping[str, Any], *, tenant_id: int) -> None:
        sql, names = _numbered(statement)
        values = {**parameters, "tenant_id": tenant_id}
        self._lent: PoolProxiedConnection | None = engine.raw_connection()
        try:
            connection = self._lent.driver_connection
            assert isinstance(connection, psycopg.Connection)
            self._pgconn: PGconn = connection.pgconn
            self._adapt = Transformer(connection)
            dumped = self._adapt.dump_sequence([values[name] for name in names], [PyFormat.TEXT] * len(names))
            self._pgconn.enter_pipeline_mode()
            self._pgconn.send_query_params(b"BEGIN", None)
            self._pgconn.send_query_params(_SETTINGS, [b"%d" % tenant_id])
            self._send(connection, sql, dumped)
            self._pgconn.send_query_params(b"COMMIT", None)
            self._pgconn.pipeline_sync()
            while self._pgconn.flush():
                self._wait(select.POLLIN | select.POLLOUT)
                self._pgconn.consume_input()
        except BaseException:
            self._drop()
            raise

    def __enter__(self) -> Self:
        """Nothing to do: it is under way."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See a statement through that nobody waited for: committed later, it would undo what comes after it."""
        if self._lent is not None:
            with suppress(psycopg.Error):
                self.rows()

    @property
    def is_answered(self) -> bool:
        """Whether something came back, so that :meth:`rows` need hardly wait."""
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def rows(self) -> Sequence[tuple[Any, ...]]:
        """Wait for the commit; what the statement returned.

        Raises:
            psycopg.Error: it failed, or nobody knows whether it did. The connection is dropped.
        """
        lent = self._lent
        if lent is None:
            raise psycopg.InterfaceError("The statement was let go of: nobody knows whether it was committed.")
        try:
            *_, answer, _end = self._results()
            self._pgconn.exit_pipeline_mode()
            self._adapt.set_pgresult(answer)
            rows: Sequence[tuple[Any, ...]] = self._adapt.load_rows(0, answer.ntuples, tuple)
        except BaseException:
            self._drop()
            raise
        self._lent = None
        lent.close()
        return rows

    def _send(self, connection: psycopg.Connection[Any], sql: bytes, values: Sequence[Any]) -> None:
        if connection.prepare_threshold is None:
            self._pgconn.send_query_params(sql, values)
            return
        assert self._lent is not None
        prepared: dict[bytes, bytes] = self._lent.info.setdefault(_PREPARED, {})
        name = prepared.get(sql)
        if name is None:
            name = prepared[sql] = b"nexus_%d" % len(prepared)
            self._pgconn.send_prepare(name, sql)
        self._pgconn.send_query_prepared(name, values)

    def _results(self) -> list[PGresult]:
        """What came back for each statement, all of them well."""
        results: list[PGresult] = []
        while True:
            while self._pgconn.is_busy():
                self._wait(select.POLLIN)
                self._pgconn.consume_input()
            # None stands between the results of two statements.
            result = self._pgconn.get_result()
            if result is None:
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                return results
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result)
            results.append(result)

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self._pgconn.socket, events)
        poll.poll()

    def _drop(self) -> None:
        if self._lent is not None:
            self._lent.invalidate()
            self._lent = None


@lru_cache(maxsize=100)
def _numbered(statement: str) -> tuple[bytes, Sequence[str]]:
    """The statement with ``$1``, ``$2``, … and what they stand for."""
    clause = tenant_clause(statement)
    assert isinstance(clause, TextClause)
    compiled = clause.compile(dialect=_NUMBERED)
    return str(compiled).encode(), list(dict.fromkeys(compiled.positiontup or ()))
