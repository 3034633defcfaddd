"""Which workers are alive."""

from sqlalchemy import Engine

from nexus_marketing.db.tenancy import open_session, run_for_all

_SAY = """
INSERT INTO marketing_workers (id, host, pid, started_at, seen_at)
VALUES (:id, :host, :pid, nexus_now(), nexus_now())
ON CONFLICT (id) DO UPDATE SET seen_at = nexus_now()
WHERE marketing_workers.seen_at < nexus_after(-10)
"""
_FORGET = "DELETE FROM marketing_workers WHERE id = :id OR seen_at < nexus_after(-86400)"

_AGE = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM nexus_now() - max(seen_at)) FROM marketing_workers",
    "sqlite": "SELECT (julianday(nexus_now()) - julianday(max(seen_at))) * 86400 FROM marketing_workers",
}


def say_alive(engine: Engine, worker_id: str, host: str, pid: int) -> None:
    """Write down that this worker is here, at most every ten seconds."""
    with open_session(engine, tenant_id=None) as session, session.begin():
        run_for_all(session, _SAY, {"id": worker_id, "host": host, "pid": pid}, writes=True)


def say_goodbye(engine: Engine, worker_id: str) -> None:
    """This worker is leaving; rows of workers unseen for a day go with it."""
    with open_session(engine, tenant_id=None) as session, session.begin():
        run_for_all(session, _FORGET, {"id": worker_id}, writes=True)


def seconds_since_worker(engine: Engine) -> float | None:
    """Age in seconds of the newest sign of life, ``None`` when there never was one."""
    with open_session(engine, tenant_id=None, mode="read") as session:
        found = run_for_all(session, _AGE[engine.dialect.name], writes=False).scalar()
    return None if found is None else float(found)
