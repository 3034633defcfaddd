"""Whether messages of journeys are still wanted: asked right before they are handed over (BEHAVIOUR.md 5.1, Exit criteria)."""

from collections.abc import Sequence

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.engine.journeys import is_wanted
from nexus_marketing.db.models import Delivery, JourneyRun
from nexus_marketing.db.queries.journeys import VISITS
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.journeys.facts import facts_of
from nexus_marketing.services.journeys.rows import journey_version, run_of


def unwanted_messages(runtime: Runtime, tenant_id: int, send_id: int, seqs: Sequence[int]) -> set[int]:
    """Those of a send's recipients whose run ended, went on, or would leave if it were looked at now."""
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        columns = (Delivery.seq, Delivery.lead_id, Delivery.channel, Delivery.occurrence)
        rows = ctx.session.execute(select(*columns).where(Delivery.send_id == send_id, Delivery.seq.in_(seqs))).all()
        runs = _runs(ctx, [row.occurrence // VISITS for row in rows])
        return {
            row.seq
            for row in rows
            if not _is_wanted(ctx, runs.get(row.occurrence // VISITS), row.occurrence % VISITS, row.channel)
        }


def _runs(ctx: Context, run_ids: Sequence[int]) -> dict[int, JourneyRun]:
    found = ctx.session.scalars(select(JourneyRun).where(JourneyRun.id.in_(run_ids)))
    return {row.id: row for row in found}


def _is_wanted(ctx: Context, row: JourneyRun | None, visit: int, channel: str) -> bool:
    if row is None:
        return False
    journey = journey_version(ctx, row.journey_id, row.version_number)
    # What a lead is has to be known only where somebody leaves for it.
    reads = any(each.occasion.when is not None for each in journey.exits)
    facts = facts_of(ctx, row.lead_id, journey) if reads else LeadFacts({})
    return facts is not None and is_wanted(journey, run_of(row, journey), facts, visit, channel, ctx.now)
