"""The three login roles of PostgreSQL and what each may do (DATABASE.md, Three login roles)."""

from collections.abc import Mapping

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
                    "{} ROLE {} WITH LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB PASSWORD {}"
                ).format(verb, sql.Identifier(role), sql.Literal(passwords[role]))
            )


def create_database(superuser_dsn: str, name: str, template: str | None = None) -> None:
    """Create a database that ``nexus_owner`` owns and nobody else may create in."""
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        connection.execute(statement)
