"""What the how-to pages write is what they say: their own suites are collected here."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.config import rehearse
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.plugin import Capability, NotFound, ResourceCall
from nexus_marketing.plugin.testing import RecordingServer, WatchingJournal, sample_batch, sample_content
from tests.common.pages import HOWTO, files_of, imported

DOCS = Path(__file__).parents[3] / "docs"
PAGE = HOWTO / "write-a-channel.md"

pytestmark = pytest.mark.req("FR-EXT-001", "FR-EXT-002", "US-018", "MAINT-005")


def code_of(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


WORDS = code_of("howto/write-a-condition.md")
TestInWave, TestFromTheNorth = WORDS["TestInWave"], WORDS["TestFromTheNorth"]
FILES = imported({path: text for path, text in files_of(PAGE).items() if path.startswith("nexus_push/")})
CHANNELS, PLUGIN, BY_HTTP = (FILES[f"nexus_push/{name}.py"] for name in ("channels", "__init__", "by_http"))
_TESTS: dict[str, Any] = {"__name__": __name__}
exec(compile(files_of(PAGE)["tests/test_channel.py"], PAGE.name, "exec"), _TESTS)
TestPushChannel = _TESTS["TestPushChannel"]


def outcomes(*statuses: int) -> list[str]:
    with RecordingServer() as server:
        channel = CHANNELS["PushChannel"]("127.0.0.1", server.port)
        content = sample_content(channel)
        batch = sample_batch(channel, content, len(statuses))
        for submission, status in zip(batch, statuses, strict=True):
            server.answers[submission.address] = [status]
        session = channel.open({"app": "shop"}, content)
        found = [outcome.kind for outcome in session.submit(batch, WatchingJournal())]
        session.close()
        return found


def test_what_the_provider_says_is_understood() -> None:
    assert outcomes(202, 503, 429, 400, 401) == [
        "accepted",
        "transient",
        "throttled",
        "permanent_recipient",
        "permanent_sender",
    ]


def test_a_provider_that_hangs_up_leaves_a_message_unknown_and_the_next_goes_out() -> None:
    assert outcomes(202, 0, 202) == ["accepted", "unknown", "accepted"]


def test_the_plugin_of_the_page_can_be_included() -> None:
    registry = rehearse({"push.port": "1"}, PLUGIN["includeme"])
    assert list(registry.channels) == ["push"]
    assert registry.of(Capability.CHANNEL)["push"].port == 1
    with pytest.raises(ValidationError, match="Name the app"):
        registry.channels["push"].validate({})


def test_the_channel_that_asks_the_host_does_the_same() -> None:
    given: list[Any] = []

    def include(config: Any) -> None:
        ctx = config.add_marketing_plugin(PLUGIN["MANIFEST"])
        given.append(BY_HTTP["PushByHttp"](ctx, f"http://{place}/messages"))
        config.add_marketing_channel(given[0])

    with RecordingServer() as server:
        place = f"127.0.0.1:{server.port}"
        grants = {"nexus.plugins.grants": f"nexus-push:{place}", "nexus.http.allow_hosts": place}
        registry = rehearse({**grants, "nexus.plugins.secrets": "nexus-push:token=t"}, include)
        (channel,) = given
        content = sample_content(channel)
        batch = sample_batch(channel, content, 4)
        for submission, status in zip(batch, (202, 503, 400, 0), strict=True):
            server.answers[submission.address] = [status]
        session = channel.open({"app": "shop"}, content)
        found = {each.ref: each.kind for each in session.submit(batch, WatchingJournal()) if each}
        session.close()
        channel.close_thread()
        registry.close()
    assert [found[ref] for ref in range(4)] == ["accepted", "transient", "permanent_recipient", "unknown"]


def test_the_condition_of_the_page_can_be_included() -> None:
    registry = rehearse({}, WORDS["includeme"])
    assert list(registry.of(Capability.CONDITION)) == ["in_wave"]


def test_the_resource_of_the_page_answers_each_tenant_its_own() -> None:
    rates = code_of("reference/plugin-directives.md")["Rates"]()
    call = ResourceCall(1, "key:1", datetime(2026, 1, 1, tzinfo=UTC), "PUT", "/{country}", {"country": "de"})
    assert rates.answer(replace(call, body={"rate": 19})).body == {"rate": 19, "unit": "percent"}
    with pytest.raises(NotFound):
        rates.answer(replace(call, tenant_id=2, method="GET"))
