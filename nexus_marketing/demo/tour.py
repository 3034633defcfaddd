"""The tour: from an empty folder to a campaign delivered, opened, clicked, unsubscribed and measured."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import nexus_marketing
from nexus_marketing.config import make_runtime
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.demo import report
from nexus_marketing.demo.client import Client
from nexus_marketing.demo.people import write_people
from nexus_marketing.demo.recipients import act
from nexus_marketing.demo.stage import clear, free_port, migrate, serving, settings_for
from nexus_marketing.services.declarations import apply_declarations
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.reports import ImportReport
from nexus_marketing.services.tenants import create_key

SEGMENT = {
    "name": "Grown-ups who buy or might",
    "conditions": "age >= 21 AND (plan in ['pro', 'team'] OR country in ['DE', 'FR', 'GB', 'PL', 'US'])",
}
TEMPLATE = {
    "name": "Spring roast",
    "type": "email",
    "content": {
        "subject": '{{ first_name | default("Coffee lover") }}, the spring roast is here',
        "html": """<!doctype html>
<html><body style="font-family: sans-serif">
<h1>Good morning, {{ first_name | default("coffee lover") }}</h1>
<p>The first beans of the year have arrived. For our friends in {{ metadata.city | default("your town") }}
we keep a bag aside until Friday.</p>
<p><a href="https://harbour-coffee.example/spring">See the spring roast</a> or
<a href="https://harbour-coffee.example/subscribe">have it every month</a>.</p>
<p style="color: #777">You get this because you asked for our news.
<a href="{{ unsubscribe_url }}">Unsubscribe</a><br>{{ postal_address }}</p>
</body></html>
""",
        "text": """Good morning, {{ first_name | default("coffee lover") }}

The first beans of the year have arrived: https://harbour-coffee.example/spring

Unsubscribe: {{ unsubscribe_url }}
{{ postal_address }}
""",
    },
    "variables": {},
}
_SEED = 20260302
_PATIENCE_SECONDS = 80.0


@dataclass(slots=True)
class Tour:
    """One demonstration in one folder."""

    folder: Path
    leads: int
    console: Console
    started: float = field(default_factory=time.monotonic)

    def run(self, *, stay: bool) -> dict[str, Any]:
        """Play it all; ``stay`` keeps the server up until Ctrl-C.

        Returns:
            What ``summary.json`` holds: ``planned``, ``accepted``, ``failed``, ``unknown``, ``skipped`` by reason,
            ``opens``, ``clicks``, ``unsubscribes`` and ``seconds``.
        """
        clear(self.folder)
        port = free_port()
        settings = settings_for(self.folder, port)
        migrate(settings)
        with serving(settings, port) as server:
            key, imported = self._prepare(settings)
            client = Client(settings["nexus.public_url"], key)
            numbers = self._campaign(client)
            summary = _summary(numbers, time.monotonic() - self.started)
            (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            report.show(self.console, self.folder, imported, numbers, summary)
            if stay:
                report.show_next_steps(self.console, settings["nexus.public_url"], key)
                with _until_interrupted():
                    server.join()
        return summary

    def _prepare(self, settings: dict[str, str]) -> tuple[str, ImportReport]:
        """A tenant from its declaration, a key, and the people from a CSV."""
        declared = Path(nexus_marketing.__file__).parent / "tenants"
        runtime = make_runtime({**settings, "nexus.catcher_dir": ""})
        try:
            tenant_id = next(each.tenant_id for each in apply_declarations(runtime, declared) if each.slug == "demo")
            with runtime.work(tenant_id) as ctx:
                _key, secret = create_key(ctx, "demo", ["*"])
            people = self.folder / "people.csv"
            write_people(people, self.leads, _SEED)
            with self._bar("Importing leads", self.leads) as moved:
                imported = import_leads(runtime, tenant_id, people, actor=SYSTEM, on_progress=lambda at: moved(at.rows))
        finally:
            runtime.close()
        return secret, imported

    def _campaign(self, client: Client) -> dict[str, Any]:
        """Segment, template and campaign through the REST API; launch; let recipients act."""
        segment = client.post("/api/v1/segments", SEGMENT)
        template = client.post("/api/v1/templates", TEMPLATE)
        campaign = client.post(
            "/api/v1/campaigns",
            {"name": "Spring roast", "segment_id": segment["id"], "template_id": template["id"]},
        )
        client.post(f"/api/v1/campaigns/{campaign['id']}/launch")
        self._watch(client, campaign["id"])
        with self.console.status("Recipients open, click and unsubscribe over HTTP"):
            done = act(self.folder / "mail", _SEED)
            return self._judged(client, campaign["id"], done["opened"])

    def _watch(self, client: Client, campaign_id: str) -> None:
        with self._bar("Sending", self.leads) as moved:
            for numbers in _polled(client, campaign_id):
                moved(numbers["planned"] - numbers["open"], numbers["planned"])
                if numbers["status"] == "completed":
                    return

    def _judged(self, client: Client, campaign_id: str, opened: int) -> dict[str, Any]:
        """Numbers after hits have settled and were judged."""
        for numbers in _polled(client, campaign_id):
            if numbers["opens"]["hits"] >= opened:
                return numbers
        raise AssertionError("unreachable: polling ends by an answer or an error")

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        columns = (TextColumn(f"{title:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total)

            def moved(done: int, of: int | None = None) -> None:
                progress.update(task, completed=done, total=of or total)

            yield moved


def _polled(client: Client, campaign_id: str) -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        yield client.get(f"/api/v1/campaigns/{campaign_id}/analytics")
        if time.monotonic() > deadline:
            raise TimeoutError(f"The campaign did not get on for {_PATIENCE_SECONDS:.0f} s: see the lines above.")
        time.sleep(0.2)


def _summary(numbers: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        **{name: numbers[name] for name in ("planned", "accepted", "failed", "unknown", "skipped")},
        "opens": numbers["opens"]["unique"],
        "clicks": numbers["clicks"]["unique"],
        "unsubscribes": numbers["unsubscribes"],
        "seconds": round(seconds, 1),
    }


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        return
