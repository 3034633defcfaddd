"""A RabbitMQ server for a run: the machine's, or one of unpacked packages (:mod:`tests.common.servers.packages`)."""

import os
import secrets
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPError

from tests.common.servers.packages import REASON, UNPACKED
from tests.common.servers.privileges import ServerUnavailable, reachable_copy, server_account
from tests.common.servers.programs import searches
from tests.common.servers.run import Run, free_port, server_state, signal_supervisor, wait_until
from tests.common.servers.supervisor import Spec

# The script itself: what is in the PATH insists on a user of its own.
SERVER = "usr/lib/rabbitmq/bin/rabbitmq-server"
ERLANG = "usr/lib/erlang/bin"
BOOT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RabbitmqServer:
    """A running server, and where it keeps what it has."""

    url: str
    origin: str
    folder: Path

    def stop(self) -> None:
        """Stop the server; durable queues are kept."""
        signal_supervisor(self.folder, signal.SIGUSR1)
        wait_until(lambda: server_state(self.folder)["server"] is None, "RabbitMQ did not stop")

    def start(self) -> None:
        """Start a stopped server again on the same port and data; once more where it ends because its name is still taken."""

        def is_back() -> bool:
            state = server_state(self.folder)
            if state["server"] is None:
                signal_supervisor(self.folder, signal.SIGUSR2)
                wait_until(lambda: server_state(self.folder)["starts"] > state["starts"], "RabbitMQ did not start")
            return answers(self.url)

        wait_until(is_back, "RabbitMQ did not come back", BOOT_TIMEOUT_SECONDS)

    def freeze(self) -> None:
        """Let it hold every connection and answer none."""
        os.kill(self._erlang_pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self._erlang_pid(), signal.SIGCONT)

    def _erlang_pid(self) -> int:
        return int((self.folder / "pid").read_text())


def rabbitmq_line() -> str:
    """Which server would be started, or why there is none."""
    try:
        return f"RabbitMQ ({find_rabbitmq()})"
    except ServerUnavailable as error:
        return f"RabbitMQ: {error}"


def find_rabbitmq() -> Path:
    """The folder above ``usr`` that has RabbitMQ and Erlang."""
    for root, place in ((Path("/"), "machine"), (UNPACKED, "wheel")):
        if searches(place) and (root / SERVER).is_file() and (root / ERLANG / "erl").is_file():
            return root
    reason = f" ({REASON.read_text()})" if REASON.exists() else ""
    raise ServerUnavailable(f"no rabbitmq-server: install it, or see what make e2e says of its packages{reason}")


def start_rabbitmq(run: Run) -> RabbitmqServer:
    """The server of a run, started by the first process that asks."""
    with run.started_once("rabbitmq") as (folder, facts):
        if not facts:
            facts.update(launch(run, folder))
        return RabbitmqServer(facts["url"], facts["origin"], Path(facts["folder"]))


def launch(run: Run, folder: Path) -> dict[str, Any]:
    """Start a node of a name, a port mapper (epmd) and data of its own, all of which go with the run."""
    root, account, password = find_rabbitmq(), server_account(), secrets.token_urlsafe(18)
    mapper_folder = folder.with_name("epmd")
    for each in (folder, mapper_folder):
        each.mkdir(mode=0o700)
        account.own(each)
    usr = reachable_copy(root / "usr", account, folder) if root == UNPACKED else root / "usr"
    port, mapper_port = free_port(), free_port()
    mapper = [str(usr.parent / ERLANG / "epmd"), "-address", "127.0.0.1", "-port", str(mapper_port)]
    run.supervise(Spec(str(mapper_folder), run.owner_pid, mapper, uid=account.uid, gid=account.gid))
    configuration = folder / "rabbitmq.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = nexus\ndefault_pass = {password}\nlog.console = true\n"
    )
    account.own(configuration)
    (folder / "enabled_plugins").write_text("[].\n")
    variables = [f"{name}={value}" for name, value in environment(usr, folder, run.token, mapper_port).items()]
    command = ["env", "-i", *variables, str(usr.parent / SERVER)]
    run.supervise(Spec(str(folder), run.owner_pid, command, uid=account.uid, gid=account.gid))
    url = f"amqp://nexus:{password}@127.0.0.1:{port}/"
    wait_until(lambda: ended(folder) or answers(url), "RabbitMQ did not answer", BOOT_TIMEOUT_SECONDS)
    if ended(folder):
        raise ServerUnavailable(
            f"RabbitMQ did not start: {(folder / 'server.log').read_text(errors='replace')[-2000:]}"
        )
    return asdict(RabbitmqServer(url, str(root), folder)) | {"folder": str(folder)}


def environment(usr: Path, folder: Path, token: str, mapper_port: int) -> dict[str, str | int | Path]:
    """What makes a node its own: whatever this is left out would be looked for below /var, /etc and on port 4369."""
    return {
        "PATH": f"{usr.parent / ERLANG}:/usr/bin:/bin",
        "HOME": folder,
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": mapper_port,
        # An epmd that Erlang starts by itself would stay when everything else is gone.
        "ERL_AFLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_NODENAME": f"nexus_{token}@localhost",
        "RABBITMQ_DIST_PORT": free_port(),
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        "RABBITMQ_CONF_ENV_FILE": folder / "rabbitmq-env.conf",
        "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
        "RABBITMQ_MNESIA_BASE": folder / "data",
        "RABBITMQ_LOG_BASE": folder / "log",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": folder / "pid",
    }


def ended(folder: Path) -> bool:
    """Whether the server was started and is down again."""
    state = server_state(folder)
    return bool(state.get("starts")) and state["server"] is None


def answers(url: str) -> bool:
    """Whether the server at this URL opens a connection."""
    try:
        pika.BlockingConnection(pika.URLParameters(f"{url}?socket_timeout=1&stack_timeout=5")).close()
    except (AMQPError, OSError):
        return False
    return True
