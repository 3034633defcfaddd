"""Commands on the database: upgrade, check, partitions, roles."""

import secrets
from typing import Annotated

import typer

from nexus_marketing.cli.app import AsJson, opened, show
from nexus_marketing.core.errors import ConfigurationError

group = typer.Typer(no_args_is_help=True, help="The database.")


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="db")


@group.command()
def upgrade(context: typer.Context) -> None:
    """Bring the schema to this version; refused while a server holds an SQLite file."""
    from nexus_marketing.db import upgrade as schema

    with opened(context) as runtime:
        schema.upgrade(runtime.engines)
        typer.echo(f"The database is at revision {schema.current_revision(runtime.engines)}.")


@group.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Compare the database with the models; exit 1 when they differ."""
    from nexus_marketing.db import upgrade as schema

    with opened(context) as runtime:
        schema.require_current(runtime.engines)
        with runtime.engines.owner.connect() as connection:
            found = [{"difference": str(each)} for each in schema.differences(connection)]
    show(found, as_json=as_json, title="Differences")
    if found:
        raise typer.Exit(1)


@group.command()
def partitions(context: typer.Context) -> None:
    """Make the partitions of the months and days ahead (PostgreSQL; workers do it too)."""
    with opened(context) as runtime:
        if runtime.engines.dialect != "postgresql":
            typer.echo("SQLite has no partitions: nothing to do.")
            return
        with runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql("SELECT nexus_create_partitions(current_date)")
    typer.echo("Partitions are there.")


@group.command()
def roles(
    superuser: Annotated[str, typer.Option(help="libpq connection string of a role that may create roles.")],
    database: Annotated[str, typer.Option(help="The database to create for them.")] = "nexus",
) -> None:
    """Create the three logins and a database they share; prints the lines for production.ini."""
    import psycopg

    from nexus_marketing.db.roles import APP, OWNER, ROLES, WORKER, create_database, create_roles

    passwords = {role: secrets.token_urlsafe(24) for role in ROLES}
    try:
        create_roles(superuser, passwords)
        create_database(superuser, database)
        with psycopg.connect(superuser) as connection:
            host, port = connection.info.host or "127.0.0.1", connection.info.port
    except psycopg.errors.DuplicateDatabase as error:
        raise ConfigurationError(f"There is a database {database} already: choose another with --database.") from error
    except psycopg.Error as error:
        raise ConfigurationError(f"PostgreSQL refused: {error}") from error
    for key, role in (("database_url", APP), ("database_worker_url", WORKER), ("database_owner_url", OWNER)):
        typer.echo(f"nexus.{key} = postgresql://{role}:{passwords[role]}@{host}:{port}/{database}")
    typer.echo(f"nexus.secret_key = {secrets.token_urlsafe(48)}")
