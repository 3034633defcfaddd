"""What the tour shows at its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from nexus_marketing.demo.recipients import read_messages
from nexus_marketing.services.imports.reports import ImportReport

_WHY = {
    "no_address": "no usable e-mail address",
    "suppressed": "unsubscribed or blocked earlier",
    "objected": "consent withdrawn",
    "consent_missing": "consent needed there (GDPR) and not given",
    "consent_expired": "consent has run out",
    "duplicate_address": "same mailbox as another lead",
}


def show(
    console: Console, folder: Path, imported: ImportReport, numbers: dict[str, Any], summary: dict[str, Any]
) -> None:
    """The funnel, the exclusions, one message, and where everything lies."""
    console.print(_import_table(imported))
    console.print(_funnel(numbers))
    console.print(_exclusions(numbers["skipped"]))
    message = next(read_messages(folder / "mail"), None)
    if message is not None:
        text = message.get_body(("plain", "html"))
        shown = f"To: {message['To']}\nSubject: {message['Subject']}\n\n{text.get_content() if text else ''}"
        console.print(Panel(shown.strip(), title="One of the messages", expand=False))
    console.print(f"Messages: {folder / 'mail'}   Numbers: {folder / 'summary.json'}   Database: {folder / 'nexus.db'}")
    console.print(f"Done in {summary['seconds']} s.")


def show_next_steps(console: Console, url: str, key: str) -> None:
    """Three commands to go on with."""
    console.print(f"\nThe server stays up at {url} until Ctrl-C. Go on with:")
    query = '{"query": "{ campaigns { id name status } }"}'
    commands = (
        f'"{url}/api/v1/campaigns/1/analytics"',
        f"\"{url}/api/v1/leads?limit=3&filter=country%20%3D%3D%20'DE'\"",
        f"-H 'Content-Type: application/json' -d '{query}' \"{url}/graphql\"",
    )
    for command in commands:
        line = f'curl -s -H "Authorization: Bearer {key}" {command}'
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def _import_table(imported: ImportReport) -> Table:
    table = Table(title="Import", title_justify="left")
    for name in ("created", "updated", "unchanged", "duplicate", "rejected"):
        table.add_column(name, justify="right")
    table.add_row(
        *(str(getattr(imported, name)) for name in ("created", "updated", "unchanged", "duplicate", "rejected"))
    )
    return table


def _funnel(numbers: dict[str, Any]) -> Table:
    table = Table(title="Funnel", title_justify="left")
    table.add_column("step")
    table.add_column("people", justify="right")
    table.add_column("of accepted", justify="right")
    accepted = numbers["accepted"]
    steps = (
        ("in the audience", numbers["planned"]),
        ("accepted by the mail server", accepted),
        ("opened (machines left out)", numbers["opens"]["unique"]),
        ("clicked (machines left out)", numbers["clicks"]["unique"]),
        ("unsubscribed", numbers["unsubscribes"]),
        ("failed", numbers["failed"]),
        ("unknown", numbers["unknown"]),
    )
    for name, people in steps:
        share = f"{people / accepted:.1%}" if accepted and name != "in the audience" else ""
        table.add_row(name, str(people), share)
    return table


def _exclusions(skipped: dict[str, int]) -> Table:
    table = Table(title="Left out, and why", title_justify="left")
    table.add_column("reason")
    table.add_column("people", justify="right")
    table.add_column("meaning")
    for reason, people in sorted(skipped.items(), key=lambda item: -item[1]):
        table.add_row(reason, str(people), _WHY.get(reason, ""))
    return table
