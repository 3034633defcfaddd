"""PostgreSQL itself without room, for its tables and for its log of commits, under workers and the API (SECURITY.md R25)."""

import contextlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.disks import FILLER, fill, says_full, small_disk
from tests.chaos.judge import query
from tests.chaos.stage import launch, open_stage
from tests.chaos.verdicts import (
    Plan,
    Servers,
    Verdict,
    Watch,
    pass_judgement,
    play_to_the_end,
    seconds_to_progress,
    settled,
    status_of,
    wait_until,
)
from tests.chaos.web import Reader, Writer
from tests.common.databases import postgres_template
from tests.common.servers import PostgresCluster, ServerUnavailable
from tests.common.servers.postgres import is_ready
from tests.common.servers.privileges import server_account
from tests.common.servers.run import signal_supervisor

FAULT: Final = "database_disk_full"
_MEGABYTE: Final = 1024 * 1024
#: Beside the database that is copied there.
_ROOM_FOR_TABLES: Final = 24 * _MEGABYTE
#: Five segments of 16 megabytes.
_LOG_DISK: Final = 80 * _MEGABYTE
_LOG_SETTINGS: Final = {"max_wal_size": "48MB", "min_wal_size": "32MB"}
_SEGMENTS_COPIED: Final = 2
#: For so long there is no room: longer than a lease, in the full form.
_SHORT_SECONDS: Final = 0.5
_LONG_SECONDS: Final = 9.0
_RESTART_SECONDS: Final = 0.5
_WORKERS: Final = 2
_TABLESPACE: Final = "nexus_small"


def database_disk_full(servers: Servers, plan: Plan) -> Verdict:
    """The disk of the tables is filled, then that of the log of commits: PostgreSQL refuses, then falls.

    Where it does not get up by itself somebody starts it again, as a service manager does. Meanwhile a campaign is sent, a
    program creates leads by the API, each with one key until it is told that it is there, and somebody reads their mail. The
    API says 503 and when to come again, and nothing else; pixel and link are answered as ever; the workers outlive it;
    everybody is written to once and every lead is there once. Needs somebody who may mount a tmpfs.
    """
    with small_disk(_room_for_tables(servers.cluster)) as tables, small_disk(_LOG_DISK) as log:
        if tables is None or log is None or servers.cluster.folder is None:
            print(
                f"{FAULT}: not possible here (it takes a server of its own and the right to mount a tmpfs)",
                file=sys.stderr,
            )
            return Verdict(f"{FAULT}:not_possible_here")
        with _on_small_disks(servers.cluster, tables, log) as cluster, _kept_up(cluster):
            return _play(cluster, plan, tables, log)


def _play(cluster: PostgresCluster, plan: Plan, tables: Path, log: Path) -> Verdict:
    rounds = 1 if plan.small else max(2, plan.faults // 4)
    audience = min(plan.audience, 600 if plan.small else 1_000 * rounds)
    with open_stage(cluster, audience=audience, reply_delay_seconds=0.03 * rounds) as stage:
        stage.start_server(worker_threads=0)
        launch(stage)
        watch = Watch(stage.runtime)
        workers = [stage.start_worker() for _ in range(_WORKERS)]
        writer, reader = Writer(stage), Reader(stage)
        wait_until(lambda: writer.created > 0 and reader.answered[302] > 0)
        recovered, seen, complaints = 0.0, 0, list[str]()
        strikes = [partial(fill, tables), partial(_fill_log, cluster, log)] * rounds
        for number, strike in enumerate(strikes, start=1):
            due = audience * number / (len(strikes) + 2)
            wait_until(lambda due=due: settled(stage) >= due)  # type: ignore[misc]
            before, lines, (created, refused) = (
                settled(stage),
                len(stage.worker_log()),
                (writer.created, writer.refused),
            )
            filler = strike()
            # Where a page has room they may go on; whoever does not says why.
            told = wait_until(lambda lines=lines: says_full(stage, lines), 15.0)  # type: ignore[misc]
            refusing = wait_until(lambda refused=refused: writer.refused > refused, 15.0)  # type: ignore[misc]
            if not told and settled(stage) == before:
                complaints.append(f"no worker said why it stands still ({number})")
            if not refusing and writer.created == created:
                complaints.append(f"the API neither wrote nor refused ({number})")
            seen += told and refusing
            time.sleep(_SHORT_SECONDS if plan.small else _LONG_SECONDS)
            filler.unlink()
            begun, created = time.monotonic(), writer.created
            wait_until(lambda: is_ready(cluster.own_folder()))
            seconds_to_progress(stage)
            if not wait_until(lambda created=created: writer.created > created):  # type: ignore[misc]
                complaints.append(f"the API wrote nothing any more ({number})")
            recovered = max(recovered, time.monotonic() - begun)
        was = status_of(stage)
        play_to_the_end(stage)
        writer.finish()
        reader.finish()
        ended = sum(worker.poll() is not None for worker in workers)
        leads = dict(
            query(stage.dsn, "SELECT email, count(*) FROM marketing_leads WHERE name = 'written' GROUP BY email")
        )
        # At each fall both workers lose what they had on the wire; where only the tables are full they keep it.
        bound = rounds * stage.connections * _WORKERS
        verdict = pass_judgement(
            stage, FAULT, len(strikes), recovered=recovered, violations=watch.finish(), bound=bound
        )
        for complaint in dict.fromkeys((*complaints, *writer.complaints, *reader.complaints)):
            verdict.require(False, complaint)
        verdict.require(was in ("running", "completed"), f"the send was {was} because of the disk")
        verdict.require(seen > len(strikes) / 2, f"workers and API noticed {seen} of {len(strikes)}: no evidence")
        verdict.require(not ended, f"{ended} workers did not outlive it")
        verdict.require(
            len(leads) - writer.created in (0, 1), f"{len(leads)} leads of {writer.created} told to be there"
        )
        verdict.require(set(leads.values()) <= {1}, "a lead was created twice")
        return verdict


def _fill_log(cluster: PostgresCluster, disk: Path) -> Path:
    """And have the server want its next segment until it falls over there being no room for one."""
    server_log = cluster.own_folder() / "server.log"
    before = server_log.read_text(errors="replace").count("PANIC")
    filler = fill(disk)

    def fell() -> bool:
        with contextlib.suppress(psycopg.Error), cluster.connect() as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'chaos', 'more')")
            connection.execute("SELECT pg_switch_wal()")
        return server_log.read_text(errors="replace").count("PANIC") > before

    if not wait_until(fell, 20.0):
        raise RuntimeError("PostgreSQL outlived a full disk of its log: nothing was shown")
    return filler


def _room_for_tables(cluster: PostgresCluster) -> int:
    with cluster.connect() as connection:
        row = connection.execute("SELECT pg_database_size(%s)", [postgres_template(cluster)]).fetchone()
    assert row is not None
    return int(row[0]) + _ROOM_FOR_TABLES


@contextmanager
def _on_small_disks(cluster: PostgresCluster, tables: Path, log: Path) -> Iterator[PostgresCluster]:
    """The same server: its log on one disk, new databases on the other; as it was afterwards."""
    place, account = tables / "tables", server_account()
    place.mkdir(mode=0o700)
    account.own(place)
    with cluster.connect() as connection:
        for name, value in _LOG_SETTINGS.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute(f"CREATE TABLESPACE {_TABLESPACE} LOCATION '{place}'")
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()").fetchone()
    assert row is not None
    cluster.shut_down()
    own, kept, small = (
        cluster.own_folder() / "data" / "pg_wal",
        cluster.own_folder() / "pg_wal.kept",
        log / "pg_wal",
    )
    own.rename(kept)
    needed = sorted(each.name for each in kept.iterdir() if each.is_file() and each.name >= row[0])[:_SEGMENTS_COPIED]
    _move(kept, small, needed)
    own.symlink_to(small)
    cluster.start()
    try:
        yield replace(cluster, tablespace=_TABLESPACE)
    finally:
        for disk in (tables, log):
            (disk / FILLER).unlink(missing_ok=True)
        if cluster.server_pid() is None:
            cluster.start()
        wait_until(lambda: is_ready(cluster.own_folder()))
        with cluster.connect() as connection:
            connection.execute("CHECKPOINT")
            for name in _LOG_SETTINGS:
                connection.execute(f"ALTER SYSTEM RESET {name}")
            connection.execute(f"DROP TABLESPACE {_TABLESPACE}")
            connection.execute("CHECKPOINT")
        cluster.shut_down()
        shutil.rmtree(kept)
        _move(small, kept, [each.name for each in small.iterdir() if each.is_file()])
        own.unlink()
        kept.rename(own)
        cluster.start()


def _move(source: Path, target: Path, names: list[str]) -> None:
    account = server_account()
    target.mkdir(mode=0o700, exist_ok=True)
    for folder in [each.name for each in source.iterdir() if each.is_dir()]:
        (target / folder).mkdir(mode=0o700, exist_ok=True)
        account.own(target / folder)
    account.own(target)
    for name in names:
        shutil.copy2(source / name, target / name)
        account.own(target / name)


@contextmanager
def _kept_up(cluster: PostgresCluster) -> Iterator[None]:
    """Whoever ends is started again, as ``Restart=on-failure`` of a service manager has it."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(_RESTART_SECONDS):
            if cluster.server_pid() is None:
                with contextlib.suppress(ServerUnavailable, OSError):
                    signal_supervisor(cluster.own_folder(), signal.SIGUSR2)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
