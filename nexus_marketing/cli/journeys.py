"""``nexus-marketing journeys``: put one in force, hold it, let leads in, and see where its runs are."""

from typing import Annotated

import typer

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, InputRefused, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.journeys.statuses import JourneyMove, ResumePolicy, Unmapped
from nexus_marketing.db.models import Journey
from nexus_marketing.db.queries.resources.journeys import JOURNEY_RUNS, JOURNEYS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.journeys.entries import MOST_LEADS, enter_leads
from nexus_marketing.services.journeys.moves import migrate_runs
from nexus_marketing.services.journeys.patching import patch_journey
from nexus_marketing.services.journeys.records import move_journey, publish_journey
from nexus_marketing.services.journeys.reviving import revive_runs

app = typer.Typer(no_args_is_help=True, help="Journeys.")

_JourneyId = Annotated[int, typer.Argument(help="The journey's id.")]


@app.callback()
def journeys() -> None:
    """Journeys."""


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List journeys, the newest first."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, JOURNEYS, limit)
    show_rows("Journeys", ("id", "name", "status", "published", "updated_at"), rows, as_json=as_json)


@app.command()
def runs(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as waiting or failed.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show where runs of a journey are, the newest first."""
    filter_text = "" if state is None else f"state == '{state}'"
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        find(ctx.session, Journey, journey)
        rows = newest(ctx, JOURNEY_RUNS, limit, filter_text, journey_id=journey)
    columns = ("id", "lead_id", "version", "state", "node", "wake_at", "entered_at", "reason")
    show_rows(f"Runs of journey {journey}", columns, rows, as_json=as_json)


@app.command()
def publish(context: typer.Context, journey: _JourneyId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Put the draft in force as a new version."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = publish_journey(ctx, journey)
    _tell(row, f"Version {row.published} of journey {row.id} is in force.", as_json=as_json)


@app.command()
def drain(context: typer.Context, journey: _JourneyId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Let nobody in any more; those inside finish."""
    _move(context, (journey, tenant), JourneyMove.DRAIN, as_json=as_json)


@app.command()
def pause(context: typer.Context, journey: _JourneyId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Hold entries, steps and messages."""
    _move(context, (journey, tenant), JourneyMove.PAUSE, as_json=as_json)


@app.command()
def resume(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    policy: Annotated[ResumePolicy, typer.Option(help="What becomes of what was due meanwhile.")] = (
        ResumePolicy.CATCH_UP
    ),
    as_json: AsJson = False,
) -> None:
    """Let a paused journey go on."""
    _move(context, (journey, tenant), JourneyMove.RESUME, policy=policy, as_json=as_json)


@app.command()
def stop(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    compensate: Annotated[bool, typer.Option("--compensate", help="Take back what those runs did.")] = False,
    as_json: AsJson = False,
) -> None:
    """End every run, and the journey with them."""
    _move(context, (journey, tenant), JourneyMove.STOP, compensate=compensate, as_json=as_json)


@app.command()
def enter(
    context: typer.Context,
    journey: _JourneyId,
    leads: Annotated[list[int], typer.Argument(help="Ids of the leads.")],
    tenant: TenantName,
    *,
    as_json: AsJson = False,
) -> None:
    """Let leads in that are named here; those who are refused are told with the reason."""
    if len(leads) > MOST_LEADS:
        said = f"{len(leads)} leads are too many for one command: name at most {MOST_LEADS}, or enter a segment."
        raise InputRefused(problems=[Problem("leads", "too_many", said)])
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        answers = enter_leads(ctx, journey, leads)
    rows = [
        {"lead_id": str(each.lead_id), "outcome": each.outcome, "run_id": each.run_id and str(each.run_id)}
        for each in answers
    ]
    show_rows(f"Entries of journey {journey}", ("lead_id", "outcome", "run_id"), rows, as_json=as_json)


@app.command()
def migrate(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    moves: Annotated[
        list[str] | None, typer.Option("--map", metavar="OLD=NEW", help="Where runs at a node go; end is the end.")
    ] = None,
    unmapped: Annotated[Unmapped, typer.Option(help="What becomes of those without a place.")] = Unmapped.STAY,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would become of whom and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take runs of older versions to the newest one."""
    mapped = dict(_pair(each) for each in moves or ())
    wish = {"map": mapped, "unmapped": unmapped, "dry_run": dry_run}
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        found = migrate_runs(ctx, journey, wish)
    columns = ("version", "node", "runs", "what", "to")
    cells = [[each[name] for name in columns] for each in found["nodes"]]
    answer(found, table(f"To version {found['version']}", columns, cells), as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise InputRefused(problems=[Problem("map", "not_a_pair", f"{text!r} is no pair: write OLD=NEW.")])
    return old, new


@app.command()
def patch(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change and for whom.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put other words of the draft in force for those on their way too."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        found = patch_journey(ctx, journey, dry_run=dry_run)
    cells = [[each["path"], each["before"], each["after"]] for each in found["changes"]]
    title = f"Version {found['version']} of journey {journey}, for {sum(found['runs'].values())} runs on their way"
    answer(found, table(title, ("path", "before", "after"), cells), as_json=as_json)


@app.command()
def revive(
    context: typer.Context,
    journey: _JourneyId,
    tenant: TenantName,
    *,
    node: Annotated[str | None, typer.Option(help="Only those that failed at this node.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only those that failed so, such as timer_dead.")] = None,
    runs: Annotated[list[int] | None, typer.Option("--run", help="Only this run; may be given again.")] = None,
    why: Annotated[str | None, typer.Option(help="What their history says.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would become of whom and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put runs that failed back where they stood."""
    chosen = {"node": node, "reason": reason, "run_ids": [str(each) for each in runs or ()], "why": why}
    wish = {name: value for name, value in chosen.items() if value} | {"dry_run": dry_run}
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        found = revive_runs(ctx, journey, wish)
    columns = ("version", "node", "reason", "runs", "what")
    cells = [[each[name] for name in columns] for each in found["nodes"]]
    answer(found, table(f"Runs of journey {journey} that failed", columns, cells), as_json=as_json)


def _move(
    context: typer.Context,
    named: tuple[int, str],
    move: JourneyMove,
    *,
    policy: ResumePolicy = ResumePolicy.CATCH_UP,
    compensate: bool = False,
    as_json: bool,
) -> None:
    journey, tenant = named
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = move_journey(ctx, journey, move, policy=policy, compensate=compensate)
    _tell(row, f"Journey {row.id} is {row.status}.", as_json=as_json)


def _tell(row: Journey, text: str, *, as_json: bool) -> None:
    document = {"id": str(row.id), "status": row.status, "published": row.published, "version": row.version}
    answer(document, text, as_json=as_json)
