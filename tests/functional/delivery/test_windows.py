"""A window that is committed while its messages are composed: as good as one that is waited for."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.db.models import DeliveryChunk
from nexus_marketing.db.queries.deliveries import ChunkClaim, claim_chunk
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.db.queries.windows import Left, PendingClose, PendingWindow, Window, WindowAnswer
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery import sending
from nexus_marketing.delivery.handover import ChunkHandOver
from nexus_marketing.delivery.pace import Pace
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.delivery.recovery import recover_expired
from nexus_marketing.services.campaigns.moving import move_campaign
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("REL-001", "REL-006")

MakeScene = Callable[..., Scene]
GO = WindowAnswer(running=True, suppressed=frozenset())
ACCEPTED = [Settlement(seq, DeliveryState.ACCEPTED, None, "250 2.0.0") for seq in (1, 2)]


def claimed(scene: Scene) -> ChunkClaim:
    scene.launch()
    plan_send(scene.runtime, SendRef(scene.tenant_id, scene.send_id))
    engine = scene.runtime.engines.worker
    with open_session(engine, tenant_id=scene.tenant_id, mode="durable") as session, session.begin():
        held = claim_chunk(session, scene.send_id, "worker", 30)
    assert held is not None
    return held


def pending(scene: Scene, held: ChunkClaim, lo: int, hi: int, known: list[Settlement] | None = None) -> PendingWindow:
    window = Window((lo, hi), (None, None), known or [], [b"x" * 16], "email", MessageClass.MARKETING, 30)
    return PendingWindow(scene.runtime.engines.worker, held, window)


def intent(scene: Scene) -> tuple[int | None, int | None]:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        chunk = ctx.session.get(DeliveryChunk, (scene.tenant_id, scene.send_id, 1))
        assert chunk is not None
        return chunk.intent_lo, chunk.intent_hi


def test_windows_follow_each_other_and_settle_what_is_known(make_scene: MakeScene) -> None:
    scene = make_scene(6)
    held = claimed(scene)
    with pending(scene, held, 1, 2) as first:
        assert first.answer() == GO
    assert intent(scene) == (1, 2)
    with pending(scene, held, 1, 4, ACCEPTED) as second:
        assert second.answer() == GO
    assert intent(scene) == (1, 4)
    assert scene.states() == ["accepted", "accepted", *["planned"] * 4]


def test_a_window_that_nobody_waits_for_stands_in_nobodys_way(make_scene: MakeScene) -> None:
    scene = make_scene(6)
    held = claimed(scene)
    with pending(scene, held, 1, 2):
        pass
    with pending(scene, held, 1, 4) as after:
        assert after.answer() == GO
    assert intent(scene) == (1, 4)


def test_whoever_lost_the_lease_hears_it_and_changes_nothing(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(6)
    held = claimed(scene)
    database_time.advance(seconds=31)
    assert recover_expired(scene.runtime) == 1
    with pending(scene, held, 1, 2, ACCEPTED) as late:
        assert late.answer() is None
    assert PendingClose(scene.runtime.engines.worker, held, ACCEPTED, Left(closed=True)).answer() is False
    assert intent(scene) == (None, None)
    assert scene.states() == ["planned"] * 6


def test_a_pause_is_told_and_nothing_more_is_intended(make_scene: MakeScene) -> None:
    scene = make_scene(6)
    held = claimed(scene)
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "pause")
    with pending(scene, held, 1, 2, ACCEPTED) as window:
        answer = window.answer()
    assert answer is not None
    assert not answer.running
    assert intent(scene) == (None, None)
    assert scene.states()[:3] == ["accepted", "accepted", "planned"]


def test_who_waits_for_a_domain_is_moved_once_however_often_it_is_tried(make_scene: MakeScene) -> None:
    scene = make_scene(6)
    held = claimed(scene)
    seqs = list(range(held.seq_lo, held.seq_hi + 1))
    moved = {"a.example": seqs[:1], "b.example": seqs[1:]}
    closing = PendingClose(scene.runtime.engines.worker, held, [], Left(closed=True, aside=moved))
    assert closing.answer()
    assert closing.answer(), "the first answer may not have arrived"
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        waiting = select(DeliveryChunk).where(DeliveryChunk.waits_for.is_not(None)).order_by(DeliveryChunk.chunk_no)
        assert {each.waits_for: each.seqs for each in ctx.session.scalars(waiting)} == moved
    lost = replace(held, fence=held.fence - 1)
    assert not PendingClose(scene.runtime.engines.worker, lost, [], Left(closed=True, aside=moved)).answer()


def test_closing_settles_the_rest_and_gives_the_chunk_back(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    held = claimed(scene)
    with pending(scene, held, 1, 2) as window:
        assert window.answer() == GO
    closing = PendingClose(scene.runtime.engines.worker, held, ACCEPTED, Left(closed=True))
    assert closing.answer()
    assert closing.answer(), "once more changes nothing"
    assert intent(scene) == (None, None)
    assert scene.states() == ["accepted"] * 2
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        chunk = ctx.session.get(DeliveryChunk, (scene.tenant_id, scene.send_id, 1))
        assert chunk is not None
        assert chunk.closed_at is not None
        assert chunk.worker is None


def test_an_answer_that_is_lost_costs_a_second_commit_and_nothing_else(make_scene: MakeScene, dialect: str) -> None:
    if dialect == "sqlite":
        pytest.skip("nothing is under way on SQLite")
    scene = make_scene(6)
    held = claimed(scene)
    with pending(scene, held, 1, 4, ACCEPTED) as window:
        assert any(intent(scene) == (1, 4) for _ in range(10_000))
        assert window._statement is not None
        with window._statement:
            pass
        assert window.answer() == GO
    assert intent(scene) == (1, 4)
    assert scene.states() == ["accepted", "accepted", *["planned"] * 4]


def test_a_connection_that_is_lost_before_the_commit_is_replaced(make_scene: MakeScene, dialect: str) -> None:
    if dialect == "sqlite":
        pytest.skip("nothing is under way on SQLite")
    scene = make_scene(6)
    held = claimed(scene)
    engine = scene.runtime.engines.worker
    with ExitStack() as stack:
        other = stack.enter_context(scene.runtime.engines.owner.begin())
        other.execute(text("SELECT chunk_no FROM marketing_delivery_chunks FOR UPDATE"))
        window = stack.enter_context(pending(scene, held, 1, 4, ACCEPTED))
        assert window._statement is not None
        lent = window._statement._lent
        assert lent is not None
        pid = lent.driver_connection.info.backend_pid  # type: ignore[union-attr]
        with engine.connect() as killer:
            assert killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid}).scalar()
        assert intent(scene) == (None, None)
        other.rollback()
        assert window.answer() == GO
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert intent(scene) == (1, 4)
    assert scene.states() == ["accepted", "accepted", *["planned"] * 4]


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Claims, and the ends of chunks that were waited for, in their order."""
    found: list[str] = []
    answer, claim = PendingClose.answer, sending.claim_chunk

    def heard(closing: PendingClose) -> bool:
        found.append("closed")
        return answer(closing)

    def claims(*args: Any) -> ChunkClaim | None:
        held = claim(*args)
        found.append("claimed" if held else "nothing")
        return held

    monkeypatch.setattr(PendingClose, "answer", heard)
    monkeypatch.setattr(sending, "claim_chunk", claims)
    return found


def test_the_next_chunk_is_claimed_while_one_is_closed(
    make_scene: MakeScene, dialect: str, happened: list[str]
) -> None:
    scene = make_scene(6, chunk_size=2)
    scene.launch()
    scene.work()
    under_way = ["claimed", "claimed", "closed", "claimed", "closed", "nothing", "closed"]
    assert happened == (["claimed", "closed"] * 3 + ["nothing"] if dialect == "sqlite" else under_way)
    assert scene.states() == ["accepted"] * 6
    assert scene.send().status == "completed"


def test_answers_are_heard_while_the_next_window_is_committed(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = {f"person{number}@example.org": [OutcomeKind.PERMANENT_RECIPIENT] for number in (5, 25)}
    scene = make_scene(60, script, chunk_size=30)
    heard: list[int] = []
    answer = PendingWindow.answer

    def counting(window: PendingWindow) -> WindowAnswer | None:
        heard.append(sum(handover.result.settled for handover in running))
        return answer(window)

    running: list[ChunkHandOver] = []
    monkeypatch.setattr(ChunkHandOver, "run", lambda self, run=ChunkHandOver.run: running.append(self) or run(self))
    monkeypatch.setattr(Pace, "window", lambda *_: 15)
    monkeypatch.setattr(PendingWindow, "is_waiting", True)
    monkeypatch.setattr(PendingWindow, "answer", counting)
    scene.launch()
    scene.work()
    # Of each fifteen all but those that keep the connections busy were heard before the second commit was answered.
    enough = 2 * scene.channel.max_in_flight
    assert heard == [0, 15 - enough, 30, 30 + 15 - enough]
    assert [number for number, state in enumerate(scene.states(), 1) if state != "accepted"] == [5, 25]
    assert len({each.address for each in scene.channel.sent}) == len(scene.channel.sent) == 58
