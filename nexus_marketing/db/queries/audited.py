"""Conditions that no index serves under row-level security, because their operators are not leakproof.

They run on the worker's pool, whose policy keeps the indexes, for the tenant of the Context alone, and each
use is a row of the audit trail (DATABASE.md, Audited read path): :mod:`nexus_marketing.services.searches`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Table,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy import table as table_clause
from sqlalchemy.dialects.postgresql import TSQUERY

_WORDS = table_clause("marketing_engagements_words", column("tenant_id"), column("word"), column("engagement_id"))


def has_words(table: Table, words: Sequence[str], dialect: str) -> tuple[ColumnElement[bool], dict[str, Any]]:
    """The condition that a row has all of these words, and its parameters.

    Words hold letters and digits only (``core.engagements.query_words``), so that quotes make lexemes of them.
    """
    if dialect == "postgresql":
        # Constants spelled out: parameters would make it another expression than the index has.
        has = func.array_to_tsvector(func.string_to_array(table.c.words, literal_column("' '")))
        condition = has.op("@@", return_type=Boolean())(cast(bindparam("lexemes"), TSQUERY))
        return condition, {"lexemes": " & ".join(f"'{word}'" for word in words)}
    found = [
        table.c.id.in_(
            select(_WORDS.c.engagement_id).where(
                _WORDS.c.tenant_id == bindparam("tenant_id"), _WORDS.c.word == bindparam(f"word_{number}")
            )
        )
        for number in range(len(words))
    ]
    return and_(*found), {f"word_{number}": word for number, word in enumerate(words)}
