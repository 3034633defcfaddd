"""The test servers themselves: whatever becomes of a run, nothing of it stays."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from nexus_marketing.db.roles import ROLES
from tests.common import servers
from tests.common.network import NetworkRefused
from tests.common.servers import Run, libpq_url, start_postgres, start_redis
from tests.common.servers.privileges import Account, ServerUnavailable, is_reachable, reachable_copy
from tests.common.servers.programs import find_postgres, find_redis
from tests.common.servers.run import PROJECT, server_state

CHILD = """
import json, time
from tests.common.servers import Run, start_postgres, start_redis
from tests.common.servers.run import server_state
run = Run.open()
cluster, server = start_postgres(run), start_redis(run)
states = [server_state(each.folder) for each in (cluster, server) if each.folder]
print(json.dumps({"directory": str(run.directory), "pids": [s[k] for s in states for k in ("supervisor", "server")],
                  "database": cluster.create_database("left_behind")}), flush=True)
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, a zombie included."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition, timeout_seconds: float = 15) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def killed_child(**variables: str) -> dict:
    """What a run had when it was killed with SIGKILL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_TEST_")}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=environment | variables
    ) as child:
        facts = json.loads(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    return facts


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_nothing_is_left_of_a_killed_run():
    facts = killed_child()
    assert len(facts["pids"]) == 4
    assert wait_for(lambda: all(map(is_gone, facts["pids"])))
    assert wait_for(lambda: not Path(facts["directory"]).exists())


def test_databases_of_a_killed_run_are_dropped_on_a_server_of_somebody_else():
    with Run.open() as somebody_else:
        cluster = start_postgres(somebody_else)
        facts = killed_child(NEXUS_TEST_POSTGRES_URL=cluster.dsn())
        assert facts["database"].startswith("nexus_test_")

        def dropped() -> bool:
            with cluster.connect() as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [facts["database"]])
                return found.fetchone() is None

        assert wait_for(dropped)
        assert wait_for(lambda: not Path(facts["directory"]).exists())


def test_a_second_process_joins_the_run_and_gets_the_same_servers(servers_run, cluster):
    joined = Run.join(servers_run.address())
    assert joined == servers_run
    assert start_postgres(joined) == cluster


@pytest.mark.parametrize("place", ["machine", "wheel"])
def test_each_place_provides_servers_that_work(monkeypatch, place):
    monkeypatch.setenv("NEXUS_TEST_SERVERS", place)
    for variable in ("NEXUS_TEST_POSTGRES_URL", "NEXUS_TEST_REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    with Run.open() as run:
        for find, start in ((find_postgres, start_postgres), (find_redis, start_redis)):
            try:
                program = find()
            except ServerUnavailable:
                assert place == "machine"  # a bare machine has none; the wheels are always there
                continue
            started = start(run)
            assert started.version == program.version
            assert server_state(started.folder)["server"]
    assert not run.directory.exists()


def test_a_durable_cluster_writes_like_a_production_one():
    with Run.open(durable=True) as run, start_postgres(run).connect() as connection:
        settings = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in ("fsync", "synchronous_commit")}
        assert settings == {"fsync": "on", "synchronous_commit": "on"}


def test_stopped_servers_come_back_on_the_same_address_with_what_was_committed():
    with Run.open(durable=True) as run:
        cluster, server = start_postgres(run), start_redis(run)
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        cluster.stop()
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            cluster.connect()
        cluster.start()
        server.start()
        with cluster.connect() as connection, redis.Redis.from_url(server.url) as client:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
            assert client.ping()


def test_roles_are_strangers_to_each_other_and_not_superusers(cluster):
    with cluster.connect() as connection:
        roles = connection.execute(
            "SELECT rolname, rolcanlogin, rolsuper OR rolbypassrls OR rolcreaterole FROM pg_roles "
            "WHERE rolname = ANY(%s)",
            [list(ROLES)],
        ).fetchall()
        members = connection.execute(
            "SELECT 1 FROM pg_auth_members WHERE member::regrole::text = ANY(%s) OR roleid::regrole::text = ANY(%s)",
            [list(ROLES), list(ROLES)],
        ).fetchall()
    assert sorted(roles) == sorted((role, True, False) for role in ROLES)
    assert members == []
    for role in ROLES:
        with psycopg.connect(libpq_url(cluster.dsn(role))) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)


def test_scratch_databases_are_empty_and_apart(postgres_url, cluster):
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        connection.execute("CREATE TABLE mine (id int)")
    other = cluster.create_database()
    with psycopg.connect(libpq_url(cluster.dsn(database=other))) as connection:
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
    cluster.drop_database(other)


def test_a_failed_template_is_built_again(cluster):
    def fail(database: str) -> None:
        raise ZeroDivisionError(database)

    with pytest.raises(ZeroDivisionError):
        cluster.template("fragile", fail)
    built: list[str] = []
    assert cluster.template("fragile", built.append) == cluster.template("fragile", built.append)
    assert len(built) == 1


def test_redis_is_empty_for_each_test(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_redis_is_empty_for_the_next_test_too = test_redis_is_empty_for_each_test


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is kept from running PostgreSQL")
def test_servers_of_root_run_as_somebody_else(cluster):
    assert Path(f"/proc/{cluster.server_pid()}").stat().st_uid != 0


def test_a_private_folder_is_copied_for_the_account_and_stays_private(tmp_path):
    private = tmp_path / "private"
    (private / "bin").mkdir(parents=True)
    program = private / "bin" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    private.chmod(0o700)
    somebody = Account(uid=12345, gid=12345)
    assert not is_reachable(private / "bin", somebody)
    copy = reachable_copy(private / "bin", somebody, tmp_path)
    assert (copy / "program").stat().st_mode & 0o777 == 0o755
    assert private.stat().st_mode & 0o777 == 0o700


def test_the_url_of_a_role_without_superuser_rights_is_refused(monkeypatch, cluster):
    monkeypatch.setenv("NEXUS_TEST_POSTGRES_URL", cluster.dsn("nexus_app"))
    with Run.open() as run, pytest.raises(ServerUnavailable, match="superuser"):
        start_postgres(run)


def test_other_machines_are_refused(free_port):
    import socket

    with pytest.raises(NetworkRefused):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(NetworkRefused):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port), timeout=1)
    assert servers.free_port() > 0
