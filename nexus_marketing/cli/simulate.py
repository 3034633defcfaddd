"""``nexus-marketing simulate``: a journey tried out on a virtual clock; nothing is stored and nobody is written to."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nexus_marketing.cli.session import AsJson, InputRefused, answer
from nexus_marketing.cli.simulate_inputs import (
    local_settings,
    read_costs,
    read_file,
    read_leads,
    read_start,
)
from nexus_marketing.cli.simulate_outputs import print_report
from nexus_marketing.core.errors import ValidationError

_File = Annotated[
    Path,
    typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A journey, or a campaign with a sequence."),
]
_Leads = Annotated[str, typer.Option(metavar="FILE|N", help="A CSV or JSON lines file, or how many to make up.")]
_From = Annotated[str, typer.Option("--from", metavar="DATE", help="When the leads enter: 2026-12-01 or …T09:00.")]
_Rates = Annotated[
    list[str] | None,
    typer.Option("--rate", metavar="NAME=SHARE", help="opens, clicks, unsubscribes, failures, approvals, or an event."),
]
_Costs = Annotated[
    list[str] | None, typer.Option("--cost", metavar="CHANNEL=AMOUNT", help="What 1,000 messages cost: sms=70.")
]
_Settings = Annotated[
    Path | None,
    typer.Option(metavar="DIR", exists=True, help="A tenant's folder: its caps, quiet hours, fields, zone."),
]


def simulate(
    file: _File,
    leads: _Leads,
    start: _From,
    days: Annotated[int, typer.Option(min=1, max=3_660, help="How long.")] = 30,
    seed: Annotated[int, typer.Option(help="Another seed, other people; the same seed, the same numbers.")] = 0,
    rate: _Rates = None,
    cost: _Costs = None,
    currency: Annotated[str, typer.Option(help="Of the costs.")] = "EUR",
    settings: _Settings = None,
    plot: Annotated[Path | None, typer.Option(metavar="DIR", help="Write sends.svg and journey.svg there.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Try a journey out: a calendar of its messages, who gets how far, and what it costs."""
    from nexus_marketing.core.engine.journey_reading import read_journey
    from nexus_marketing.core.engine.simulation import Pacing, World, read_rates
    from nexus_marketing.core.engine.simulation.report import Period

    began = time.perf_counter()
    with _refusing():
        tenant = local_settings(settings)
        pacing = Pacing.of(tenant.settings)
        assumptions = read_rates(rate or (), read_costs(cost or (), currency))
        journey = read_journey(read_file(file), tenant.fields, code=file.stem)
        period = Period(read_start(start, pacing.zone), days, pacing.zone)
        people, rejected = read_leads(leads, journey.fields, period.start, pacing.zone.key, str(seed))
    with _refusing(), _progress(days, shown=not as_json) as tell:
        report = World(journey, period, pacing, assumptions, str(seed)).run(people, tell)
    plots = [] if plot is None else _write_plots(report, plot)
    document = {**report.document(), "currency": currency, "rejected_rows": rejected, "plots": plots}
    if as_json:
        answer(document, "", as_json=True)
    else:
        print_report(document, Console(), time.perf_counter() - began)


def _write_plots(report: Any, folder: Path) -> list[str]:
    from nexus_marketing.core.engine.simulation.charts import calendar_chart, journey_diagram

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (("sends.svg", calendar_chart), ("journey.svg", journey_diagram)):
        path = folder / name
        path.write_text(draw(report), encoding="utf-8")
        written.append(str(path))
    return written


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with files and options is wrong with the command."""
    try:
        yield
    except ValidationError as error:
        raise InputRefused(problems=error.problems) from error


@contextmanager
def _progress(days: int, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("Simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("days"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("simulate", total=days)
        yield lambda passed: bar.update(task, completed=passed)
