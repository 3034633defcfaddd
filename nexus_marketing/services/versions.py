"""Optimistic locking of what has a ``version`` (DESIGN.md 4.10)."""

from typing import TypeVar

from nexus_marketing.core.errors import StaleVersion
from nexus_marketing.db.models import Lead, Segment, Template
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context

Row = TypeVar("Row", Lead, Segment, Template)


def find_to_change(ctx: Context, model: type[Row], id_: int, expected_version: int | None = None) -> Row:
    """The tenant's row with this id, locked, in the version that the change is meant for.

    Args:
        expected_version: what the caller has seen; ``None`` takes any.

    Raises:
        NotFound: there is none.
        StaleVersion: it is at another version by now; ``current`` says which.
    """
    row = find(ctx.session, model, id_, lock=True)
    if expected_version is not None and expected_version != row.version:
        what = model.__name__.lower()
        raise StaleVersion(
            f"The {what} is at version {row.version}, not {expected_version}: load it and try again.",
            current=row.version,
        )
    return row
