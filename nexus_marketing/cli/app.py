"""The command tree and what every command shares: the ini file, output, exit codes.

Exit codes: 0 done, 1 refused or failed with a message, 2 wrong usage.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import plaster
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from nexus_marketing import __version__
from nexus_marketing.core.errors import ConfigurationError, NexusError, NotFound
from nexus_marketing.db.models import Tenant
from nexus_marketing.runtime import Runtime

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ForTenant = Annotated[str, typer.Option("--tenant", help="The tenant's short name.")]

#: What holds without an ini file: the embedded mode in ./var.
_EMBEDDED = {
    "nexus.database_url": "sqlite:///var/nexus.db",
    "nexus.state_dir": "var",
    "nexus.catcher_dir": "",
}


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Ini file; default: ./development.ini if it is there.")
    ] = None,
) -> None:
    """Headless, multi-tenant marketing automation."""
    context.obj = config


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def ini_settings(context: typer.Context) -> dict[str, str]:
    """The ``[app:main]`` section of the chosen ini file, or the embedded defaults."""
    chosen: Path | None = context.find_root().obj
    path = chosen or Path("development.ini")
    if not path.exists():
        if chosen is not None:
            raise ConfigurationError(f"There is no file {chosen}: name an ini file with -c.")
        Path("var").mkdir(exist_ok=True)
        return dict(_EMBEDDED)
    return dict(plaster.get_settings(str(path), "app:main"))


@contextmanager
def opened(context: typer.Context) -> Iterator[Runtime]:
    """The runtime of the chosen settings, closed at the end; it starts no mail catcher."""
    from nexus_marketing.config import make_runtime

    runtime = make_runtime({**ini_settings(context), "nexus.catcher_dir": ""})
    try:
        yield runtime
    finally:
        runtime.close()


def tenant_id(runtime: Runtime, slug: str) -> int:
    """The id of a tenant by its short name.

    Raises:
        NotFound: names those that exist.
    """
    from sqlalchemy import select

    with runtime.work(None, role="owner", mode="read") as ctx:
        known = {row.slug: row.id for row in ctx.session.execute(select(Tenant.slug, Tenant.id))}
    if slug not in known:
        raise NotFound(f"There is no tenant {slug!r}: there are {', '.join(sorted(known)) or 'none yet'}.")
    return int(known[slug])


def show(rows: Sequence[dict[str, Any]], *, as_json: bool, title: str = "") -> None:
    """Rows as a table for people or as JSON for machines."""
    if as_json:
        typer.echo(json.dumps(rows, default=str, indent=2))
        return
    table = Table(title=title or None, title_justify="left")
    for name in rows[0] if rows else ("nothing",):
        table.add_column(str(name))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; our own errors become one clear line, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given)
    except NexusError as error:
        _fail(error, as_json="--json" in given)
    except DBAPIError as error:
        message = f"The database refused: {error.orig}. Is it up, and at this version's schema (db upgrade)?"
        _fail(NexusError(message), as_json="--json" in given)


def _fail(error: NexusError, *, as_json: bool) -> None:
    if as_json:
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in error.problems]
        typer.echo(json.dumps({"error": error.code, "message": error.message, "errors": problems}), err=True)
    else:
        typer.echo(f"error: {error.message}", err=True)
    sys.exit(1)


def _register() -> None:
    from nexus_marketing.cli import (
        campaigns,
        database,
        leads,
        processes,
        tenants,
    )

    for module in (processes, database, tenants, leads, campaigns):
        module.register(app)


_register()
