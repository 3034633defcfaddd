"""What time the database thinks it is."""

from datetime import datetime

from sqlalchemy import Engine

from nexus_marketing.db.tenancy import open_session, run_for_all
from nexus_marketing.db.types import from_text


def database_now(engine: Engine) -> datetime:
    """Database time, by which leases run."""
    with open_session(engine, tenant_id=None, mode="read") as session:
        found = run_for_all(session, "SELECT nexus_now()", writes=False).scalar_one()
    return from_text(found) if isinstance(found, str) else found
