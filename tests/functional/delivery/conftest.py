"""A campaign ready to be sent, on both databases, through a channel as a stranger would write it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import AddressKind, OutcomeKind
from nexus_marketing.core.events import ChannelsJoined
from nexus_marketing.core.privacy import ConsentState
from nexus_marketing.db.models import Campaign, ChannelAccount, Consent, Delivery, History, Lead, Send, Suppression
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.templates import create_template
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import NOW, DatabaseTime
from tests.common.factories import make_leads, make_segment

if TYPE_CHECKING:
    from tests.functional.delivery.journeys import Way

CONTENT = {
    "subject": 'Hello {{ first_name | default("there") }}',
    "html": "<p>{{ name }} <a href='https://shop.example/sale'>Sale</a>"
    '<a href="{{ unsubscribe_url }}">Out</a> {{ postal_address }}</p>',
}
SENDER = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}


def work_off(runtime: Runtime, turns: int, stopping: Callable[[], bool] = lambda: False) -> None:
    """Let a worker turn until nothing is left to do, or so many times."""
    loop = WorkerLoop(runtime, stopping)
    try:
        for _ in range(turns):
            if not loop.turn():
                break
    finally:
        loop.finish()


@dataclass(slots=True)
class Scene:
    """One tenant's campaign and the worker that sends it."""

    runtime: Runtime
    tenant_id: int
    channel: RecordingChannel
    lead_ids: list[int]
    campaign_id: int = 0
    send_id: int = 0
    stopping: Callable[[], bool] = lambda: False

    def launch(self, **options: Any) -> None:
        """Create the campaign and launch it."""
        segment_id = make_segment(self.runtime, self.tenant_id, self.lead_ids)
        with self.runtime.work(self.tenant_id) as ctx:
            ctx.session.add(
                ChannelAccount(
                    type="email", name="main", config=SENDER, enabled=True, created_at=ctx.now, updated_at=ctx.now
                )
            )
            template = create_template(ctx, {"name": "t", "type": "email", "content": CONTENT, "variables": {}})
            campaign = create_campaign(
                ctx, {"name": "c", "segment_id": segment_id, "template_id": template.id, **options}
            )
            move_campaign(ctx, campaign.id, "launch")
            self.campaign_id = campaign.id
            self.send_id = ctx.session.scalars(select(Send.id)).one()

    def work(self, turns: int = 20) -> None:
        """Let a worker turn until nothing is left to do, or so many times."""
        work_off(self.runtime, turns, self.stopping)

    def rows(self) -> list[Delivery]:
        """The ledger rows by ``seq``."""
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return list(ctx.session.scalars(select(Delivery).order_by(Delivery.seq)))

    def states(self) -> list[str]:
        """State of each ledger row, with the reason of those skipped or failed."""
        return [row.state if row.reason is None else f"{row.state}({row.reason})" for row in self.rows()]

    def send(self) -> Send:
        """The send as it stands."""
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return ctx.session.scalars(select(Send)).one()

    def campaign(self) -> Campaign:
        """The campaign as it stands."""
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return ctx.session.scalars(select(Campaign)).one()

    def address(self, number: int) -> str:
        """The address of the n-th lead, from 1."""
        return f"person{number}@example.org"

    def suppress(self, number: int, type_: str = "marketing") -> None:
        """The n-th lead does not want it any more."""
        with self.runtime.work(self.tenant_id) as ctx:
            address = self.address(number)
            ctx.session.add(
                Suppression(
                    address_hash=self.runtime.keys.address_hash(self.tenant_id, address),
                    email=address,
                    channel="email",
                    type=type_,
                    reason="unsubscribed",
                    source="test",
                    suppressed_at=ctx.now,
                )
            )

    def consent(self, number: int, state: ConsentState) -> None:
        """The n-th lead gave or withdrew consent."""
        granted = state is ConsentState.GRANTED
        with self.runtime.work(self.tenant_id) as ctx:
            ctx.session.add(
                Consent(
                    lead_id=self.lead_ids[number - 1],
                    channel="email",
                    type="marketing",
                    at=ctx.now,
                    granted_at=ctx.now if granted else None,
                    revoked_at=None if granted else ctx.now,
                    source="test",
                    evidence={},
                )
            )


@pytest.fixture
def make_scene(runtime: Runtime, tenant: int) -> Callable[..., Scene]:
    """Build a scene of so many leads; options are columns of the leads, ``script`` is the channel's."""

    def build(leads: int = 10, script: dict[str, list[OutcomeKind]] | None = None, **columns: Any) -> Scene:
        channel = RecordingChannel(script or {})
        settings = replace(runtime.settings, chunk_size=columns.pop("chunk_size", 500))
        staged = replace(runtime, channels={"email": channel}, settings=settings)
        return Scene(staged, tenant, channel, make_leads(runtime, tenant, leads, **columns))

    return build


@dataclass
class Stage:
    """A tenant with accounts for three channels and a template for each type."""

    runtime: Runtime
    tenant_id: int
    lead_ids: list[int]
    campaign_id: int = 0
    templates: dict[str, int] = field(default_factory=dict)
    joined: list[ChannelsJoined] = field(default_factory=list)

    def set_up(self, settings: dict[str, dict[str, Any]]) -> None:
        self.runtime.hub.subscribe(ChannelsJoined, self.joined.append)
        self.segment_id = make_segment(self.runtime, self.tenant_id, self.lead_ids)
        with self.runtime.work(self.tenant_id) as ctx:
            for channel, config in settings.items():
                times = {"created_at": ctx.now, "updated_at": ctx.now}
                ctx.session.add(ChannelAccount(type=channel, name="main", config=config, enabled=True, **times))
            for kind, content in {"email": CONTENT, "text": {"text": "Hello {{ first_name }}"}}.items():
                template = create_template(ctx, {"name": kind, "type": kind, "content": content})
                self.templates[kind] = template.id

    def channels(self, *names: str) -> dict[str, Any]:
        kinds = {name: "email" if name == "email" else "text" for name in names}
        return {name: {"template_id": str(self.templates[kind])} for name, kind in kinds.items()}

    def launch(self, *channels: str, **options: Any) -> None:
        with self.runtime.work(self.tenant_id) as ctx:
            data = {"name": "c", "segment_id": self.segment_id, "channels": self.channels(*channels), **options}
            self.campaign_id = create_campaign(ctx, data).id
            move_campaign(ctx, self.campaign_id, "launch")

    def work(self, turns: int = 20) -> None:
        work_off(self.runtime, turns)

    def states(self) -> dict[str, Counter[str]]:
        """How many recipients ended how, by channel."""
        found: dict[str, Counter[str]] = {}
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            for row in ctx.session.scalars(select(Delivery)):
                said = row.state if row.reason is None else f"{row.state}({row.reason})"
                found.setdefault(row.channel, Counter())[said] += 1
        return found

    def sends(self) -> dict[str, str]:
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return {send.channel: send.status for send in ctx.session.scalars(select(Send))}

    def campaign(self) -> Campaign:
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return ctx.session.get_one(Campaign, (self.tenant_id, self.campaign_id))

    def history(self) -> list[str]:
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return list(ctx.session.scalars(select(History.event).order_by(History.id)))

    def move(self, action: str) -> None:
        with self.runtime.work(self.tenant_id) as ctx:
            move_campaign(ctx, self.campaign_id, action)


def recording(**kinds: AddressKind) -> dict[str, RecordingChannel]:
    return {name: RecordingChannel(name=name, address_kind=kind) for name, kind in kinds.items()}


@pytest.fixture
def stage(runtime: Runtime, tenant: int) -> Stage:
    """Three recording channels, twenty leads with a telephone each."""
    channels = recording(email=AddressKind.EMAIL, sms=AddressKind.PHONE, push=AddressKind.NONE)
    staged = replace(runtime, channels=channels)
    stage = Stage(staged, tenant, make_leads(runtime, tenant, 20))
    with runtime.work(tenant) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            lead.phone = f"+49301234{number:04}"
    stage.set_up(dict.fromkeys(channels, SENDER))
    return stage


@pytest.fixture
def way(stage: Stage, clock: FakeClock, database_time: DatabaseTime) -> "Way":
    """A journey to be, on the stage, where time goes by as the test says."""
    from tests.functional.delivery.journeys import Way

    database_time.set_to(NOW)
    return Way(stage, clock, database_time)
