"""Transactions, or parts of them, that look up few rows of many: PostgreSQL is not to believe of any table that it is small.

A connection keeps the plan of a statement, and of each check of a foreign key, until the table is analysed next. One that
was made while a table was empty reads all of it for each row, and goes on so while a million rows come in: what took
1 ms takes 10, then 100.

A transaction that does nothing else is opened so (``db.tenancy.open_session``, ``by_index``), which costs no round trip.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.orm import Session

_PART: Final = """
WITH before AS MATERIALIZED (
  SELECT current_setting('enable_seqscan') AS seqscan, current_setting('enable_bitmapscan') AS bitmapscan,
    current_setting('jit') AS jit
) SELECT before.*, set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
  set_config('jit', 'off', true) FROM before
"""
_AS_BEFORE: Final = """
SELECT set_config('enable_seqscan', %(seqscan)s, true), set_config('enable_bitmapscan', %(bitmapscan)s, true),
  set_config('jit', %(jit)s, true)
"""


@contextmanager
def looking_up_by_index(session: Session) -> Iterator[None]:
    """Have every plan that is made in the block go by indexes; what comes after it is planned as before.

    SQLite, whose plans do not follow what a table holds, needs nothing.
    """
    if session.get_bind().dialect.name != "postgresql":
        yield
        return
    connection = session.connection()
    found = connection.exec_driver_sql(_PART).one()
    before = {"seqscan": found.seqscan, "bitmapscan": found.bitmapscan, "jit": found.jit}
    yield
    connection.exec_driver_sql(_AS_BEFORE, before)  # not where the part failed: the transaction is over then
