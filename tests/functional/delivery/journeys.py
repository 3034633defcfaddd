"""A journey on a stage where days go by: shared by the tests of journeys that run."""

from collections import Counter
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import Delivery, JourneyRun, JourneyStep
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.journeys.entries import enter_leads
from nexus_marketing.services.journeys.records import create_journey, move_journey, publish_journey
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Stage

API = {"entry": {"triggers": [{"on": "api"}]}}


def message(template: str = "email", **more: Any) -> dict[str, Any]:
    return {"type": "message", "channel": "email", "template": template, "class": "transactional", **more}


class Way:
    """A stage on which days go by, and one journey."""

    def __init__(self, stage: Stage, clock: FakeClock, database_time: DatabaseTime) -> None:
        self.stage, self.clock, self.database_time = stage, clock, database_time
        self.runtime, self.tenant = stage.runtime, stage.tenant_id
        self.journey = 0

    def publish(self, nodes: dict[str, Any] | None = None, **document: Any) -> int:
        draft = {"id": "way", **API, **({"nodes": nodes} if nodes else {}), **document}
        with self.runtime.work(self.tenant) as ctx:
            self.journey = create_journey(ctx, {"name": f"way {ctx.request_id}", "draft": draft}).id
            publish_journey(ctx, self.journey)
        return self.journey

    def enter(self, *numbers: int) -> list[str]:
        leads = [self.stage.lead_ids[number - 1] for number in numbers]
        with self.runtime.work(self.tenant) as ctx:
            return [answer.outcome for answer in enter_leads(ctx, self.journey, leads)]

    def go_on(self, **delta: float) -> None:
        self.clock.advance(**delta)
        self.database_time.advance(**delta)
        self.work()

    def work(self, turns: int = 100) -> None:
        self.stage.work(turns)

    def move(self, move: JourneyMove) -> None:
        with self.runtime.work(self.tenant) as ctx:
            move_journey(ctx, self.journey, move)

    def event(self, number: int, name: str, **more: Any) -> None:
        row = {"type": "custom", "name": name, "lead_id": str(self.stage.lead_ids[number - 1]), **more}
        with self.runtime.work(self.tenant) as ctx:
            (answer,) = record_engagements(ctx, [row])
            assert answer["status"] == "accepted", answer

    def runs(self, number: int | None = None) -> list[JourneyRun]:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            wanted = select(JourneyRun).order_by(JourneyRun.id)
            if number is not None:
                wanted = wanted.where(JourneyRun.lead_id == self.stage.lead_ids[number - 1])
            return list(ctx.session.scalars(wanted))

    def where(self) -> Counter[str]:
        return Counter(f"{run.state}:{run.reason or run.node}" for run in self.runs())

    def said(self, number: int) -> list[str]:
        (run,) = self.runs(number)
        with self.runtime.work(self.tenant, mode="read") as ctx:
            steps = ctx.session.scalars(
                select(JourneyStep).where(JourneyStep.run_id == run.id).order_by(JourneyStep.id)
            )
            return [f"{step.said} {step.node}" for step in steps]

    def ledger(self) -> list[Delivery]:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return list(ctx.session.scalars(select(Delivery).order_by(Delivery.settled_at, Delivery.lead_id)))

    def is_sound(self) -> bool:
        with self.runtime.work(None, mode="read") as ctx:
            return broken_invariants(ctx.session) == {}
