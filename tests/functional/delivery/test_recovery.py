"""What a worker that died or froze leaves behind, and what becomes of it."""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.db.locks import FairLock
from nexus_marketing.db.models import DeliveryChunk
from nexus_marketing.db.queries.deliveries import ChunkClaim, claim_chunk, release_chunk
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.db.queries.windows import Range, Window, WindowAnswer, commit_window
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery import handover, recovery
from nexus_marketing.delivery.journal import HandOverJournal, dead_journals
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.delivery.recovery import recover_dead, recover_expired
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.dead_letters import replay_dead_letters
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("REL-001", "REL-006", "REL-007")

MakeScene = Callable[..., Scene]
JOURNALS = "journal"


def claim(scene: Scene, lo: int, hi: int, **options: str) -> tuple[HandOverJournal, ChunkClaim]:
    """A worker that claimed the first chunk and intends ``lo``..``hi``, up to the moment it dies."""
    scene.launch(**options)
    plan_send(scene.runtime, SendRef(scene.tenant_id, scene.send_id))
    journal = HandOverJournal(scene.runtime.settings.state_dir / JOURNALS / "victim.journal")
    engine = scene.runtime.engines.worker
    with open_session(engine, tenant_id=scene.tenant_id, mode="durable") as session, session.begin():
        held = claim_chunk(session, scene.send_id, "victim", 30)
        assert held is not None
    journal.begin(held)
    assert intend(scene, held, (lo, hi)) == WindowAnswer(running=True, suppressed=frozenset())
    return journal, held


def intend(
    scene: Scene,
    held: ChunkClaim,
    intended: Range,
    *,
    on_wire: Range = (None, None),
    known: Sequence[Settlement] = (),
    hashes: Sequence[bytes] = (),
) -> WindowAnswer | None:
    """What a worker commits before a window leaves."""
    window = Window(intended, on_wire, known, hashes, "email", MessageClass.MARKETING, 30)
    return commit_window(scene.runtime.engines.worker, held, window)


def die(journal: HandOverJournal) -> None:
    """As SIGKILL leaves it: the file stays, its lock is gone."""
    journal._map.close()
    journal._file.close()


def test_a_dead_workers_journal_tells_what_was_on_the_wire(make_scene: MakeScene) -> None:
    scene = make_scene(10)
    journal, _ = claim(scene, 1, 6)
    journal.on_wire(0)
    journal.on_outcome(0, OutcomeKind.ACCEPTED)
    journal.on_wire(1)
    die(journal)
    assert recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS) == 1
    assert scene.states() == ["accepted", "unknown", *["planned"] * 8]
    scene.work()
    assert scene.states() == ["accepted", "unknown", *["accepted"] * 8]
    assert len(scene.channel.sent) == 8


def test_a_chunk_that_cannot_be_recovered_keeps_its_journal_and_no_other_from_it(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(10)
    journal, held = claim(scene, 1, 6)
    journal.on_wire(0)
    journal.on_outcome(0, OutcomeKind.ACCEPTED)
    die(journal)
    folder = scene.runtime.settings.state_dir / JOURNALS
    other = HandOverJournal(folder / "a second.journal")
    other.begin(replace(held, chunk_no=99))
    die(other)
    asked: list[int] = []

    def stumble(_session: object, _send_id: int, chunk_no: int, *_: object, **__: object) -> None:
        asked.append(chunk_no)
        if chunk_no != 99:
            raise KeyError("chunk")

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "take_over", stumble)
        assert recover_dead(scene.runtime, folder) == 0
    assert sorted(asked) == [held.chunk_no, 99]
    assert [each.name for each in folder.iterdir()] == ["victim.journal"]
    assert recover_dead(scene.runtime, folder) == 1
    assert scene.states() == ["accepted", *["planned"] * 9]
    assert list(folder.iterdir()) == []


def crash_over(scene: Scene, lo: int | None, hi: int | None) -> ChunkClaim:
    """A worker claims the chunk, is about to hand these over (or has not come so far), and ends before anything is on the wire."""
    journal = HandOverJournal(scene.runtime.settings.state_dir / JOURNALS / "next.journal")
    engine = scene.runtime.engines.worker
    with open_session(engine, tenant_id=scene.tenant_id, mode="durable") as session, session.begin():
        held = claim_chunk(session, scene.send_id, "next", 30)
    assert held is not None
    journal.begin(held)
    if lo is not None:
        assert intend(scene, held, (lo, hi)) is not None
    die(journal)
    recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS)
    return held


@pytest.mark.req("R12")
def test_a_message_that_ends_every_worker_is_given_up(make_scene: MakeScene) -> None:
    scene = make_scene(10)
    journal, _ = claim(scene, 1, 6)
    die(journal)
    recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS)
    assert crash_over(scene, 3, 8).doubt is None  # one end may be anybody's
    assert scene.states() == ["planned"] * 10
    assert crash_over(scene, 4, 4).doubt == (3, 6)  # and is to hand them over one by one
    assert scene.states() == [*["planned"] * 3, "failed(crashed)", *["planned"] * 6]
    scene.work()
    assert scene.states() == [*["accepted"] * 3, "failed(crashed)", *["accepted"] * 6]
    assert scene.send().status == "completed"
    with scene.runtime.work(scene.tenant_id) as ctx:
        assert replay_dead_letters(ctx, scene.campaign_id, DeliveryState.FAILED) == 0
        assert replay_dead_letters(ctx, scene.campaign_id, DeliveryState.FAILED, reason="crashed") == 1
    scene.work()
    assert scene.states() == ["accepted"] * 10
    assert len(scene.channel.sent) == 10


@pytest.mark.req("R12")
def test_workers_that_are_killed_over_different_people_harm_nobody(make_scene: MakeScene) -> None:
    scene = make_scene(10)
    journal, _ = claim(scene, 1, 6)
    die(journal)
    recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS)
    for seq in (1, 2, 3, 4, 7, 8):
        crash_over(scene, seq, seq)
    crash_over(scene, 8, 9)
    assert scene.states() == ["planned"] * 10
    scene.work()
    assert scene.states() == ["accepted"] * 10


@pytest.mark.req("R12")
def test_before_the_first_window_whoever_would_be_in_it_may_have_ended_the_worker(make_scene: MakeScene) -> None:
    scene = make_scene(200)
    scene.launch()
    plan_send(scene.runtime, SendRef(scene.tenant_id, scene.send_id))
    crash_over(scene, None, None)
    crash_over(scene, None, None)
    assert crash_over(scene, 5, 5).doubt == (1, 128)
    assert scene.states()[4] == "failed(crashed)"
    scene.work()
    assert scene.states().count("accepted") == 199


@pytest.mark.req("R12")
def test_who_may_have_ended_a_worker_is_handed_over_alone(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(10)
    journal, _ = claim(scene, 1, 6)
    die(journal)
    recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS)
    crash_over(scene, 1, 6)
    session, sizes = type(scene.channel.open({}, None)), []  # type: ignore[arg-type]
    submit = session.submit

    def counting(self: Any, batch: Any, journal: Any) -> Any:
        sizes.append(len(batch))
        return submit(self, batch, journal)

    monkeypatch.setattr(session, "submit", counting)
    scene.work()
    assert sizes[:6] == [1] * 6
    assert sum(sizes) == 10
    assert scene.states() == ["accepted"] * 10


def test_without_a_journal_the_whole_open_intent_is_unknown(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(10)
    journal, _ = claim(scene, 1, 6)
    assert recover_expired(scene.runtime) == 0
    database_time.advance(seconds=31)
    assert recover_expired(scene.runtime) == 1
    assert scene.states() == [*["unknown"] * 6, *["planned"] * 4]
    journal.close()
    scene.work()
    assert len(scene.channel.sent) == 4


def test_a_living_workers_journal_is_not_believed(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    journal, _ = claim(scene, 1, 3)
    assert recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS) == 0
    journal.close()


def claimed_before_it_was_set_back(scene: Scene, database_time: DatabaseTime) -> tuple[HandOverJournal, ChunkClaim]:
    database_time.advance(hours=2)
    held = claim(scene, 1, 6)
    database_time.advance(hours=-2)
    return held


@pytest.mark.req("R14")
def test_a_database_whose_clock_was_set_back_lets_nobody_wait_for_the_dead(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(10)
    journal, _ = claimed_before_it_was_set_back(scene, database_time)
    assert recover_expired(scene.runtime) == 0  # whoever is alive renews it within the time of a lease
    database_time.advance(seconds=29)
    assert recover_expired(scene.runtime) == 0
    database_time.advance(seconds=2)
    assert recover_expired(scene.runtime) == 1
    assert scene.states() == [*["unknown"] * 6, *["planned"] * 4]
    journal.close()
    scene.work()
    assert len(scene.channel.sent) == 4


@pytest.mark.req("R14")
def test_a_clock_that_was_set_back_takes_nothing_from_the_living(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(10)
    journal, held = claimed_before_it_was_set_back(scene, database_time)
    recover_expired(scene.runtime)
    assert intend(scene, held, (7, 10)) == WindowAnswer(running=True, suppressed=frozenset())
    database_time.advance(seconds=25)
    assert recover_expired(scene.runtime) == 0
    journal.close()


def test_who_lost_the_lease_changes_nothing_any_more(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(3)
    journal, held = claim(scene, 1, 3)
    database_time.advance(seconds=31)
    recover_expired(scene.runtime)
    engine = scene.runtime.engines.worker
    with open_session(engine, tenant_id=scene.tenant_id) as session, session.begin():
        assert release_chunk(session, held, closed=True) is False
    assert intend(scene, held, (1, 3), known=[Settlement(1, DeliveryState.ACCEPTED)]) is None
    assert scene.states() == ["unknown"] * 3
    journal.close()


def test_a_late_settlement_of_a_row_that_is_still_planned_needs_the_lease(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(3)
    journal, held = claim(scene, 1, 1)
    database_time.advance(seconds=31)
    recover_expired(scene.runtime)
    assert intend(scene, held, (1, 3), known=[Settlement(2, DeliveryState.ACCEPTED)]) is None
    assert scene.states() == ["unknown", "planned", "planned"]
    journal.close()


def test_a_paused_send_intends_nothing_new_and_settles_what_is_known(make_scene: MakeScene) -> None:
    scene = make_scene(4)
    journal, held = claim(scene, 1, 2)
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "pause")
    known = [Settlement(1, DeliveryState.ACCEPTED), Settlement(2, DeliveryState.FAILED, "permanent_recipient")]
    answer = intend(scene, held, (1, 4), on_wire=(1, 2), known=known)
    assert answer == WindowAnswer(running=False, suppressed=frozenset())
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert tuple(ctx.session.execute(select(DeliveryChunk.intent_lo, DeliveryChunk.intent_hi)).one()) == (1, 2)
    assert scene.states() == ["accepted", "failed(permanent_recipient)", "planned", "planned"]
    journal.close()


def test_who_was_suppressed_since_the_gate_is_named(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    journal, held = claim(scene, 1, 1)
    scene.suppress(2)
    hashes = [scene.runtime.keys.address_hash(scene.tenant_id, scene.address(number)) for number in (1, 2, 3)]
    answer = intend(scene, held, (1, 3), hashes=hashes)
    assert answer == WindowAnswer(running=True, suppressed=frozenset({hashes[1]}))
    journal.close()


def test_transactional_rows_of_a_dead_worker_are_sent_once_more_later(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(4)
    journal, _ = claim(scene, 1, 2, message_class="transactional")
    journal.on_wire(0)
    die(journal)
    recover_dead(scene.runtime, scene.runtime.settings.state_dir / JOURNALS)
    assert scene.states() == ["planned(ambiguous)", *["planned"] * 3]
    scene.work()
    assert len(scene.channel.sent) == 3
    database_time.advance(minutes=2)
    scene.work()
    assert scene.states() == ["accepted(ambiguous)", *["accepted"] * 3]


def test_a_worker_stopping_between_windows_leaves_nothing_unknown(make_scene: MakeScene) -> None:
    scene = make_scene(40)
    batches: list[int] = []
    scene.channel.on_batch = lambda batch: batches.append(len(batch))
    scene.stopping = lambda: len(batches) >= 2
    scene.launch()
    scene.work()
    scene.stopping = lambda: False
    assert "unknown" not in scene.states()
    assert "planned" in scene.states()
    scene.work()
    assert scene.states() == ["accepted"] * 40
    assert len(scene.channel.sent) == 40


class NoDatabase:
    """A last commit to which the database says nothing any more."""

    is_under_way = True

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing arrives."""

    def answer(self) -> bool:
        raise OperationalError("COMMIT", None, ConnectionError("gone"))


@pytest.mark.parametrize("message_class", ["marketing", "transactional"])
def test_a_worker_that_is_stopped_while_the_database_is_away_leaves_word_of_what_was_taken(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, database_time: DatabaseTime, message_class: str
) -> None:
    scene = make_scene(3)
    scene.launch(message_class=message_class)
    with monkeypatch.context() as away:
        away.setattr(handover, "PendingClose", NoDatabase)
        scene.stopping = lambda: len(scene.channel.sent) == 3
        with suppress(OperationalError):
            scene.work()
    scene.stopping = lambda: False
    folder = scene.runtime.settings.state_dir / JOURNALS
    assert len([*folder.iterdir()]) == 1
    scene.work()
    database_time.advance(seconds=3_600)
    scene.work()
    assert scene.states() == ["accepted"] * 3
    assert len(scene.channel.sent) == 3
    assert list(folder.iterdir()) == []


def test_a_journal_goes_with_its_worker(tmp_path: Path) -> None:
    journal = HandOverJournal(tmp_path / "w.journal")
    assert list(dead_journals(tmp_path)) == []
    journal.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.req("REL-003")
def test_a_full_disk_begins_nothing_and_blames_no_send(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(3)
    scene.launch()

    def full(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        scene.work(3)
    assert scene.states() == ["planned"] * 3
    assert scene.send().status == "running"
    scene.work()
    assert scene.states() == ["accepted"] * 3


class TestAFileThatIsBusy:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """Where one process writes at a time, and its threads one after the other."""
        return sqlite_only_runtime

    def test_whoever_waits_for_a_writer_in_vain_goes_on_later(
        self, make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At planning, at a claim, before a window, at the end: the send is neither stopped nor is anybody's fate unknown."""
        scene = make_scene(40, chunk_size=10)
        scene.launch()
        chance, acquire = Random(20), FairLock.acquire
        monkeypatch.setattr(handover, "_DATABASE_RETRY_SECONDS", 0.0)
        monkeypatch.setattr(FairLock, "acquire", lambda self, most: chance.random() > 0.3 and acquire(self, most))
        loop = WorkerLoop(scene.runtime, lambda: False)
        for _ in range(100):
            with suppress(OperationalError):
                loop.turn()
        monkeypatch.undo()
        loop.finish()
        assert scene.send().status == "completed"
        assert scene.states() == ["accepted"] * 40
        assert len(scene.channel.sent) == 40
