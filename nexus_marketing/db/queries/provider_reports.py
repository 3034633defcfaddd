"""SQL of what providers report: taking reports out, finding their messages, moving ledger rows on."""
# ruff: noqa: S608 - the pieces put together here are our own names, never input

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.deliveries import TAKEN
from nexus_marketing.core.pacing.feedback import Feedback
from nexus_marketing.db.queries.queues import taking
from nexus_marketing.db.queries.rowsets import Values, as_rows, is_postgresql, rowset
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import Json

_TAKEN = ", ".join(f"'{state}'" for state in TAKEN)


class Heard(NamedTuple):
    """What providers told of one send, and what of it was forgiven."""

    now: Feedback
    forgiven: Feedback


def keep_reports(session: Session, rows: Sequence[Values]) -> None:
    """Append to the queue: ``received_at`` as canonical text, ``channel``, ``provider`` and ``body``; due at once."""
    columns = {"received_at": "timestamptz", "channel": "text", "provider": "text", "body": "jsonb"}
    names = ", ".join(columns)
    statement = (
        f"INSERT INTO marketing_provider_reports (tenant_id, due_at, {names})"
        f" SELECT :tenant_id, nexus_now(), {', '.join(f's.{name}' for name in columns)} FROM {rowset(session, columns)}"
    )
    run(session, statement, {"rows": as_rows(rows)}, writes=True)


def take_reports(session: Session, piece: int) -> list[Row[Any]]:
    """Take up to so many due reports of the tenant out of the queue, in the order of their arrival."""
    columns = "id, received_at, tries, channel, provider, body"
    taken = taking(session, "marketing_provider_reports", columns, only="due_at <= nexus_now()")
    rows = run(session, text(taken).columns(body=Json), {"piece": piece}, writes=True).all()
    return sorted(rows, key=lambda row: int(row.id))


def put_back(session: Session, rows: Sequence[Row[Any]], seconds: Sequence[float]) -> None:
    """Look at these again after so many seconds each."""
    statement = text(
        "INSERT INTO marketing_provider_reports (tenant_id, received_at, due_at, tries, channel, provider, body)"
        " VALUES (:tenant_id, :received_at, nexus_after(:seconds), :tries, :channel, :provider, :body)"
    ).bindparams(bindparam("body", type_=Json))
    for row, wait in zip(rows, seconds, strict=True):
        kept = {name: getattr(row, name) for name in ("received_at", "channel", "provider", "body")}
        run(session, statement, {**kept, "tries": row.tries + 1, "seconds": wait}, writes=True)


_COLUMNS = (
    "d.send_id, d.seq, d.lead_id, d.channel, d.state, d.address_hash, m.campaign_id FROM {source}"
    " CROSS JOIN marketing_deliveries d CROSS JOIN marketing_sends m"
    " WHERE d.tenant_id = :tenant_id AND m.tenant_id = :tenant_id AND m.id = d.send_id"
)


def messages_of(session: Session, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Row[Any]]:
    """The ledger rows of (send, seq), held until the transaction ends, each with its campaign."""
    source = rowset(session, {"send_id": "bigint", "seq": "bigint"})
    statement = (
        f"SELECT {_COLUMNS.format(source=source)} AND d.send_id = s.send_id AND d.seq = s.seq"
        f" ORDER BY d.send_id, d.seq{' FOR UPDATE OF d' if is_postgresql(session) else ''}"
    )
    rows = as_rows([{"send_id": send_id, "seq": seq} for send_id, seq in sorted(set(keys))])
    return {(row.send_id, row.seq): row for row in run(session, statement, {"rows": rows}, writes=False)}


def message_by_code(session: Session, channel: str, column: str, address: str, code: str) -> tuple[int, int] | None:
    """(send, seq) of the newest message to an address that a provider gave this code.

    By way of the lead: an index on codes would be one more that every outcome pays for.
    """
    statement = (
        "SELECT d.send_id, d.seq FROM marketing_leads l CROSS JOIN marketing_deliveries d"
        f" WHERE l.tenant_id = :tenant_id AND l.{column} = :address AND d.tenant_id = :tenant_id"
        " AND d.lead_id = l.id AND d.channel = :channel AND d.provider_code = :code"
        " ORDER BY d.send_id DESC LIMIT 1"
    )
    values = {"channel": channel, "address": address, "code": code}
    row = run(session, statement, values, writes=False).first()
    return None if row is None else (row.send_id, row.seq)


def move_messages(session: Session, moves: Sequence[Values]) -> None:
    """Give ledger rows (``send_id``, ``seq``) another ``state``; whoever changes it holds the row."""
    if not moves:
        return
    source = rowset(session, {"send_id": "bigint", "seq": "bigint", "state": "text"})
    statement = (
        f"UPDATE marketing_deliveries AS d SET state = s.state FROM {source}"
        " WHERE d.tenant_id = :tenant_id AND d.send_id = s.send_id AND d.seq = s.seq"
    )
    run(session, statement, {"rows": as_rows(moves)}, writes=True)


def count_feedback(session: Session, rows: Sequence[Values]) -> None:
    """Add to what was told of sends: ``send_id``, ``moves``, ``bounced``, ``complained``."""
    statement = (
        "INSERT INTO marketing_send_feedback AS f (tenant_id, send_id, moves, bounced, complained)"
        " VALUES (:tenant_id, :send_id, :moves, :bounced, :complained) ON CONFLICT (tenant_id, send_id) DO UPDATE"
        " SET moves = f.moves + excluded.moves, bounced = f.bounced + excluded.bounced,"
        " complained = f.complained + excluded.complained"
    )
    if rows:
        run(session, statement, list(rows), writes=True)


def moves_of(session: Session, send_id: int) -> int:
    """How often a row of this send has gone on since it was settled."""
    statement = "SELECT moves FROM marketing_send_feedback WHERE tenant_id = :tenant_id AND send_id = :send_id"
    return int(run(session, statement, {"send_id": send_id}, writes=False).scalar() or 0)


_HEARD = "SELECT * FROM marketing_send_feedback WHERE tenant_id = :tenant_id AND send_id = :send_id"
_COUNT = (
    "SELECT count(*) FROM (SELECT 1 FROM marketing_deliveries WHERE tenant_id = :tenant_id AND send_id = :send_id"
    f" AND state IN ({_TAKEN}) LIMIT :most) AS taken"
)


def feedback_of(session: Session, send_id: int, sample: Callable[[int, int], int]) -> Heard | None:
    """What was told of a send; ``sample`` (bounced, complained) says how many messages need to be counted for it."""
    row = run(session, _HEARD, {"send_id": send_id}, writes=False).first()
    if row is None:
        return None
    forgiven = Feedback(row.forgiven_taken, row.forgiven_bounced, row.forgiven_complained)
    most = forgiven.taken + sample(row.bounced - forgiven.bounced, row.complained - forgiven.complained)
    taken = run(session, _COUNT, {"send_id": send_id, "most": most}, writes=False).scalar_one()
    return Heard(Feedback(int(taken), row.bounced, row.complained), forgiven)


def forgive(session: Session, send_id: int, feedback: Feedback) -> None:
    """Begin to count anew from here."""
    statement = (
        "UPDATE marketing_send_feedback SET forgiven_taken = :taken, forgiven_bounced = :bounced,"
        " forgiven_complained = :complained WHERE tenant_id = :tenant_id AND send_id = :send_id"
    )
    run(session, statement, {"send_id": send_id, **feedback._asdict()}, writes=True)
