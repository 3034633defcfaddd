"""The channels that go out by HTTP against the suite that a stranger's is held against."""

import json
from base64 import b64encode
from collections.abc import Iterator

import pytest

from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.builtins.channels.social.bluesky import Bluesky
from nexus_marketing.builtins.channels.social.channel import SocialChannel
from nexus_marketing.builtins.channels.social.mastodon import Mastodon
from nexus_marketing.builtins.channels.webhook import WebhookChannel
from nexus_marketing.core.clock import FakeClock, SystemClock
from nexus_marketing.core.contracts import Content
from nexus_marketing.core.messages import TEXT
from nexus_marketing.core.templates import parse_message
from nexus_marketing.plugin.http import HttpClient, HttpLimits
from nexus_marketing.plugin.testing import ChannelConformance
from tests.contract.channels.networks import PASSWORD, TOKEN, BlueskyServer, MastodonServer
from tests.contract.channels.servers import HttpServer, Reply

pytestmark = [
    pytest.mark.req("FR-EXT-001", "US-018", "FR-P2-009"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

TAKEN = Reply(201, json.dumps({"sid": "SM1", "status": "queued", "error_code": None}).encode())
SECRET = f"whsec_{b64encode(b's' * 24).decode()}"


@pytest.fixture
def provider() -> Iterator[HttpServer]:
    with HttpServer(usual=TAKEN) as server:
        yield server


@pytest.fixture
def client(provider: HttpServer, free_port: int) -> Iterator[HttpClient]:
    client = HttpClient(HttpLimits(allow_hosts=(provider.allowed, f"127.0.0.1:{free_port}")))
    yield client
    client.close()


class TestSms(ChannelConformance):
    @pytest.fixture
    def channel(self, provider: HttpServer, client: HttpClient, clock: FakeClock) -> SmsChannel:
        return SmsChannel(SmsProvider(provider.url, "AC1", "t", connections=3), client, clock)

    @pytest.fixture
    def unreachable(self, client: HttpClient, clock: FakeClock, free_port: int) -> SmsChannel:
        return SmsChannel(SmsProvider(f"http://127.0.0.1:{free_port}", "AC1", "t"), client, clock)

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"from": "+15005550006"}


class TestWebhook(ChannelConformance):
    @pytest.fixture
    def channel(self, client: HttpClient) -> WebhookChannel:
        return WebhookChannel(client, SystemClock(), secrets=(SECRET,), origin="https://mail.example", connections=3)

    @pytest.fixture
    def settings(self, provider: HttpServer) -> dict[str, str]:
        return {"url": provider.url}

    @pytest.fixture
    def content(self) -> Content:
        text = '{"name": "{{ first_name }}"}'
        return Content(parse_message({"text": text}, {}, TEXT), {}, "<c1.t1.localhost>", bulk=False)


class TestMastodon(ChannelConformance):
    @pytest.fixture
    def provider(self) -> Iterator[MastodonServer]:
        with MastodonServer() as server:
            yield server

    @pytest.fixture
    def channel(self, client: HttpClient, clock: FakeClock) -> SocialChannel:
        return SocialChannel(Mastodon(client, clock), client)

    @pytest.fixture
    def settings(self, provider: MastodonServer) -> dict[str, str]:
        return {"server": provider.url, "handle": "@shop@social.example", "token": TOKEN}


class TestBluesky(ChannelConformance):
    @pytest.fixture
    def provider(self) -> Iterator[BlueskyServer]:
        with BlueskyServer() as server:
            yield server

    @pytest.fixture
    def channel(self, client: HttpClient, clock: FakeClock) -> SocialChannel:
        return SocialChannel(Bluesky(client, clock), client)

    @pytest.fixture
    def settings(self, provider: BlueskyServer) -> dict[str, str]:
        return {"server": provider.url, "handle": "shop.bsky.social", "password": PASSWORD}
