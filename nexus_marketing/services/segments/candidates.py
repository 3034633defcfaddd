"""Rules that ask plugins: the database narrows them down and answers its parts, Python asks about the leads that are left.

Leads are read in bounded pieces, and no transaction is open while a plugin is asked about all of a tenant's leads.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Row

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import Evaluation, Split
from nexus_marketing.db.queries.candidates import candidates
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.segments.rules import Rule

#: Leads that are read, and asked about, at a time.
AT_ONCE: Final = 2_000


def satisfying(ctx: Context, rule: Rule, lead_ids: Collection[int]) -> set[int]:
    """Those of a few leads of whom a rule that asks plugins is true.

    Raises:
        ConditionUnavailable: a plugin cannot be asked now.
    """
    asks, evaluation = _asks(rule), Evaluation(ctx.now)
    wanted, found = sorted(lead_ids), set()
    for begun in range(0, len(wanted), AT_ONCE):
        some = wanted[begun : begun + AT_ONCE]
        found.update(_judged(asks, _read(ctx, rule, evaluation, lead_ids=some), evaluation))
    return found


def count_satisfying(ctx: Context, rule: Rule) -> int:
    """Of how many of the tenant's leads a rule that asks plugins is true, in the caller's transaction.

    Raises:
        ConditionUnavailable: a plugin cannot be asked now.
    """
    asks, evaluation = _asks(rule), Evaluation(ctx.now)
    pieces = _pieces(lambda after: _read(ctx, rule, evaluation, after=after, most=AT_ONCE))
    return sum(len(_judged(asks, rows, evaluation)) for rows in pieces)


def all_satisfying(
    runtime: Runtime, tenant_id: int, rule: Rule, evaluation: Evaluation, still_there: Callable[[], None]
) -> list[int]:
    """The ids of all leads of whom a rule that asks plugins is true, ascending; each piece is a transaction of its own.

    Args:
        runtime: of the process.
        tenant_id: whose leads.
        rule: of theirs.
        evaluation: the clock for all of them.
        still_there: called between two pieces.

    Raises:
        ConditionUnavailable: a plugin cannot be asked now.
    """
    asks = _asks(rule)

    def read(after: int) -> list[Row[Any]]:
        with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
            return _read(ctx, rule, evaluation, after=after, most=AT_ONCE)

    found: list[int] = []
    for rows in _pieces(read):
        found += _judged(asks, rows, evaluation)
        still_there()
    return found


def _asks(rule: Rule) -> Split:
    if rule.asks is None:
        raise TypeError("the rule asks no plugin: its SQL answers it")
    return rule.asks


def _read(ctx: Context, rule: Rule, evaluation: Evaluation, **which: Any) -> list[Row[Any]]:
    asks, few = _asks(rule), which.get("lead_ids") is not None
    narrow = None if asks.narrow is None else rule.sql(ctx, asks.narrow, evaluation=evaluation, few=few)
    parts = [rule.sql(ctx, part, evaluation=evaluation, few=few) for part in asks.parts]
    return candidates(ctx.session, narrow, asks.columns, parts, **which)


def _pieces(read: Callable[[int], list[Row[Any]]]) -> Iterator[list[Row[Any]]]:
    after = 0
    while rows := read(after):
        yield rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1][0]


def _judged(asks: Split, rows: Sequence[Row[Any]], evaluation: Evaluation) -> list[int]:
    columns = asks.columns
    records: list[dict[str, object]] = [dict(zip(columns, row[1:], strict=False)) for row in rows]
    begun = 1 + len(columns)
    parts = [[row[begun + place] for row in rows] for place in range(len(asks.parts))]
    held = asks.holds(records, parts, evaluation) if rows else []
    return [row[0] for row, is_true in zip(rows, held, strict=True) if is_true]
