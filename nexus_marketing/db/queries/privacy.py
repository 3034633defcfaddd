"""The folds of consent and suppression as set queries, read fresh every time: never from a cache."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, TextClause, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.privacy import ConsentState
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import bigint_array, to_text

#: Which suppressions stop which class: ``all`` stops everything, ``marketing`` only marketing.
_COVERS = {MessageClass.MARKETING: ("all", "marketing"), MessageClass.TRANSACTIONAL: ("all",)}

_NEWEST = (
    "NOT EXISTS (SELECT 1 FROM marketing_suppressions n WHERE n.tenant_id = :tenant_id"
    " AND n.address_hash = s.address_hash AND n.channel = s.channel AND n.type = s.type AND n.id > s.id)"
)
_SUPPRESSED = (
    "SELECT DISTINCT s.address_hash FROM marketing_suppressions s WHERE s.tenant_id = :tenant_id"
    " AND s.address_hash {hashes} AND s.channel IN (:channel, 'all') AND s.type {types}"
    " AND s.suppressed_at IS NOT NULL AND {newest}"
)
_SUPPRESSED_PG = _SUPPRESSED.format(hashes="= ANY(CAST(:hashes AS bytea[]))", types="= ANY(:types)", newest=_NEWEST)
_SUPPRESSED_SQLITE = _SUPPRESSED.format(hashes="IN :hashes", types="IN :types", newest=_NEWEST)
_ERASED = (
    "SELECT DISTINCT s.address_hash FROM marketing_suppressions s WHERE s.tenant_id = :tenant_id"
    " AND s.address_hash {hashes} AND s.reason = 'erased' AND s.suppressed_at IS NOT NULL AND {newest}"
)
_ERASED_PG = _ERASED.format(hashes="= ANY(CAST(:hashes AS bytea[]))", newest=_NEWEST)
_ERASED_SQLITE = _ERASED.format(hashes="IN :hashes", newest=_NEWEST)
_CONSENTS_PG = (
    "SELECT DISTINCT ON (lead_id) lead_id, granted_at IS NOT NULL AS granted,"
    " expires_at IS NOT NULL AND expires_at <= nexus_now() AS expired"
    " FROM marketing_consents WHERE tenant_id = :tenant_id AND lead_id = ANY(CAST(:leads AS bigint[]))"
    " AND channel = :channel AND type = :type ORDER BY lead_id, at DESC, id DESC"
)
_CONSENTS_SQLITE = (
    "SELECT lead_id, granted, expired FROM (SELECT lead_id, granted_at IS NOT NULL AS granted,"
    " expires_at IS NOT NULL AND expires_at <= nexus_now() AS expired,"
    " row_number() OVER (PARTITION BY lead_id ORDER BY at DESC, id DESC) AS place"
    " FROM marketing_consents WHERE tenant_id = :tenant_id AND lead_id IN :leads"
    " AND channel = :channel AND type = :type) WHERE place = 1"
)
_BATCH = 500


def suppressed_hashes(
    session: Session, hashes: Sequence[bytes], channel: str, message_class: MessageClass
) -> set[bytes]:
    """Those of the addresses (keyed hashes) that must not get a message of this class on this channel."""
    found: set[bytes] = set()
    query = suppressing if is_postgresql(session) else _suppressing_sqlite
    for start in range(0, len(hashes), _BATCH):
        statement, values = query(hashes[start : start + _BATCH], channel, message_class)
        found.update(bytes(each) for each in run(session, statement, values, writes=False).scalars())
    return found


def suppressing(hashes: Sequence[bytes], channel: str, message_class: MessageClass) -> tuple[str, Mapping[str, Any]]:
    """PostgreSQL's query behind ``suppressed_hashes`` and its values."""
    return _SUPPRESSED_PG, {"hashes": _array(hashes), "channel": channel, "types": list(_COVERS[message_class])}


def _array(hashes: Sequence[bytes]) -> str:
    """One array literal: the driver's own encoding of byte arrays costs 1.5 us an element."""
    return "{" + ",".join(['"\\\\x' + each.hex() + '"' for each in hashes]) + "}"


def _suppressing_sqlite(
    hashes: Sequence[bytes], channel: str, message_class: MessageClass
) -> tuple[TextClause, Mapping[str, Any]]:
    statement = text(_SUPPRESSED_SQLITE).bindparams(_list("hashes"), _list("types"))
    return statement, {"hashes": list(hashes), "channel": channel, "types": list(_COVERS[message_class])}


def anybody_erased(session: Session) -> bool:
    """Whether the tenant ever erased a person: what follows for each address need not be asked otherwise."""
    statement = "SELECT 1 FROM marketing_suppressions WHERE tenant_id = :tenant_id AND reason = 'erased' LIMIT 1"
    return run(session, statement, writes=False).first() is not None


def erased_hashes(session: Session, hashes: Sequence[bytes]) -> set[bytes]:
    """Those of the addresses (keyed hashes) whose person was erased."""
    found: set[bytes] = set()
    is_pg = is_postgresql(session)
    statement = _ERASED_PG if is_pg else text(_ERASED_SQLITE).bindparams(_list("hashes"))
    for start in range(0, len(hashes), _BATCH):
        piece = hashes[start : start + _BATCH]
        values = {"hashes": _array(piece) if is_pg else list(piece)}
        found.update(bytes(each) for each in run(session, statement, values, writes=False).scalars())
    return found


def consent_states(session: Session, lead_ids: Sequence[int], channel: str, type_: str) -> dict[int, ConsentState]:
    """The current consent of each lead that ever gave or withdrew one."""
    found: dict[int, ConsentState] = {}
    listed = bigint_array if is_postgresql(session) else list
    for start in range(0, len(lead_ids), _BATCH):
        values = {"leads": listed(lead_ids[start : start + _BATCH]), "channel": channel, "type": type_}
        for row in run(session, _consents(session), values, writes=False):
            state = ConsentState.EXPIRED if row.expired else ConsentState.GRANTED
            found[row.lead_id] = state if row.granted else ConsentState.REVOKED
    return found


def lock_address(session: Session, hashed: bytes) -> None:
    """Let acts about one address follow each other: the newest id is then also the newest commit.

    A transaction-level lock; on SQLite the single writer is lock enough.
    """
    if is_postgresql(session):
        number = int.from_bytes(hashed[:8], "big", signed=True)
        run(
            session,
            "SELECT pg_advisory_xact_lock(:number) WHERE CAST(:tenant_id AS bigint) IS NOT NULL",
            {"number": number},
            writes=False,
        )


def claim_engagement(session: Session, send_id: int, seq: int, type_: str, at: datetime) -> bool:
    """Whether this is the first engagement of its type for one message; a repeat is only counted."""
    row = run(
        session,
        "INSERT INTO marketing_recipient_engagements (tenant_id, send_id, seq, type, verdict, first_at, hits)"
        " VALUES (:tenant_id, :send_id, :seq, :type, 'human', :at, 1)"
        " ON CONFLICT (tenant_id, send_id, seq, type) DO UPDATE SET hits = marketing_recipient_engagements.hits + 1"
        " RETURNING hits",
        {"send_id": send_id, "seq": seq, "type": type_, "at": at if is_postgresql(session) else to_text(at)},
        writes=True,
    )
    return bool(row.scalar_one() == 1)


def _consents(session: Session) -> str | TextClause:
    return _CONSENTS_PG if is_postgresql(session) else text(_CONSENTS_SQLITE).bindparams(_list("leads"))


def _list(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)
