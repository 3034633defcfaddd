"""Any message can be made again as it left: byte for byte what a server got, until its lead is erased."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.utils import parseaddr
from pathlib import Path

import pytest
from sqlalchemy import select, update

from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.errors import Conflict, Gone, NotFound
from nexus_marketing.db.models import Delivery, Lead, RenderBlock, Tenant
from nexus_marketing.delivery.renders import forget_renders
from nexus_marketing.keys import Keys
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.sent_messages import sent_message
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("US-018", "FR-P3-012", "SR-006")

MakeScene = Callable[..., Scene]


def by_mail(scene: Scene, catcher: Catcher) -> None:
    """The scene's channel becomes the real one, to a real server."""
    channel = EmailChannel(PoolSettings(host="127.0.0.1", port=catcher.port, connections=2), scene.runtime.clock)
    scene.runtime = replace(scene.runtime, channels={"email": channel})


def received(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*.eml"):
        content = path.read_bytes()
        found[parseaddr(message_from_bytes(content)["To"])[1]] = content
    return found


def again(scene: Scene, number: int, runtime: Runtime | None = None) -> bytes:
    with (runtime or scene.runtime).work(scene.tenant_id, mode="read") as ctx:
        return sent_message(ctx, scene.lead_ids[number - 1], scene.send_id).rendered.content


def test_every_byte_is_what_the_server_got(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(30, chunk_size=7, first_name="Zoë <b>&", metadata={"plan": "pro"})
    with Catcher(tmp_path) as catcher:
        by_mail(scene, catcher)
        scene.launch()
        scene.work()
        mails = received(tmp_path)
    assert len(mails) == 30
    # Whatever changes afterwards: names, the sender of later sends, our address, the keys.
    with scene.runtime.work(scene.tenant_id) as ctx:
        ctx.session.execute(update(Lead).values(first_name="Changed", name="Changed"))
    settings = replace(scene.runtime.settings, public_url="https://elsewhere.example")
    keys = Keys((b"n" * 48, *scene.runtime.settings.secret_keys))
    later = replace(scene.runtime, settings=settings, keys=keys)
    for number in range(1, 31):
        assert again(scene, number, later) == mails[scene.address(number)]


def test_of_more_than_one_attempt_it_is_the_last(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(3, {"person2@example.org": [OutcomeKind.TRANSIENT]})
    scene.launch()
    scene.work()
    database_time.advance(hours=1)
    with scene.runtime.work(scene.tenant_id) as ctx:
        ctx.session.execute(update(Lead).values(first_name="Later"))
    scene.work()
    assert scene.states() == ["accepted"] * 3
    real = replace(
        scene.runtime, channels={"email": EmailChannel(PoolSettings(host="127.0.0.1", port=25), scene.runtime.clock)}
    )
    subjects = [message_from_bytes(again(scene, number, real))["Subject"] for number in (1, 2, 3)]
    assert subjects == ["Hello First1", "Hello Later", "Hello First3"]


def test_who_got_nothing_has_no_message(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    scene.launch()
    scene.suppress(2)
    scene.work()
    with pytest.raises(Conflict, match="Nothing left"):
        again(scene, 2)
    with pytest.raises(NotFound, match="Nothing here can make messages of email"):
        again(scene, 1)  # the recording channel makes no bytes


def test_an_erased_lead_is_in_no_block(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    del database_time
    scene = make_scene(20, chunk_size=6, first_name="Unforgotten")
    scene.launch()
    scene.work()
    with scene.runtime.work(scene.tenant_id) as ctx:
        assert "Unforgotten" in blocks(scene)
        for lead_id in scene.lead_ids[:19]:
            erase_lead(ctx, lead_id)
    finish_removals(scene.runtime)
    assert blocks(scene).count("Unforgotten") == 1
    assert "person19@" not in blocks(scene)
    with pytest.raises(Gone):
        again(scene, 3)
    real = replace(
        scene.runtime, channels={"email": EmailChannel(PoolSettings(host="127.0.0.1", port=25), scene.runtime.clock)}
    )
    assert b"Unforgotten" in again(scene, 20, real)
    with scene.runtime.work(scene.tenant_id) as ctx:
        erased = {seq for row in ctx.session.scalars(select(RenderBlock)) for seq in row.erased}
        assert erased == set(ctx.session.scalars(select(Delivery.seq).where(Delivery.lead_id != scene.lead_ids[19])))


def test_what_is_old_is_forgotten_and_may_not_be_kept_at_all(make_scene: MakeScene) -> None:
    scene = make_scene(5, chunk_size=2)
    scene.launch()
    scene.work()
    with scene.runtime.work(scene.tenant_id) as ctx:
        old = datetime.now(UTC) - timedelta(days=scene.runtime.settings.keep_renders_days + 400)
        ctx.session.execute(update(RenderBlock).where(RenderBlock.chunk_no == 1).values(at=old))
    forget_renders(scene.runtime)
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert {row.chunk_no for row in ctx.session.scalars(select(RenderBlock))} == {2, 3}
    with pytest.raises(NotFound, match="keep_renders_days"):
        again(scene, 1)


def test_who_waits_for_a_rate_leaves_no_block_behind(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(6)
    database_time.set_to(datetime(2026, 3, 2, 12, tzinfo=UTC))
    with scene.runtime.work(None, role="owner") as ctx:
        rates = [{"count": 3, "per": "1 day"}]
        ctx.session.get_one(Tenant, scene.tenant_id).settings = {"send_rates": rates}
    scene.launch(message_class="transactional")
    for _ in range(4):
        database_time.advance(minutes=1)
        scene.work()
    assert scene.states() == ["accepted"] * 3 + ["planned"] * 3
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert len(ctx.session.scalars(select(RenderBlock)).all()) == 1
    real = replace(
        scene.runtime, channels={"email": EmailChannel(PoolSettings(host="127.0.0.1", port=25), scene.runtime.clock)}
    )
    assert b"First3" in again(scene, 3, real)


def test_nothing_is_kept_where_nobody_wants_it(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    scene.runtime = replace(scene.runtime, settings=replace(scene.runtime.settings, keep_renders_days=0))
    scene.launch()
    scene.work()
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert not ctx.session.scalars(select(RenderBlock)).all()


def blocks(scene: Scene) -> str:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        return "".join(zlib.decompress(row.block).decode() for row in ctx.session.scalars(select(RenderBlock)))
