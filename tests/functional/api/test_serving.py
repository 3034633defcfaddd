"""``pserve`` with the ini files as shipped, in processes of their own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from nexus_marketing.config import with_environment
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db.engines import DatabaseSettings
from nexus_marketing.server import run_granian
from nexus_marketing.settings import Settings
from nexus_marketing.settings.readers import GROUPS, READERS
from tests.common import databases, servers
from tests.common.serving import ROOT, SECRET, make_key, serving, written

pytestmark = pytest.mark.req("SR-007")

TOKEN = "watching-0123456789"
INI_FILES = ["development.ini", "production.ini"]


def keys_of(name: str) -> set[str]:
    """Every ``nexus.`` key of a file, commented out or not."""
    return set(re.findall(r"(?m)^#?(nexus\.[a-z_.]+) *=", (ROOT / name).read_text()))


@pytest.mark.parametrize("name", INI_FILES)
def test_an_ini_file_names_settings_that_exist(name: str) -> None:
    for key in keys_of(name):
        try:
            Settings.parse({"nexus.database_url": "sqlite:///x", "nexus.secret_key": SECRET, key: ""})
        except ConfigurationError as error:
            assert "no setting of this version" not in str(error), key  # noqa: PT017


def test_the_files_together_name_every_setting() -> None:
    known = {f"nexus.{name}" for name in READERS}
    known |= {f"nexus.{group}.{name}" for group, (_, readers) in GROUPS.items() for name in readers}
    assert known <= keys_of("development.ini") | keys_of("production.ini")


def test_secrets_come_from_the_environment() -> None:
    written = {"nexus.secret_key": "${A} ${B}", "other": "${A}"}
    assert with_environment(written, {"A": "1", "B": "2"}) == {"nexus.secret_key": "1 2", "other": "${A}"}
    with pytest.raises(ConfigurationError, match=r"nexus\.secret_key: the environment variable B is not set"):
        with_environment(written, {"A": "1"})


@contextmanager
def working(ini: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of its own."""
    command = [str(Path(sys.executable).with_name("nexus-marketing")), "-c", str(ini), "worker"]
    with ini.with_suffix(".worker.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def call(port: int, path: str, key: str = "", body: object = None) -> tuple[int, dict[str, object], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read()), response.headers.get("Server", "")
    connection.close()
    return answer


def forwarded(port: int, header: str) -> int:
    """What somebody who guesses at links is told, by what a proxy and others wrote into the header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/u/guess", headers={"X-Forwarded-For": header})
    status = connection.getresponse().status
    connection.close()
    return status


def metrics(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)


def test_the_embedded_mode_is_one_process(servers_run: servers.Run, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "var").mkdir()
    database = databases.sqlite_copy(servers_run, tmp_path / "var" / "nexus.db")
    key = make_key({"nexus.database_url": f"sqlite:///{database}", "nexus.state_dir": str(tmp_path / "var")})
    ini = written("development.ini", tmp_path, free_port, visitors__guesses_per_minute="1")
    ini.write_text(ini.read_text().replace("#trusted_proxy", "trusted_proxy"))
    with serving(ini, free_port, {}) as process:
        headers = ("9.9.9.9", "1.2.3.4, 9.9.9.9", "1.2.3.4,8.8.8.8")
        assert [forwarded(free_port, each) for each in headers] == [404, 429, 404]
        assert call(free_port, "/api/v1/leads", key, {"email": "ann@example.org"})[0] == 201
        until(lambda: call(free_port, "/__heartbeat__")[0] == 200)
        assert call(free_port, "/__heartbeat__")[1] == {"database": True, "workers": True}
        stop(process)
    assert process.returncode == 0


def test_production_is_served_by_granian(
    cluster: servers.PostgresCluster, redis_url: str, tmp_path: Path, free_port: int
) -> None:
    name = databases.postgres_copy(cluster)
    urls: DatabaseSettings = databases.postgres_settings(cluster, name)
    settings = {
        "database_url": urls.app_url,
        "database_worker_url": urls.worker_url,
        "database_owner_url": urls.owner_url,
    }
    key = make_key({**{f"nexus.{each}": url for each, url in settings.items()}, "nexus.secret_key": SECRET})
    ini = written(
        "production.ini",
        tmp_path,
        free_port,
        **settings,
        redis_url=redis_url,
        state_dir=str(tmp_path),
        metrics_token=TOKEN,
        visitors__guesses_per_minute="1",
    )
    environment = {"NEXUS_SECRET_KEY": SECRET, "NEXUS_SMTP_PASSWORD": "x"}
    try:
        with serving(ini, free_port, environment) as process:
            for _ in range(30):
                assert call(free_port, "/api/v1/leads", "nobody's")[0] == 401
            answers = [forwarded(free_port, f"1.2.3.{number}, 9.9.9.9, 127.0.0.1") for number in range(12)]
            assert answers.count(404) <= 2  # one of each process, whoever the visitor says to be
            assert forwarded(free_port, "8.8.8.8") == 404
            for number in range(20):  # both processes answer, each from the same database
                assert call(free_port, "/api/v1/leads", key, {"external_id": str(number)})[0] == 201
            status, listed, _ = call(free_port, "/api/v1/leads?limit=100", key)
            assert status == 200
            assert len(listed["data"]) == 20  # type: ignore[arg-type]
            assert call(free_port, "/__heartbeat__")[1] == {"database": True, "workers": False, "redis": True}
            with working(ini, environment) as worker:
                segment = {"name": "All", "conditions": "score >= 0"}
                where = f"/api/v1/segments/{call(free_port, '/api/v1/segments', key, segment)[1]['id']}"
                until(lambda: call(free_port, where, key)[1]["lead_count"] == 20)
                until(lambda: call(free_port, "/__heartbeat__")[0] == 200)
                with redis.Redis.from_url(redis_url) as client:
                    until(lambda: client.llen("dramatiq:nexus") == 0)  # rings are taken, not piled up
                stop(worker)
            assert call(free_port, "/metrics", TOKEN[:-1] + "?")[0] == 401
            figures = metrics(free_port)
            assert figures["nexus_queue_chunks"] == 0
            assert figures["nexus_security_authentication_failed_total"] == 30  # of whichever process refused them
            assert figures["nexus_segments_upkeep_seconds_count"] >= 1  # of the worker that is gone
            stop(process)
        assert process.returncode == 0
    finally:
        cluster.drop_database(name)


@pytest.mark.parametrize(
    ("proxies", "said"),
    [
        ("nginx.internal", "'nginx.internal' is no address and no network"),
        ("10.0.0.1/8", "'10.0.0.1/8' is no address and no network (10.0.0.1/8 has host bits set)"),
        ("*", "'*' is no address"),
        ("127.0.0.1 0.0.0.0/0", "'0.0.0.0/0' is everybody"),
    ],
)
def test_a_proxy_that_is_none_is_refused_with_the_remedy(proxies: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_granian(None, {}, trusted_proxies=proxies)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "trusted_proxies" in str(caught.value)
    assert "127.0.0.1 10.0.0.0/8" in str(caught.value)


def test_a_second_schema_version_is_refused_with_the_remedy(tmp_path: Path, free_port: int) -> None:
    ini = written("development.ini", tmp_path, free_port)
    (tmp_path / "var").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pyramid.scripts.pserve", str(ini)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "nexus-marketing db upgrade" in done.stderr
