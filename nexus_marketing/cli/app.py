"""The root of the command line: options that hold for all commands, and faults as one clear line.

Exit codes: 0 done, 1 refused or failed with a reason, 2 the command itself was written wrongly.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from nexus_marketing.cli import (
    actions,
    approvals,
    campaigns,
    channels,
    database,
    doctor,
    engagements,
    journeys,
    keys,
    leads,
    members,
    plugins,
    processes,
    scores,
    segments,
    simulate,
    tenants,
)
from nexus_marketing.cli.session import Cli, InputRefused
from nexus_marketing.core.errors import NexusError
from nexus_marketing.telemetry import configure_logging, scrub
from nexus_marketing.version import __version__

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="INI", help="Configuration file (default: development.ini, else ./var)."),
]


class ClearErrors(TyperGroup):
    """Says our own errors in one line, or as JSON; anything else is a bug and keeps its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember whether JSON was asked for, before the commands take the arguments apart."""
        ctx.meta["nexus.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        code = 1
        try:
            return super().invoke(ctx)
        except NexusError as error:
            code = 2 if isinstance(error, InputRefused) else 1
            problems = [{"path": p.path, "code": p.code, "message": p.message} for p in error.problems]
            _complain(error.code, str(error), problems, as_json=ctx.meta["nexus.json"])
        except DBAPIError as error:
            _complain("database", _database_words(error), [], as_json=ctx.meta["nexus.json"])
        except (OSError, UnicodeDecodeError) as error:
            _complain("operating_system", str(error), [], as_json=ctx.meta["nexus.json"])
        raise typer.Exit(code)


def _complain(code: str, message: str, problems: list[dict[str, str]], *, as_json: bool) -> None:
    if as_json:
        document = {"error": {"code": code, "message": message, "problems": problems}}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    lines = [f"{p['path']}: {p['message']}" if p["path"] else p["message"] for p in problems] or [message]
    for line in lines:
        typer.echo(f"error: {line}", err=True)


def _database_words(error: DBAPIError) -> str:
    words = " ".join(scrub(str(error.orig)).split())
    if "no such table" in words or "does not exist" in words:
        return f"The database is not set up: run `nexus-marketing db upgrade` first ({words[:200]})."
    return f"The database does not answer as it should: {words[:300]}"


app = typer.Typer(
    cls=ClearErrors,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Marketing campaigns, leads, segments and delivery from the command line.",
)
for group, name in (
    (database.app, "db"),
    (tenants.app, "tenants"),
    (keys.app, "keys"),
    (members.app, "members"),
    (leads.app, "leads"),
    (segments.app, "segments"),
    (scores.app, "scores"),
    (engagements.app, "engagements"),
    (campaigns.app, "campaigns"),
    (channels.app, "channels"),
    (journeys.app, "journeys"),
    (approvals.app, "approvals"),
    (actions.app, "actions"),
    (plugins.app, "plugins"),
):
    app.add_typer(group, name=name)
app.command("explain")(campaigns.explain)
app.command("simulate")(simulate.simulate)
app.command("serve")(processes.serve)
app.command("worker")(processes.worker)
app.command("demo")(processes.demo)
app.command("doctor")(doctor.doctor)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")]


@app.callback()
def root(context: typer.Context, config: ConfigFile = None, *, version: Version = False) -> None:
    """Marketing campaigns, leads, segments and delivery from the command line."""
    del version
    context.obj = Cli(config)


def main() -> None:
    """The entry point of ``nexus-marketing``; what is logged goes to standard error, past the answers for programs."""
    configure_logging("WARNING")
    # Pyramid 2.1 imports pkg_resources; that is its news, not the operator's.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    app()
