"""A third party's copy of the e-mail channel, made of the plugin API and the SMTP client alone, is as good as ours."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.builtins.channels import email
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.plugin.testing import ChannelConformance, sample_batch, sample_content
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings
from tests.common.mail_copy import OtherMail, source_of_the_copy

pytestmark = pytest.mark.req("FR-EXT-001", "US-018")


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[Catcher]:
    with Catcher(tmp_path / "mail") as started:
        yield started


class TestTheCopy(ChannelConformance):
    @pytest.fixture
    def channel(self, catcher: Catcher, clock: FakeClock) -> Iterator[Any]:
        channel = OtherMail(PoolSettings(host="127.0.0.1", port=catcher.port, connections=3), clock)
        yield channel
        channel.close_thread()

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"from_email": "news@shop.example"}


def test_it_imports_the_plugin_api_and_what_it_sends_with() -> None:
    imported = set(re.findall(r"^from (nexus_marketing\S*) import", source_of_the_copy(), re.MULTILINE))
    tools = ("nexus_marketing.smtp.", "nexus_marketing.builtins.hooks.")
    assert {name for name in imported if not name.startswith(tools)} == {"nexus_marketing.plugin"}


def test_it_makes_the_same_messages(clock: FakeClock) -> None:
    relay = PoolSettings(host="127.0.0.1", port=9, connections=1)
    ours, theirs = email.EmailChannel(relay, clock), OtherMail(relay, clock)
    content = sample_content(ours)
    for submission in sample_batch(ours, content, 5):
        assert ours.render({}, content, submission) == theirs.render({}, content, submission)
