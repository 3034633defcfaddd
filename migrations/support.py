"""What every migration on PostgreSQL needs: fences, grants, partitions. On SQLite these do nothing.

Frozen once released: a migration's meaning must not change, so later needs get new functions.
"""

from collections.abc import Iterable
from datetime import date

from alembic import op

APP, WORKER = "nexus_app", "nexus_worker"

#: ``nullif``: after the first transaction on a pooled connection the setting is '' and not NULL.
TENANT = "nullif(current_setting('app.tenant', true), '')::bigint"


def is_postgresql() -> bool:
    """Whether this migration runs on PostgreSQL."""
    return op.get_bind().dialect.name == "postgresql"


def fence(table: str, *, column: str = "tenant_id", grants: str = "SELECT, INSERT, UPDATE, DELETE") -> None:
    """Row-level security for a tenant table, one policy per role, none for PUBLIC.

    The owner's own policy keeps FORCE from making its backfills touch no rows; the worker's
    constant policy keeps the planner's indexes (DATABASE.md).
    """
    if not is_postgresql():
        return
    owner = op.get_bind().exec_driver_sql("SELECT current_user").scalar_one()
    for statement in (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f'CREATE POLICY {table}_owner ON {table} TO "{owner}" USING (true) WITH CHECK (true)',
        f"CREATE POLICY {table}_app ON {table} TO {APP} USING ({column} = {TENANT}) WITH CHECK ({column} = {TENANT})",
        f"CREATE POLICY {table}_worker ON {table} TO {WORKER} USING (true) WITH CHECK (true)",
        f"GRANT {grants} ON {table} TO {APP}, {WORKER}",
    ):
        op.execute(statement)


def grant(table: str, role: str, privileges: str) -> None:
    """Rights on a table that is not fenced."""
    if is_postgresql():
        op.execute(f"GRANT {privileges} ON {table} TO {role}")


def grant_schema() -> None:
    """Names in the schema may be used by both roles, created by neither."""
    if not is_postgresql():
        return
    schema = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar_one()
    op.execute(f'REVOKE ALL ON SCHEMA "{schema}" FROM PUBLIC')
    op.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO {APP}, {WORKER}')


def function(signature: str, returns: str, body: str, *, options: str, roles: Iterable[str] = (APP, WORKER)) -> None:
    """Create a function with a fixed ``search_path`` that only the named roles may execute."""
    if not is_postgresql():
        return
    op.execute(f"CREATE FUNCTION {signature} RETURNS {returns} {options} AS $function$ {body} $function$")
    bare = signature.partition("(")[0]
    op.execute(f"REVOKE ALL ON FUNCTION {bare} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {bare} TO {', '.join(roles)}")


def months(first: date, count: int) -> list[tuple[str, str, str]]:
    """Suffix, first day and first day after, for ``count`` months."""
    bounds = []
    year, month = first.year, first.month
    for _ in range(count):
        following = (year + month // 12, month % 12 + 1)
        bounds.append((f"{year:04}_{month:02}", f"{year:04}-{month:02}-01", f"{following[0]:04}-{following[1]:02}-01"))
        year, month = following
    return bounds
