"""What journeys hear of: a timer for each, set in the transaction of what happened, so that none is missed or told twice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nexus_marketing.db.queries.journeys import HAPPENED, events_listened, tell_change
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import set_timer


def hear_events(ctx: Context, rows: Iterable[Mapping[str, Any]]) -> None:
    """Have journeys hear of engagements that were just written, where any waits for such."""
    listened = events_listened(ctx.session)
    if not listened:
        return
    found = {}
    for row in rows:
        name, at = str(row.get("name") or row["type"]), row["tracked_at"]
        if name in listened:
            moment = at if isinstance(at, str) else to_text(at)
            payload = {"lead": row["lead_id"], "at": moment, "name": name}
            found[f"{row['lead_id']}:{moment}:{name}"] = payload
    for key in sorted(found):  # locked in one order, whoever else writes the same
        set_timer(ctx, HAPPENED, key, ctx.now, found[key])


def hear_changes(ctx: Context, lead_ids: Sequence[int]) -> None:
    """Have journeys look at their runs of leads that changed, where they read what leads are."""
    tell_change(ctx.session, sorted(set(lead_ids)), ctx.now)
