"""``pserve`` with the ini files as shipped, in a process of its own."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nexus_marketing.config import make_runtime
from nexus_marketing.services.tenants import create_key
from tests.common.factories import make_tenant

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


def written(name: str, folder: Path, port: int, **replaced: str) -> Path:
    """A shipped file with another port and other values (``database_url="…"``, ``smtp__host="…"``)."""
    text = (ROOT / name).read_text()
    text = text.replace("127.0.0.1:6543", f"127.0.0.1:{port}").replace("port = 8080", f"port = {port}")
    for name_of, value in replaced.items():
        key = name_of.replace("__", ".")
        line = f"nexus.{key} = {value}".replace("\\", r"\\")
        text = re.sub(rf"(?m)^#?nexus\.{key} = .*$", line, text)
    path = folder / name
    path.write_text(text)
    return path


@contextmanager
def serving(ini: Path, port: int, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in its own session, gone at the end whatever happened."""
    log = ini.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "pyramid.scripts.pserve", str(ini)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/__lbheartbeat__")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def make_key(settings: Mapping[str, str]) -> str:
    """A tenant with a key that may do everything, in the database of these settings."""
    runtime = make_runtime(settings)
    tenant_id = make_tenant(runtime)
    with runtime.work(tenant_id, role="app") as ctx:
        key = create_key(ctx, "test", ["*"])[1]
    runtime.close()
    return key
