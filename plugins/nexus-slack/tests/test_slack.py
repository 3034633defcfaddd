"""Slack's side played over a socket: the Web API and incoming webhooks, as the tenant's settings choose."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nexus_marketing.plugin import OutcomeKind, Submission, ValidationError, parse_message
from nexus_marketing.plugin.testing import ChannelConformance, WatchingJournal, hosted, sample_batch, sample_content
from nexus_slack.channels import SlackChannel, escaped

pytestmark = pytest.mark.req("FR-EXT-001", "US-018", "SR-004")

TOKEN = "xoxb-1-secret"


class Workspace:
    """A workspace with the channel #news, one bot and one webhook; ``answers`` are given first, in turn."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.posts: list[dict[str, Any]] = []
        workspace = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, said, headers = workspace.take(self.path, self.headers, body)
                if not status:
                    self.close_connection = True
                    return
                text = (said if isinstance(said, str) else json.dumps(said)).encode()
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

    def take(self, path: str, headers: Any, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if self.answers:
            return self.answers.pop(0)
        if path == "/services/T1/B1/x":
            self.posts.append(body)
            return 200, "ok", {}
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 200, {"ok": False, "error": "invalid_auth"}, {}
        if body["channel"] != "#news":
            return 200, {"ok": False, "error": "channel_not_found"}, {}
        self.posts.append(body)
        return 200, {"ok": True, "ts": f"1503435956.{len(self.posts):06}", "message": {"text": body["text"]}}, {}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    workspace = Workspace()
    yield workspace
    workspace.close()


def ini(place: str) -> dict[str, str]:
    return {
        "slack.api": f"http://{place}/api",
        "nexus.http.allow_hosts": place,
        "nexus.plugins.grants": f"nexus-slack:{place}",
        "nexus.plugins.requests_per_second": "1000",
        "nexus.plugins.secrets": f"nexus-slack:token={TOKEN} nexus-slack:hook=http://{place}/services/T1/B1/x",
    }


@pytest.fixture(scope="module", params=[False, True], ids=["trusted", "sandboxed"])
def channel(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Any]:
    """The channel as the product takes it in, trusted and not."""
    with hosted("nexus_slack", ini(workspace.place), sandboxed=request.param) as registry:
        yield registry.channels["slack"]
        getattr(registry.channels["slack"], "close_thread", lambda: None)()


@pytest.fixture(scope="module")
def away() -> Iterator[SlackChannel]:
    """Where nobody listens."""
    with hosted("nexus_slack", ini("127.0.0.1:9")) as registry:
        yield registry.channels["slack"]
        registry.channels["slack"].close_thread()


class TestBot(ChannelConformance):
    count = 8

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"channel": "#news", "username": "Shop"}

    @pytest.fixture
    def unreachable(self, away: SlackChannel) -> SlackChannel:
        return away


class TestWebhook(ChannelConformance):
    count = 5

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"webhook": "hook"}


def sent(channel: Any, settings: dict[str, str], count: int = 1) -> list[Any]:
    content = sample_content(channel)
    session = channel.open(settings, content)
    outcomes = [each for each in session.submit(sample_batch(channel, content, count), WatchingJournal()) if each]
    session.close()
    return outcomes


BOT = {"channel": "#news"}


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            ((429, "", {"Retry-After": "30"}), OutcomeKind.THROTTLED),
            ((200, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}), OutcomeKind.THROTTLED),
            ((200, {"ok": False, "error": "invalid_auth"}, {}), OutcomeKind.PERMANENT_SENDER),
            ((200, {"ok": False, "error": "is_archived"}, {}), OutcomeKind.PERMANENT_SENDER),
            ((200, {"ok": False, "error": "msg_too_long"}, {}), OutcomeKind.REFUSED),
            ((200, {"ok": False, "error": "fatal_error"}, {}), OutcomeKind.UNKNOWN),
            ((200, "<html>a proxy</html>", {}), OutcomeKind.UNKNOWN),
            ((200, {"ok": 5}, {}), OutcomeKind.UNKNOWN),
            ((200, "{", {}), OutcomeKind.UNKNOWN),
            ((500, "", {}), OutcomeKind.UNKNOWN),
            ((503, "", {}), OutcomeKind.THROTTLED),
            ((404, "no_service", {}), OutcomeKind.PERMANENT_SENDER),
            ((400, "invalid_payload", {}), OutcomeKind.REFUSED),
            ((0, "", {}), OutcomeKind.UNKNOWN),
        ],
    )
    def test_what_slack_says_is_understood(
        self, channel: Any, workspace: Workspace, answer: Any, kind: OutcomeKind
    ) -> None:
        workspace.answers = [answer]
        (outcome,) = sent(channel, BOT)
        assert outcome.kind == kind
        if answer[2]:
            assert outcome.retry_after_seconds == 30.0

    def test_while_slack_asks_for_patience_nothing_more_is_posted(self, channel: Any, workspace: Workspace) -> None:
        workspace.answers = [(429, "", {"Retry-After": "30"})]
        posts = len(workspace.posts)
        outcomes = sent(channel, BOT, 4)
        assert [each.kind for each in outcomes] == [OutcomeKind.THROTTLED] * 4
        assert all(each.retry_after_seconds > 25 for each in outcomes)
        assert len(workspace.posts) == posts

    def test_a_post_holds_the_text_and_no_value_calls_anybody(self, channel: Any, workspace: Workspace) -> None:
        message = parse_message({"text": "*News* for {{ first_name }}: {{ unsubscribe_url }}"}, {}, "text")
        content = sample_content(channel)
        session = channel.open(BOT, type(content)(message, content.sender, content.list_id, content.bulk))
        values = {"var:first_name": "<!channel>", "var:unsubscribe_url": "https://shop.example/u/x?a=1&b=2"}
        batch = [Submission(0, "", "<r0@shop.example>", values)]
        assert [each.kind for each in session.submit(batch, WatchingJournal()) if each] == [OutcomeKind.ACCEPTED]
        session.close()
        wanted = "*News* for &lt;!channel&gt;: https://shop.example/u/x?a=1&b=2"
        assert workspace.posts[-1] == {"channel": "#news", "unfurl_links": False, "text": wanted}

    def test_a_webhook_that_the_operator_did_not_name_stops_the_send(self, channel: Any) -> None:
        (outcome,) = sent(channel, {"webhook": "nobodys"})
        assert outcome.kind is OutcomeKind.PERMANENT_SENDER
        assert "nexus.plugins.secrets" in outcome.detail


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({}, ["channel"]),
        ({"channel": "#news", "webhook": "hook"}, ["channel"]),
        ({"channel": "a b"}, ["channel"]),
        ({"webhook": "https://hooks.slack.com/services/T/B/x"}, ["webhook"]),
        ({"channel": "#news", "username": "a\nb"}, ["username"]),
    ],
)
def test_settings_that_are_wrong_are_named(settings: dict[str, str], paths: list[str], away: SlackChannel) -> None:
    with pytest.raises(ValidationError) as refused:
        away.validate(settings)
    assert [problem.path for problem in refused.value.problems] == paths


def test_what_a_person_wrote_is_no_markup() -> None:
    assert escaped("<https://evil.example|click> & <@U1>") == "&lt;https://evil.example|click&gt; &amp; &lt;@U1&gt;"
