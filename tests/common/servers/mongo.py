"""A MongoDB server for a run: from ``NEXUS_TEST_MONGO_URL``, the machine's ``mongod``, or a stand-in from a wheel.

The stand-in is SecantusDB: it speaks MongoDB's protocol on a real socket, over the storage engine that MongoDB
uses itself. What a test proves against it is not proved for ``mongod``; :func:`mongo_line` says which it was.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pymongo import MongoClient, errors

from tests.common.servers.privileges import ServerUnavailable
from tests.common.servers.programs import probe, searches
from tests.common.servers.run import Run, free_port, wait_until
from tests.common.servers.supervisor import Spec

URL_VARIABLE = "NEXUS_TEST_MONGO_URL"
STAND_IN = "secantusd-py"


@dataclass(frozen=True, slots=True)
class MongoServer:
    """A running server, and whether it is MongoDB itself."""

    url: str
    origin: str
    is_mongod: bool
    databases: str = "nexus_test_"


def mongo_line() -> str:
    """What the tests of the MongoDB storage run against, said plainly."""
    if os.environ.get(URL_VARIABLE):
        return f"MongoDB: the server of {URL_VARIABLE}"
    found = machine_mongod()
    if found is not None:
        return f"MongoDB: a real mongod of this machine: {found}"
    if stand_in() is not None:
        return (
            f"MongoDB: NO REAL SERVER here; the stand-in SecantusDB {version('secantusdb')} answers, which speaks "
            "MongoDB's protocol over WiredTiger"
        )
    return "MongoDB: no server and no stand-in"


def start_mongo(run: Run) -> MongoServer:
    """The server of a run, started by the first process that asks."""
    with run.started_once("mongo") as (folder, facts):
        if not facts:
            given = os.environ.get(URL_VARIABLE)
            facts.update(asdict(MongoServer(given, URL_VARIABLE, is_mongod=True)) if given else launch(run, folder))
        return MongoServer(**facts)


def launch(run: Run, folder: Path) -> dict[str, Any]:
    """Start a server on data of its own, which go with the run."""
    folder.mkdir(mode=0o700)
    data, port = folder / "data", free_port()
    data.mkdir()
    real, other = machine_mongod(), stand_in()
    place = ["--port", str(port)]
    if real is not None:
        command = [str(real), *place, "--bind_ip", "127.0.0.1", "--dbpath", str(data)]
    elif other is not None:
        command = [str(other), *place, "--host", "127.0.0.1", "--storage-path", str(data), "--standalone"]
    else:
        raise ServerUnavailable(f"no mongod and no secantusdb wheel: run make setup, or set {URL_VARIABLE}")
    run.supervise(Spec(str(folder), run.owner_pid, command))
    url = f"mongodb://127.0.0.1:{port}/"
    wait_until(lambda: answers(url), "MongoDB did not answer")
    return asdict(MongoServer(url, command[0], is_mongod=real is not None))


def machine_mongod() -> Path | None:
    """The ``mongod`` of this machine."""
    found = shutil.which("mongod") if searches("machine") else None
    return Path(found) if found and probe(Path(found), "machine") else None


def stand_in() -> Path | None:
    """The program of the stand-in's wheel."""
    path = Path(sys.executable).with_name(STAND_IN)
    return path if path.is_file() and searches("wheel") else None


def answers(url: str) -> bool:
    """Whether the server at this URL replies."""
    client: MongoClient[Mapping[str, Any]]
    with MongoClient(url, serverSelectionTimeoutMS=500) as client:
        try:
            client.admin.command("ping")
        except errors.PyMongoError:
            return False
    return True
