"""``nexus-marketing approvals``: what runs of journeys ask, and the answers."""

from typing import Annotated

import typer

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, tenant_id_of
from nexus_marketing.db.queries.resources.journeys import JOURNEY_APPROVALS
from nexus_marketing.services.journeys.runs import answer_question

app = typer.Typer(no_args_is_help=True, help="Questions that runs of journeys wait with.")


@app.callback()
def approvals() -> None:
    """Questions that runs of journeys wait with."""


@app.command("list")
def list_(
    context: typer.Context,
    tenant: TenantName,
    *,
    closed: Annotated[bool, typer.Option("--closed", help="Those that were answered or expired, too.")] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show what is asked now, the newest first."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, JOURNEY_APPROVALS, limit, "" if closed else "answer is null")
    columns = ("id", "journey_id", "run_id", "node", "asked", "asked_at", "due_at", "answer", "answered_by")
    show_rows("Questions", columns, rows, as_json=as_json)


@app.command("answer")
def answer_one(
    context: typer.Context,
    approval: Annotated[int, typer.Argument(help="The question's id.")],
    tenant: TenantName,
    *,
    approved: Annotated[bool, typer.Option("--approve/--reject", help="Yes or no.")],
    as_json: AsJson = False,
) -> None:
    """Say yes or no, whoever is asked; the run goes on."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = answer_question(ctx, approval, approved=approved)
        said = {"id": str(row.id), "run_id": str(row.run_id), "answer": row.answer, "answered_by": row.answered_by}
    answer(said, f"Question {approval} is {said['answer']}: run {said['run_id']} goes on.", as_json=as_json)
