"""``serve``, ``worker`` and ``demo``: commands that go on until they are told to stop."""

from pathlib import Path
from typing import Annotated

import typer

from nexus_marketing.cli.session import AsJson, Cli, answer
from nexus_marketing.db.upgrade import require_current
from nexus_marketing.telemetry import configure_logging


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Only without a configuration file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Only without a configuration file.")] = 6543,
) -> None:
    """Serve the API: what `pserve INI` does, or one embedded process on ./var without a file."""
    cli: Cli = context.obj
    ini = cli.ini
    if ini is not None:
        from pyramid.scripts.pserve import main as pserve

        raise typer.Exit(pserve(["pserve", str(ini)]) or 0)
    _serve_embedded(cli, host, port)


def _serve_embedded(cli: Cli, host: str, port: int) -> None:
    import waitress

    from nexus_marketing.config import make_app

    with cli.runtime():  # makes the folder of the database
        pass
    settings = {**cli.settings(), "nexus.public_url": f"http://{host}:{port}"}
    application = make_app({}, settings)
    typer.echo(f"Serving on http://{host}:{port} (Ctrl-C ends it).", err=True)
    waitress.serve(application, host=host, port=port)


def worker(
    context: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="One turn over all waiting work, then end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do the waiting work: sends, segments, hits, timers. Any number of workers may run."""
    from nexus_marketing.tasks.recycling import begin_anew
    from nexus_marketing.tasks.worker import run

    cli: Cli = context.obj
    configure_logging(cli.settings().get("nexus.log_level", "INFO"))
    with cli.runtime(sends=True) as runtime:
        require_current(runtime.engines)
        is_over = not run(runtime, once=once)
    if not is_over:
        begin_anew()
    answer({"done": True}, "Done.", as_json=as_json)


def demo(
    leads: Annotated[int, typer.Option(min=10, help="How many leads to make up.")] = 5_000,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where database, mail and summary go.")] = Path("demo-out"),
    *,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="End after the numbers are shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole job on made-up leads: import, segment, campaign, mail, clicks, numbers."""
    from nexus_marketing.cli.demo import demo as play

    summary = play(leads, no_serve, out)
    if as_json:
        answer(summary, "", as_json=True)
