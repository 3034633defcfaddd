"""``nexus-marketing scores``: what scores there are, what one is made of, and all leads computed now."""

from contextlib import AbstractContextManager
from typing import Annotated

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.scoring.folding import Part
from nexus_marketing.db.models import ScoreRecompute
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.scores.reading import explain_score
from nexus_marketing.services.scores.recomputing import finish_recompute, last_recompute
from nexus_marketing.services.scores.records import list_scores, recompute_score

app = typer.Typer(no_args_is_help=True, help="Scores: what leads are worth, by rules.")
_COLUMNS = ("id", "name", "description", "published", "recomputed", "leads", "changed")
_PARTS = ("at", "kind", "rule", "points", "counted", "weight", "present")


@app.callback()
def scores() -> None:
    """Scores: what leads are worth, by rules."""


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """List the scores, the version in force and how far it came through all leads."""
    rows = []
    with context.obj.runtime() as runtime, _reading(runtime, tenant) as ctx:
        for score in list_scores(ctx):
            done = last_recompute(ctx, score.id)
            status = "never" if done is None else "running" if done.finished_at is None else "finished"
            counts = {"leads": 0, "changed": 0} if done is None else {"leads": done.leads, "changed": done.changed}
            shown = {"id": str(score.id), "name": score.name, "description": score.description}
            rows.append({**shown, "published": score.published, "recomputed": status, **counts})
    answer({"data": rows}, table("Scores", _COLUMNS, [list(row.values()) for row in rows]), as_json=as_json)


@app.command()
def recompute(
    context: typer.Context,
    tenant: TenantName,
    name: Annotated[str, typer.Argument(help="The score's name.")] = "score",
    *,
    as_json: AsJson = False,
) -> None:
    """Look at every lead's score again, now and here; workers may do a part of it."""
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR) as ctx:
            score = next((each for each in list_scores(ctx) if each.name == name), None)
            if score is None:
                raise NotFound(f"There is no score {name[:64]!r}.")
            row = recompute_score(ctx, score.id)
        finish_recompute(runtime, tenant_id, row.id)
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            done = find(ctx.session, ScoreRecompute, row.id)
    status = "running" if done.finished_at is None else "finished"
    document = {"score": name, "version": done.version, "status": status, "leads": done.leads, "changed": done.changed}
    text = f"{done.leads} leads looked at by version {done.version} of {name}, {done.changed} of them changed."
    answer(document, text if done.finished_at else f"{text} The workers go on.", as_json=as_json)


@app.command()
def explain(
    context: typer.Context,
    tenant: TenantName,
    lead: Annotated[int, typer.Argument(help="The lead's id.")],
    name: Annotated[str, typer.Argument(help="The score's name.")] = "score",
    *,
    as_json: AsJson = False,
) -> None:
    """Say what a lead's score is made of; reasons that people wrote are left out."""
    with context.obj.runtime() as runtime, _reading(runtime, tenant) as ctx:
        found = explain_score(ctx, lead, name)
    rows = [_row(each) for each in found.parts]
    document = {
        "name": name,
        "value": found.shown,
        "contributions": [dict(zip(_PARTS, row, strict=True)) for row in rows],
    }
    answer(document, table(f"{name} of lead {lead}: {found.shown:g}", _PARTS, rows), as_json=as_json)


def _row(part: Part) -> list[object]:
    given = part.contribution
    return [given.at, given.kind, given.rule, given.points, part.counted, round(part.weight, 4), round(part.present, 4)]


def _reading(runtime: Runtime, tenant: str) -> AbstractContextManager[Context]:
    return runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read")
