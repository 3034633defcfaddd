"""A PostgreSQL cluster for a run: from ``NEXUS_TEST_POSTGRES_URL``, or started by ourselves."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from nexus_marketing.db.roles import OWNER, ROLES, create_roles
from tests.common.servers.privileges import Account, ServerUnavailable, reachable_copy, server_account
from tests.common.servers.programs import Program, find_postgres
from tests.common.servers.run import (
    START_TIMEOUT_SECONDS,
    Run,
    free_port,
    server_state,
    signal_supervisor,
    wait_until,
)
from tests.common.servers.supervisor import Spec

URL_VARIABLE = "NEXUS_TEST_POSTGRES_URL"
SUPERUSER = "postgres"
START_ATTEMPTS = 5
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # inside the data folder: nothing stays in /dev/shm after a crash
    "max_wal_size": "4GB",
    "logging_collector": "off",
    "autovacuum_naptime": "10s",
}
CARELESS_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """A running cluster and how to get into it.

    ``prefix`` leads the name of every database this run makes, so that two runs can share
    a server; ``passwords`` are by role, the superuser's included. ``folder`` is None for a
    server that is not ours. New databases lie in the ``tablespace``.
    """

    url: str
    passwords: Mapping[str, str]
    prefix: str
    version: str
    origin: str
    folder: Path | None = None
    tablespace: str = "pg_default"

    def dsn(self, role: str = SUPERUSER, database: str | None = None) -> str:
        """The SQLAlchemy URL (``postgresql+psycopg://``) of a database for a role.

        ``postgres`` stands for the superuser, whatever its name is on this server; without a
        database it is the maintenance database.
        """
        url = make_url(self.url)
        if role != SUPERUSER:
            url = url.set(username=role, password=self.passwords[role])
        return url.set(database=database or url.database).render_as_string(hide_password=False)

    def create_database(self, name: str | None = None, template: str | None = None, owner: str | None = None) -> str:
        """Create a database, empty or as a copy, and answer its full name (led by the run's prefix)."""
        full_name = f"{self.prefix}{name or secrets.token_hex(6)}"
        # template0, not template1: what somebody left in template1 of a shared server is not empty.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} TABLESPACE {}").format(
            sql.Identifier(full_name),
            sql.Identifier(template or "template0"),
            sql.Identifier(owner or str(make_url(self.url).username)),
            sql.Identifier(self.tablespace),
        )
        with self.connect() as connection:
            connection.execute(statement)
        return full_name

    def drop_database(self, full_name: str) -> None:
        """Drop a database together with whoever is still connected."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(full_name)))

    def template(self, name: str, build: Callable[[str], None]) -> str:
        """The full name of a template database, built once per run whoever asks first.

        ``build`` gets the full name of an empty database owned by ``nexus_owner``. A failed
        build leaves no template.
        """
        full_name = f"{self.prefix}{name}"
        with self.connect() as lock:
            lock.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [full_name])
            if not lock.execute("SELECT 1 FROM pg_database WHERE datname = %s", [full_name]).fetchone():
                draft = self.create_database(f"{name}_draft", owner=OWNER)
                try:
                    build(draft)
                except BaseException:
                    self.drop_database(draft)
                    raise
                rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
                lock.execute(rename.format(sql.Identifier(draft), sql.Identifier(full_name)))
        return full_name

    def drop_all(self) -> None:
        """Drop every database of this run."""
        with self.connect() as connection:
            names = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix])
            for (name,) in names.fetchall():
                self.drop_database(name)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection of the superuser to the maintenance database."""
        return psycopg.connect(libpq_url(self.url), autocommit=True)

    def stop(self) -> None:
        """Stop the server at once, as a crash would (fault injection); :meth:`start` brings it back."""
        signal_supervisor(self.own_folder(), signal.SIGUSR1)
        wait_until(lambda: self.server_pid() is None, "PostgreSQL did not stop")

    def shut_down(self) -> None:
        """Stop the server in order: it comes back at once, and its files are whole."""
        pid = self.server_pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
        wait_until(lambda: self.server_pid() is None, "PostgreSQL did not shut down")

    def start(self) -> None:
        """Start a stopped server again on the same port and data."""
        folder = self.own_folder()
        signal_supervisor(folder, signal.SIGUSR2)
        wait_until(lambda: self.server_pid() is not None and is_ready(folder), "PostgreSQL did not come back")

    def server_pid(self) -> int | None:
        """The pid of our postmaster; None while it is down."""
        pid: int | None = server_state(self.own_folder())["server"]
        return pid

    def own_folder(self) -> Path:
        """The folder of our own server; an error when the server is somebody else's."""
        if self.folder is None:
            raise ServerUnavailable(f"the server of {URL_VARIABLE} is not ours to stop: unset the variable")
        return self.folder


def start_postgres(run: Run) -> PostgresCluster:
    """The cluster of a run, started by the first process that asks."""
    with run.started_once("postgres") as (folder, facts):
        if not facts:
            given = os.environ.get(URL_VARIABLE)
            facts.update(adopt(run, folder, given) if given else launch(run, folder))
            ensure_roles(cluster_from(facts))
        return cluster_from(facts)


def cluster_from(facts: Mapping[str, Any]) -> PostgresCluster:
    """The cluster whose facts were saved by whoever started it."""
    folder = facts["folder"]
    return PostgresCluster(**{**facts, "folder": Path(folder) if folder else None})


def adopt(run: Run, folder: Path, url: str) -> dict[str, Any]:
    """Use a server that runs already; a supervisor drops our databases when the run is over."""
    given = make_url(url).set(drivername="postgresql+psycopg")
    adopted = given.set(database=given.database or "postgres").render_as_string(hide_password=False)
    with psycopg.connect(libpq_url(adopted)) as connection:
        if connection.info.parameter_status("is_superuser") != "on":
            raise ServerUnavailable(f"{URL_VARIABLE} must be the URL of a superuser: the tests create roles")
        version = str(connection.info.parameter_status("server_version"))
    prefix = f"nexus_test_{run.token}_"
    run.guard(folder, farewell=[sys.executable, "-m", "tests.common.servers.farewell", prefix])
    # The same for every run on this server: runs at the same time must not change each other's passwords.
    passwords = {role: sha256(f"{role} {adopted}".encode()).hexdigest()[:32] for role in ROLES}
    return asdict(PostgresCluster(adopted, passwords, prefix, version, URL_VARIABLE))


def launch(run: Run, folder: Path) -> dict[str, Any]:
    """Make a data folder and start a server on it; another port is tried when one is taken."""
    program, account = find_postgres(), server_account()
    passwords = {role: secrets.token_urlsafe(18) for role in (SUPERUSER, *ROLES)}
    log = ""
    for _ in range(START_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        account.own(folder)
        port = free_port()
        spec = prepare(program, account, folder, passwords[SUPERUSER], port, durable=run.durable)
        run.supervise(Spec(owner_pid=run.owner_pid, **spec))
        if came_up(folder):
            url = URL.create("postgresql+psycopg", SUPERUSER, passwords[SUPERUSER], "127.0.0.1", port, "postgres")
            rendered = url.render_as_string(hide_password=False)
            cluster = PostgresCluster(rendered, passwords, "nexus_", program.version, program.origin)
            return asdict(cluster) | {"folder": str(folder)}
        log = (folder / "server.log").read_text(errors="replace")[-2000:]
        signal_supervisor(folder, signal.SIGTERM)
        wait_until(lambda: not folder.exists(), "the supervisor of a failed server did not end")
        run.directory.mkdir(mode=0o711, exist_ok=True)
    raise ServerUnavailable(f"PostgreSQL {program.version} from {program.path} did not start: {log}")


def prepare(
    program: Program, account: Account, folder: Path, password: str, port: int, *, durable: bool
) -> dict[str, Any]:
    """Run ``initdb`` as the account and write the settings; answer the supervisor's part of the spec."""
    if program.bundle:
        bundle = reachable_copy(program.bundle, account, folder)
        if bundle != program.bundle:
            libraries = program.bundle.with_name(f"{program.bundle.name}.libs")
            reachable_copy(libraries, account, folder)
        programs = bundle / program.path.parent.relative_to(program.bundle)
    else:
        programs = program.path.parent
    data, password_file = folder / "data", folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    account.own(password_file)
    initialise(programs / "initdb", account, data, password_file)
    password_file.unlink()
    settings = SETTINGS | ({} if durable else CARELESS_SETTINGS) | {"port": str(port)}
    with (data / "postgresql.auto.conf").open("a") as lines:
        lines.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    return {
        "directory": str(folder),
        "command": [str(programs / "postgres"), "-D", str(data)],
        "stop_signal": int(signal.SIGQUIT),  # at once: the data is thrown away, or a crash is what is wanted
        "uid": account.uid,
        "gid": account.gid,
    }


def initialise(initdb: Path, account: Account, data: Path, password_file: Path) -> None:
    """Create the data folder, in C.UTF-8 where this build knows it, so that ``lower('Ä')`` works."""
    command = [initdb, "-D", data, "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password_file}"]
    command += ["--no-sync", "--no-instructions", "-E", "UTF8"]
    complaint = ""
    for locale in ("C.UTF-8", "C"):
        done = subprocess.run(
            [*command, f"--locale={locale}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=data.parent,
            env={"PATH": os.defpath, "LANG": "C"},
            **account.popen_arguments(),  # type: ignore[call-overload]
        )
        if done.returncode == 0:
            return
        complaint = done.stderr
        shutil.rmtree(data, ignore_errors=True)
    raise ServerUnavailable(f"initdb failed: {complaint}")


def came_up(folder: Path) -> bool:
    """Wait until the server answers; False when it ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        state = server_state(folder)
        if state.get("starts") and state["server"] is None:
            return False
        if is_ready(folder):
            return True
        time.sleep(0.01)
    return False


def is_ready(folder: Path) -> bool:
    """Whether the postmaster says so in its pid file (as ``pg_ctl`` asks)."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    status_line = 7
    if len(lines) <= status_line or lines[status_line].strip() != "ready":
        return False
    return int(lines[0]) == server_state(folder).get("server")


def ensure_roles(cluster: PostgresCluster) -> None:
    """Let the product create its roles; one run at a time on a server that several share."""
    with cluster.connect() as lock:
        lock.execute("SELECT pg_advisory_lock(hashtextextended('nexus roles', 0))")
        create_roles(libpq_url(cluster.url), {role: cluster.passwords[role] for role in ROLES})


def libpq_url(dsn: str) -> str:
    """The same URL for psycopg itself, without SQLAlchemy's driver name."""
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
