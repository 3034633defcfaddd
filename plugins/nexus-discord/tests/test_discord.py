"""Discord's side played over a socket: a webhook with its bucket, as the reference describes "Execute Webhook"."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nexus_discord.channels import DiscordChannel, escaped
from nexus_marketing.plugin import OutcomeKind, Submission, ValidationError, parse_message
from nexus_marketing.plugin.testing import ChannelConformance, WatchingJournal, hosted, sample_batch, sample_content

pytestmark = pytest.mark.req("FR-EXT-001", "US-018", "SR-004")

ROOM = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset-after": "2.000"}
EMPTY = {**ROOM, "x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.5"}
UNKNOWN_WEBHOOK = {"message": "Unknown Webhook", "code": 10015}
LIMITED = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}


class Guild:
    """One webhook; ``answers`` are given first, in turn."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.posts: list[dict[str, Any]] = []
        guild = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, said, headers = guild.take(self.path, body)
                if not status:
                    self.close_connection = True
                    return
                text = json.dumps(said).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nobody reads along."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if self.answers:
            return self.answers.pop(0)
        if path != "/api/webhooks/1/token?wait=true":
            return 404, UNKNOWN_WEBHOOK, ROOM
        if not 0 < len(body["content"]) <= 2000:
            return 400, {"message": "Invalid Form Body", "code": 50035}, ROOM
        self.posts.append(body)
        return 200, {"id": str(1000 + len(self.posts)), "content": body["content"]}, ROOM

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def guild() -> Iterator[Guild]:
    guild = Guild()
    yield guild
    guild.close()


def ini(place: str) -> dict[str, str]:
    hook = f"http://{place}/api/webhooks/1"
    return {
        "nexus.http.allow_hosts": place,
        "nexus.plugins.grants": f"nexus-discord:{place}",
        "nexus.plugins.requests_per_second": "1000",
        "nexus.plugins.secrets": f"nexus-discord:hook={hook}/token nexus-discord:gone={hook}/deleted",
    }


@pytest.fixture(scope="module", params=[False, True], ids=["trusted", "sandboxed"])
def channel(request: pytest.FixtureRequest, guild: Guild) -> Iterator[Any]:
    """The channel as the product takes it in, trusted and not."""
    with hosted("nexus_discord", ini(guild.place), sandboxed=request.param) as registry:
        yield registry.channels["discord"]
        getattr(registry.channels["discord"], "close_thread", lambda: None)()


@pytest.fixture(scope="module")
def away() -> Iterator[DiscordChannel]:
    """Where nobody listens."""
    with hosted("nexus_discord", ini("127.0.0.1:9")) as registry:
        yield registry.channels["discord"]
        registry.channels["discord"].close_thread()


class TestDiscord(ChannelConformance):
    count = 8

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"webhook": "hook", "username": "Shop"}

    @pytest.fixture
    def unreachable(self, away: DiscordChannel) -> DiscordChannel:
        return away


def sent(channel: Any, count: int = 1, webhook: str = "hook") -> list[Any]:
    content = sample_content(channel)
    session = channel.open({"webhook": webhook}, content)
    outcomes = [each for each in session.submit(sample_batch(channel, content, count), WatchingJournal()) if each]
    session.close()
    return outcomes


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((429, LIMITED, {"Retry-After": "65", "X-RateLimit-Scope": "shared"}), OutcomeKind.THROTTLED, "429"),
        ((404, UNKNOWN_WEBHOOK, ROOM), OutcomeKind.PERMANENT_SENDER, "10015"),
        ((401, {"message": "Invalid Webhook Token", "code": 50027}, ROOM), OutcomeKind.PERMANENT_SENDER, "50027"),
        ((400, {"message": "Cannot send an empty message", "code": 50006}, ROOM), OutcomeKind.REFUSED, "render_error"),
        ((500, "", {}), OutcomeKind.UNKNOWN, "500"),
        ((503, [], {"Retry-After": "7"}), OutcomeKind.THROTTLED, "503"),
        ((204, "", {}), OutcomeKind.ACCEPTED, ""),
        ((0, "", {}), OutcomeKind.UNKNOWN, "no_answer"),
    ],
)
def test_what_discord_says_is_understood(channel: Any, guild: Guild, answer: Any, kind: OutcomeKind, code: str) -> None:
    guild.answers = [answer]
    (outcome,) = sent(channel)
    assert (outcome.kind, outcome.code) == (kind, code)
    waits = {429: 64.57, 503: 7.0}
    assert outcome.retry_after_seconds == waits.get(answer[0])


def test_when_the_bucket_is_empty_nothing_more_is_posted(channel: Any, guild: Guild) -> None:
    guild.answers = [(200, {"id": "1"}, ROOM), (200, {"id": "2"}, EMPTY)]
    posts = len(guild.posts)
    outcomes = sent(channel, 5)
    assert [each.kind for each in outcomes] == [OutcomeKind.ACCEPTED] * 2 + [OutcomeKind.THROTTLED] * 3
    assert all(0 < each.retry_after_seconds <= 1.5 for each in outcomes[2:])
    assert len(guild.posts) == posts


def test_a_webhook_that_was_deleted_stops_the_send(channel: Any) -> None:
    (outcome,) = sent(channel, webhook="gone")
    assert outcome.kind is OutcomeKind.PERMANENT_SENDER
    assert "Unknown Webhook" in outcome.detail


def test_a_post_holds_the_text_and_no_value_is_markup(channel: Any, guild: Guild) -> None:
    message = parse_message({"text": "**News** for {{ first_name }}: {{ unsubscribe_url }}"}, {}, "text")
    content = sample_content(channel)
    session = channel.open({"webhook": "hook"}, type(content)(message, content.sender, content.list_id, content.bulk))
    values = {"var:first_name": "*@everyone*", "var:unsubscribe_url": "https://shop.example/u/a_b"}
    batch = [Submission(0, "", "<r0@shop.example>", values)]
    assert [each.kind for each in session.submit(batch, WatchingJournal()) if each] == [OutcomeKind.ACCEPTED]
    session.close()
    wanted = r"**News** for \*@everyone\*: https://shop.example/u/a_b"
    assert guild.posts[-1] == {"allowed_mentions": {"parse": []}, "content": wanted}


@pytest.mark.parametrize("length", [2001, 0])
def test_a_text_that_discord_would_not_take_is_not_sent(away: DiscordChannel, length: int) -> None:
    message = parse_message({"text": "{{ first_name }}"}, {}, "text")
    content = sample_content(away)
    session = away.open({"webhook": "hook"}, type(content)(message, content.sender, content.list_id, content.bulk))
    batch = [Submission(0, "", "<r0@shop.example>", {"var:first_name": "x" * length})]
    (outcome,) = [each for each in session.submit(batch, WatchingJournal()) if each]
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "render_error")


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({}, ["webhook"]),
        ({"webhook": "https://discord.com/api/webhooks/1/token"}, ["webhook"]),
        ({"webhook": "hook", "username": "a\nb"}, ["username"]),
        ({"webhook": "hook", "username": "Discord News"}, ["username"]),
    ],
)
def test_settings_that_are_wrong_are_named(settings: dict[str, str], paths: list[str], away: DiscordChannel) -> None:
    with pytest.raises(ValidationError) as refused:
        away.validate(settings)
    assert [problem.path for problem in refused.value.problems] == paths


def test_what_a_person_wrote_is_no_markup() -> None:
    assert escaped("a_b*c") == r"a\_b\*c"
