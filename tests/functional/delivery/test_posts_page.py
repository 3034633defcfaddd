"""The page on posting to social networks, as somebody follows it: its settings, commands and requests, from an empty tenant."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nexus_marketing.cli.app import app as cli
from nexus_marketing.config import make_runtime
from nexus_marketing.runtime import Runtime
from tests.common.pages import HOWTO
from tests.contract.channels.networks import PASSWORD, TOKEN, BlueskyServer, MastodonServer
from tests.functional.conftest import Client
from tests.functional.delivery.conftest import work_off

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "FR-P3-004", "MAINT-005")

PAGE = HOWTO / "post-to-social-networks.md"


@pytest.fixture
def networks() -> Iterator[tuple[MastodonServer, BlueskyServer]]:
    with MastodonServer() as mastodon, BlueskyServer() as bluesky:
        at = "/api/v1/statuses/1"
        reply = {"id": "5", "in_reply_to_id": "1", "account": {"acct": "ann"}, "content": "<p>Where?</p>"}
        mastodon.lists = {
            f"{at}/favourited_by": [{"id": "1", "acct": "ann"}, {"id": "2", "acct": "stranger@elsewhere.example"}],
            f"{at}/reblogged_by": [],
            f"{at}/context": {"descendants": [reply]},
        }
        bluesky.lists = {
            ("app.bsky.feed.getLikes", ""): {"likes": []},
            ("app.bsky.feed.getRepostedBy", ""): {"repostedBy": []},
            ("app.bsky.feed.getPostThread", ""): {"thread": {}},
        }
        yield mastodon, bluesky


@pytest.fixture
def page(networks: tuple[MastodonServer, BlueskyServer]) -> str:
    """With the servers of this machine in the place of the real ones."""
    mastodon, bluesky = networks
    text = PAGE.read_text(encoding="utf-8")
    return text.replace("https://mastodon.social", mastodon.url).replace("https://bsky.social", bluesky.url)


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def ini(
    page: str, sqlite_only_runtime: Runtime, networks: tuple[MastodonServer, BlueskyServer], tmp_path: Path
) -> dict[str, str]:
    (block,) = blocks(page, "ini")
    return {
        **dict(line.split(" = ", 1) for line in block.splitlines()),
        "nexus.database_url": sqlite_only_runtime.settings.database_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
        # Real servers are at public addresses and speak TLS.
        "nexus.http.allow_hosts": " ".join(each.allowed for each in networks),
    }


@pytest.fixture
def runtime(ini: dict[str, str]) -> Iterator[Runtime]:
    made = make_runtime(ini)
    yield made
    made.close()


@pytest.fixture
def command(ini: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    file = tmp_path / "shop.ini"
    file.write_text("[app:main]\n" + "".join(f"{key} = {value}\n" for key, value in ini.items()))

    def run(line: str, answers: str = "") -> str:
        name, *words = shlex.split(line, comments=True)
        assert name == "nexus-marketing"
        result = CliRunner().invoke(cli, ["--config", str(file), *words], input=answers)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_the_page_on_social_networks(
    page: str,
    command: Callable[..., str],
    client: Client,
    runtime: Runtime,
    networks: tuple[MastodonServer, BlueskyServer],
) -> None:
    (commands,) = blocks(page, "sh")
    secrets = {"mastodon": TOKEN, "bluesky": PASSWORD}
    for line in commands.replace("\\\n", " ").splitlines():
        asked = next((secret for name, secret in secrets.items() if f"add {name}" in line), "")
        said = command(line, f"{asked}\n" if asked else "")
        assert not asked or asked not in said
        assert "health" not in line or said.startswith("reached")
    for number, channel in enumerate(("mastodon", "bluesky"), 1):
        assert client.get(f"/api/v1/channels/{number}").json["type"] == channel

    def api(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = client.send(method, path, body)
        return answer.status_int, answer.json if answer.body else None

    def work() -> None:
        for _ in range(
            3
        ):  # networks are asked by threads of their own, which may still be at it when a worker has nothing left
            work_off(runtime, 30)

    names: dict[str, Any] = {"api": api, "work": work}
    mastodon, bluesky = networks
    posted: list[tuple[int, int]] = []
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        posted.append((len(mastodon.statuses), len(bluesky.records)))
    assert posted == [(1, 1), (1, 1), (1, 1), (1, 1)]
    assert [each["status"] for each in mastodon.statuses.values()] == [names["text"]]
    first = re.search(r"`(nexus-marketing campaigns reactions \d+ --tenant acme)`", page)
    assert first is not None
    assert "mastodon" in command(first[1].replace(" 34 ", " 1 "))
