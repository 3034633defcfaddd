"""Transactions that look rows up, few of many: PostgreSQL is not to believe of any table that it is small.

A connection keeps the plan of a statement, and of each check of a foreign key, until the table is analysed next. One that
was made while a table was empty reads all of it for each row, and goes on so while a million rows come in: what took
1 ms takes 10, then 100.
"""

from typing import Final

from sqlalchemy.orm import Session

_BY_INDEX: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)
"""


def look_up_by_index(session: Session) -> None:
    """Have every plan made in this transaction go by indexes; before the first of its statements that look rows up.

    Not for a transaction that goes through a table. SQLite, whose plans do not follow what a table holds, needs nothing.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql(_BY_INDEX)
