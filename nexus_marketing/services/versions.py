"""Optimistic locking of what has a ``version`` (DESIGN.md 4.10)."""

import re
from typing import TypeVar

from nexus_marketing.core.errors import StaleVersion
from nexus_marketing.db.models import (
    Campaign,
    CampaignDefinition,
    ChannelAccount,
    Journey,
    Lead,
    LeadField,
    LeadImportProfile,
    Score,
    Segment,
    Template,
)
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.lookup import refuse_gone

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
Row = TypeVar(
    "Row",
    Campaign,
    CampaignDefinition,
    ChannelAccount,
    Journey,
    Lead,
    LeadField,
    LeadImportProfile,
    Score,
    Segment,
    Template,
)


def find_to_change(
    ctx: Context, model: type[Row], id_: int, expected_version: int | None = None, *, counter: str = "version"
) -> Row:
    """The tenant's row with this id, locked, in the version that the change is meant for.

    Args:
        ctx: the unit of work.
        model: what it is.
        id_: which one.
        expected_version: what the caller has seen; ``None`` takes any.
        counter: the attribute that counts its changes.

    Raises:
        NotFound: there is none; ``Gone`` or ``Merged`` for a lead that was.
        StaleVersion: it is at another version by now; ``current`` says which.
    """
    row = find(ctx.session, model, id_, lock=True)
    if isinstance(row, Lead):
        refuse_gone(row)
    current = getattr(row, counter)
    if expected_version is not None and expected_version != current:
        what = _WORD.sub(" ", model.__name__).lower().removeprefix("campaign ")
        raise StaleVersion(
            f"The {what} is at {counter} {current}, not {expected_version}: load it and try again.", current=current
        )
    return row
