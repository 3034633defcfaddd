"""The three login roles of PostgreSQL and what each may do (DATABASE.md, Three login roles)."""

import secrets
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from nexus_marketing.core.errors import ConfigurationError

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


def prepare_server(superuser_dsn: str, database: str) -> dict[str, str]:
    """Create the roles with new passwords, and a database of theirs.

    Returns:
        Role → its URL, for ``production.ini``.

    Raises:
        ConfigurationError: the server refused, in its own words.
    """
    passwords = {role: secrets.token_urlsafe(24) for role in ROLES}
    try:
        _require_new(superuser_dsn, database)
        create_roles(superuser_dsn, passwords)
        create_database(superuser_dsn, database)
        with psycopg.connect(superuser_dsn) as connection:
            host, port = connection.info.host or "127.0.0.1", connection.info.port
    except psycopg.Error as error:
        raise ConfigurationError(f"PostgreSQL refused: {str(error).strip()}") from error
    return {role: f"postgresql://{role}:{passwords[role]}@{host}:{port}/{database}" for role in ROLES}


def _require_new(superuser_dsn: str, database: str) -> None:
    """New passwords for logins that are in use would lock somebody out."""
    with psycopg.connect(superuser_dsn) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            raise ConfigurationError(f"There is a database {database} already: choose another name.")
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = ANY(%s)", [list(ROLES)]).fetchone():
            raise ConfigurationError(
                f"The logins are there already: create the database with `createdb -O {OWNER} {database}`"
                " and use the passwords you have."
            )
