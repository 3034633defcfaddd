"""Commands that run something: demo, serve, worker, doctor."""

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from nexus_marketing.cli.app import AsJson, ini_settings, opened, show
from nexus_marketing.core.errors import NexusError
from nexus_marketing.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo")(demo)
    app.command("serve")(serve)
    app.command("worker")(worker)
    app.command("doctor")(doctor)


def demo(
    leads: Annotated[int, typer.Option(min=10, max=100_000, help="How many people the CSV holds.")] = 5_000,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="End after the report.")] = False,
    out: Annotated[Path, typer.Option(help="Where database, mail and summary.json go.")] = Path("demo-out"),
) -> None:
    """Run the whole job on generated leads, in a folder of its own."""
    from nexus_marketing.cli.demo import demo as play

    play(leads, no_serve, out)


def serve(context: typer.Context) -> None:
    """Serve the API as the ini file says; the same as ``pserve FILE``."""
    from pyramid.scripts.pserve import main as pserve

    path = context.find_root().obj or Path("development.ini")
    if not path.exists():
        raise NexusError(f"There is no file {path}: name an ini file with -c.")
    pserve(["pserve", str(path)])


def worker(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Do what waits, then end.")] = False,
) -> None:
    """Work: planning, sending, recovery, segments, hits. Any number may run; SIGTERM ends one cleanly."""
    from nexus_marketing.config import make_runtime
    from nexus_marketing.db.upgrade import require_current
    from nexus_marketing.tasks.worker import run
    from nexus_marketing.telemetry import configure_logging

    settings = ini_settings(context)
    configure_logging(settings.get("nexus.log_level", "INFO"))
    runtime = make_runtime(settings)
    try:
        require_current(runtime.engines)
        run(runtime, once=once)
    finally:
        runtime.close()


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Look at everything this installation needs and name the remedy for what is missing."""
    with opened(context) as runtime:
        rows = [_checked(name, check, runtime) for name, check in _CHECKS]
    show(rows, as_json=as_json, title="Doctor")
    if any(row["state"] == "wrong" for row in rows):
        raise typer.Exit(1)


def _checked(name: str, check: Any, runtime: Runtime) -> dict[str, str]:
    try:
        return {"part": name, "state": "fine", "finding": str(check(runtime))}
    except NexusError as error:
        return {"part": name, "state": "wrong", "finding": error.message}
    except Exception as error:  # noqa: BLE001 - a check that cannot run is a finding, whatever broke
        said = str(getattr(error, "orig", error)).splitlines()[0]
        return {"part": name, "state": "wrong", "finding": f"{type(error).__name__}: {said}"}


def _database(runtime: Runtime) -> str:
    from nexus_marketing.db.engines import check_versions

    return check_versions(runtime.engines)


def _schema(runtime: Runtime) -> str:
    from nexus_marketing.db.upgrade import head_revision, require_current

    require_current(runtime.engines)
    return f"revision {head_revision()}"


def _workers(runtime: Runtime) -> str:
    from nexus_marketing.db.queries.workers import seconds_since_worker

    seconds = seconds_since_worker(runtime.engines.worker)
    if seconds is None or seconds > _WORKER_SILENCE_SECONDS:
        raise NexusError("No worker was seen for 90 s: start `nexus-marketing worker`, or serve with worker threads.")
    return f"a worker was seen {seconds:.0f} s ago"


def _mail(runtime: Runtime) -> str:
    smtp = runtime.settings.smtp
    if runtime.settings.catcher_dir is not None:
        return f"mail is caught in {runtime.settings.catcher_dir}"
    try:
        with socket.create_connection((smtp.host, smtp.port), timeout=5):
            return f"{smtp.host}:{smtp.port} answers"
    except OSError as error:
        raise NexusError(f"{smtp.host}:{smtp.port}: {error}: check nexus.smtp.host and nexus.smtp.port.") from error


def _redis(runtime: Runtime) -> str:
    if not runtime.settings.redis_url:
        return "not configured: workers poll"
    from redis import Redis

    Redis.from_url(runtime.settings.redis_url, socket_timeout=2, socket_connect_timeout=2).ping()
    return "answers"


def _ledger(runtime: Runtime) -> str:
    from nexus_marketing.db.queries.completion import broken_invariants

    with runtime.work(None, mode="read") as ctx:
        broken = broken_invariants(ctx.session)
    if broken:
        raise NexusError(f"Broken: {', '.join(broken)}. Keep the database as it is and report this.")
    return "every invariant holds"


_WORKER_SILENCE_SECONDS = 90.0
_CHECKS = (
    ("database", _database),
    ("schema", _schema),
    ("workers", _workers),
    ("redis", _redis),
    ("mail", _mail),
    ("send ledger", _ledger),
)
