"""What commands that list things have in common: the newest rows of a listing of REST, for people or as JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from nexus_marketing.cli.session import answer, table
from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.db.queries.listings import Listing, page, read_wish
from nexus_marketing.runtime import Context

Limit = Annotated[int, typer.Option(min=1, max=100, help="At most so many, the newest first.")]


def newest(ctx: Context, listing: Listing, limit: int, filter_text: str = "", **scope: int) -> list[dict[str, Any]]:
    """The last rows of a listing that its filter lets through, as REST shows them.

    Raises:
        ValidationError: the filter is none.
    """
    wish = replace(read_wish(listing, limit=limit, sort="-id", filter_text=filter_text), parameters=scope)
    return page(ctx.session, listing, wish, Evaluation(ctx.now)).documents()


def show_rows(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Say them."""
    cells = [[row[name] for name in columns] for row in rows]
    answer({"data": rows}, table(title, columns, cells), as_json=as_json)
