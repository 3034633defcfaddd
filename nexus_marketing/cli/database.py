"""``nexus-marketing db``: the schema and the partitions."""

import secrets
from typing import Annotated

import typer

from nexus_marketing.cli.session import AsJson, answer
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db.engines import check_versions
from nexus_marketing.db.queries.partitions import make_partitions
from nexus_marketing.db.roles import APP, OWNER, WORKER, prepare_server
from nexus_marketing.db.upgrade import current_revision, differences, head_revision, upgrade

app = typer.Typer(no_args_is_help=True, help="The database: schema and partitions.")


@app.command("upgrade")
def upgrade_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Bring the database to the schema of this version; refused while a server holds an SQLite file."""
    with context.obj.runtime() as runtime:
        before = current_revision(runtime.engines)
        upgrade(runtime.engines)
        after = current_revision(runtime.engines)
    text = f"The database is at revision {after}." if before == after else f"Upgraded from {before} to {after}."
    answer({"before": before, "revision": after}, text, as_json=as_json)


@app.command()
def check(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Say whether server and schema are what this version needs; exit 1 when they are not."""
    with context.obj.runtime() as runtime:
        version = check_versions(runtime.engines)
        found, wanted = current_revision(runtime.engines), head_revision()
        if found != wanted:
            raise ConfigurationError(
                f"The database is at revision {found or 'none'}, this version needs {wanted}: run `db upgrade`."
            )
        with runtime.engines.owner.connect().execution_options(nexus_mode="read") as connection:
            drift = [str(each) for each in differences(connection)]
    if drift:
        raise ConfigurationError(f"The schema was changed by hand: {'; '.join(drift)[:500]}.")
    answer({"server": version, "revision": found}, f"{version}, revision {found}: all is well.", as_json=as_json)


@app.command()
def partitions(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Make the partitions of the coming months; run it once a week (PostgreSQL)."""
    with context.obj.runtime() as runtime:
        made = make_partitions(runtime.engines, runtime.clock.now().date())
    text = f"{len(made)} partitions: {', '.join(made)}." if made else "Every partition is there already."
    answer({"made": made}, text, as_json=as_json)


@app.command()
def roles(
    superuser: Annotated[str, typer.Option(help="libpq connection string of a role that may create roles.")],
    database: Annotated[str, typer.Option(help="The database to create for them.")] = "nexus",
    *,
    as_json: AsJson = False,
) -> None:
    """Create the three logins and a database of theirs (PostgreSQL); prints the lines for production.ini."""
    urls = prepare_server(superuser, database)
    lines = {
        "nexus.database_url": urls[APP],
        "nexus.database_worker_url": urls[WORKER],
        "nexus.database_owner_url": urls[OWNER],
        "nexus.secret_key": secrets.token_urlsafe(48),
    }
    answer(lines, "\n".join(f"{name} = {value}" for name, value in lines.items()), as_json=as_json)
