"""A Redis or Valkey server for a run: from ``NEXUS_TEST_REDIS_URL``, or started by ourselves."""

import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis as redis_client

from tests.common.servers.postgres import START_ATTEMPTS
from tests.common.servers.privileges import Account, ServerUnavailable, reachable_copy, server_account
from tests.common.servers.programs import Program, find_redis
from tests.common.servers.run import Run, free_port, server_state, signal_supervisor, wait_until
from tests.common.servers.supervisor import Spec

URL_VARIABLE = "NEXUS_TEST_REDIS_URL"
DATABASES = 64


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server. ``databases`` numbered databases are free for this run, from ``url``'s upwards."""

    url: str
    databases: int
    version: str
    origin: str
    folder: Path | None = None

    def database(self, index: int) -> str:
        """The URL of the database ``index`` places above the first."""
        parts = urlsplit(self.url)
        first = int(parts.path.strip("/") or 0)
        return urlunsplit(parts._replace(path=f"/{first + index % self.databases}"))

    def stop(self) -> None:
        """Stop the server at once (fault injection); what it held is gone."""
        signal_supervisor(self.own_folder(), signal.SIGUSR1)
        wait_until(lambda: self.server_pid() is None, "Redis did not stop")

    def start(self) -> None:
        """Start a stopped server again on the same port, empty."""
        signal_supervisor(self.own_folder(), signal.SIGUSR2)
        wait_until(lambda: self.server_pid() is not None and answers(self.url), "Redis did not come back")

    def server_pid(self) -> int | None:
        """The pid of our server; None while it is down."""
        pid: int | None = server_state(self.own_folder())["server"]
        return pid

    def own_folder(self) -> Path:
        """The folder of our own server; an error when the server is somebody else's."""
        if self.folder is None:
            raise ServerUnavailable(f"the server of {URL_VARIABLE} is not ours to stop: unset the variable")
        return self.folder


def start_redis(run: Run) -> RedisServer:
    """The server of a run, started by the first process that asks."""
    with run.started_once("redis") as (folder, facts):
        if not facts:
            given = os.environ.get(URL_VARIABLE)
            facts.update(adopt(run, folder, given) if given else launch(run, folder))
        return server_from(facts)


def server_from(facts: Mapping[str, Any]) -> RedisServer:
    """The server whose facts were saved by whoever started it."""
    folder = facts["folder"]
    return RedisServer(**{**facts, "folder": Path(folder) if folder else None})


def adopt(run: Run, folder: Path, url: str) -> dict[str, Any]:
    """Use a server that runs already, from the URL's database upwards."""
    run.guard(folder)
    with redis_client.Redis.from_url(url) as client:
        version = str(client.info("server")["redis_version"])
        count = int(client.config_get("databases")["databases"])
    first = int(urlsplit(url).path.strip("/") or 0)
    return asdict(RedisServer(url, count - first, version, URL_VARIABLE))


def launch(run: Run, folder: Path) -> dict[str, Any]:
    """Start a server without persistence; another port is tried when one is taken."""
    program, account, password = find_redis(), server_account(), secrets.token_urlsafe(18)
    log = ""
    for _ in range(START_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        account.own(folder)
        port = free_port()
        command = prepare(program, account, folder, password, port)
        spec = Spec(str(folder), run.owner_pid, command, uid=account.uid, gid=account.gid)
        run.supervise(spec)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        wait_until(lambda: ended(folder) or answers(url), "Redis did not answer")  # noqa: B023 - called at once
        if not ended(folder):
            server = RedisServer(url, DATABASES, program.version, program.origin)
            return asdict(server) | {"folder": str(folder)}
        log = (folder / "server.log").read_text(errors="replace")[-2000:]
        signal_supervisor(folder, signal.SIGTERM)
        wait_until(lambda: not folder.exists(), "the supervisor of a failed server did not end")
        run.directory.mkdir(mode=0o711, exist_ok=True)
    raise ServerUnavailable(f"{program.path.name} {program.version} did not start: {log}")


def prepare(program: Program, account: Account, folder: Path, password: str, port: int) -> list[str]:
    """Write the configuration (a password on the command line could be read by anybody)."""
    path = program.path
    if program.bundle:
        path = reachable_copy_of_file(program.path, account, folder)
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndatabases {DATABASES}\nsave ""\nappendonly no\n'
        f"dir {folder}\ndaemonize no\n"
    )
    account.own(configuration)
    return [str(path), str(configuration)]


def reachable_copy_of_file(path: Path, account: Account, into: Path) -> Path:
    """The program itself, or a copy beside its data when its folder is private."""
    return reachable_copy(path.parent, account, into) / path.name


def ended(folder: Path) -> bool:
    """Whether the server was started and is down again."""
    state = server_state(folder)
    return bool(state.get("starts")) and state["server"] is None


def answers(url: str) -> bool:
    """Whether the server at this URL replies to PING."""
    try:
        with redis_client.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis_client.RedisError:
        return False
