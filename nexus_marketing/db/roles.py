"""The three login roles of PostgreSQL and what each may do (DATABASE.md, Three login roles)."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

OWNER, APP, WORKER = "nexus_owner", "nexus_app", "nexus_worker"
ROLES = (OWNER, APP, WORKER)


def create_roles(superuser_dsn: str, passwords: Mapping[str, str]) -> None:
    """Create or repair the roles: login, none superuser, none a member of another.

    Args:
        superuser_dsn: a libpq connection string of a role that may create roles.
        passwords: role name → password.
    """
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        for role in ROLES:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            verb = sql.SQL("ALTER" if known else "CREATE")
            connection.execute(
                sql.SQL(
                    "{} ROLE {} WITH LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION PASSWORD {}"
                ).format(verb, sql.Identifier(role), sql.Literal(passwords[role]))
            )
        _revoke_memberships(connection)


def _revoke_memberships(connection: psycopg.Connection[Any]) -> None:
    """A member of the worker's role would see every tenant (DATABASE.md); no role of ours needs another."""
    found = connection.execute(
        "SELECT g.rolname, m.rolname FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid"
        " JOIN pg_roles m ON m.oid = a.member WHERE m.rolname = ANY(%s)",
        [list(ROLES)],
    )
    for role, member in found.fetchall():
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(role), sql.Identifier(member)))


def create_database(superuser_dsn: str, name: str, template: str | None = None) -> None:
    """Create a database that ``nexus_owner`` owns and nobody else may create in."""
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        connection.execute(statement)
