"""A campaign through a third party's copy of the e-mail channel, beside one through ours: the same mail to the same people."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.models import ChannelAccount, Delivery
from nexus_marketing.plugin import Capability
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.privacy import suppress
from nexus_marketing.services.templates import create_template
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings
from tests.common.factories import make_leads, make_segment
from tests.common.mail_copy import OtherMail
from tests.common.plugins import manifest, with_plugins
from tests.functional.delivery.conftest import CONTENT, SENDER, work_off

pytestmark = pytest.mark.req("FR-EXT-001", "US-018")

TEXT = {"type": "string"}


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[Catcher]:
    with Catcher(tmp_path / "mail") as started:
        yield started


@pytest.fixture
def process(runtime: Runtime, catcher: Catcher, clock: FakeClock) -> Runtime:
    """Our channel and the copy, through one relay."""
    relay = PoolSettings(host="127.0.0.1", port=catcher.port, connections=2)

    def include(config: Any) -> None:
        settings = dict.fromkeys(("from_email", "from_name", "reply_to", "postal_address"), TEXT)
        config.add_marketing_plugin(manifest("other-mail", Capability.CHANNEL, settings=settings))
        config.add_marketing_channel(OtherMail(relay, clock))

    ours = replace(runtime, channels={"email": EmailChannel(relay, clock)})
    return with_plugins(ours, include)


def launch(runtime: Runtime, tenant: int, channel: str, segment: int) -> None:
    with runtime.work(tenant) as ctx:
        template = create_template(ctx, {"name": channel, "type": "email", "content": CONTENT})
        data = {"name": channel, "channel": channel, "segment_id": segment, "template_id": template.id}
        move_campaign(ctx, create_campaign(ctx, {**data, "obeys_caps": False}).id, "launch")


def mail(folder: Path) -> dict[str, Any]:
    """Header names and text of each message, by recipient; what is signed for each message is left out."""
    found = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in sorted(folder.glob("*.eml"))]
    return {str(each["To"]): (each.keys(), str(each["Subject"]), str(each["From"])) for each in found}


def test_the_same_people_get_the_same_mail(process: Runtime, tenant: int, tmp_path: Path) -> None:
    segment = make_segment(process, tenant, make_leads(process, tenant, 20))
    with process.work(tenant) as ctx:
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        ctx.session.add(ChannelAccount(type="email", name="main", config=SENDER, enabled=True, **times))
        switch_on(ctx, "other-mail", SENDER)
        for channel in ("email", "post"):
            suppress(ctx, "person7@example.org", reason="unsubscribed", source="test", channel=channel)
    seen = {}
    for channel in ("email", "post"):
        launch(process, tenant, channel, segment)
        work_off(process, 20)
        seen[channel] = mail(tmp_path / "mail")
        for file in (tmp_path / "mail").glob("*.eml"):
            file.unlink()
    assert len(seen["email"]) == 19
    assert seen["post"] == seen["email"]
    with process.work(tenant, mode="read") as ctx:
        rows = ctx.session.execute(select(Delivery.channel, Delivery.state, Delivery.reason))
        counted = Counter((row.channel, row.state, row.reason) for row in rows)
    for channel in ("email", "post"):
        assert counted[channel, "accepted", None] == 19
        assert counted[channel, "skipped", "suppressed"] == 1


def test_the_law_asks_the_same_of_it(process: Runtime, tenant: int) -> None:
    segment = make_segment(process, tenant, make_leads(process, tenant, 1))
    with process.work(tenant) as ctx:
        switch_on(ctx, "other-mail", {**SENDER, "postal_address": ""})
    with pytest.raises(ValidationError) as caught:
        launch(process, tenant, "post", segment)
    assert [problem.code for problem in caught.value.problems] == ["no_postal_address"]
