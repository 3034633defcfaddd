"""``ctx.http``: what is not granted is never asked, secrets are filled in on the way out, and limits hold."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.config import rehearse
from nexus_marketing.core.errors import ConfigurationError, HostRefused, NexusError, ValidationError
from nexus_marketing.plugin import Answer, Capability, NotGranted, OverRate, Request
from nexus_marketing.plugin.granted import Grant, GrantedHttp, grant_for
from nexus_marketing.plugin.http import HttpClient, HttpLimits
from nexus_marketing.settings import PluginSettings, Settings
from tests.common.plugins import manifest
from tests.contract.channels.servers import HttpServer

pytestmark = [
    pytest.mark.req("S10", "SR-004", "FR-EXT-001"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


class Asked:
    """A way out that remembers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def check(self, url: str) -> None:
        """Every address will do."""

    def send(self, request: Request, *, on_wire: Any = None) -> Answer:
        del on_wire
        self.requests.append(request)
        return Answer(200, {}, b"")


def way(*hosts: str, now: Any = lambda: 0.0, **values: Any) -> tuple[GrantedHttp, Asked]:
    asked = Asked()
    return GrantedHttp("nexus-x", Grant(hosts, **values), lambda: asked, now), asked


@pytest.mark.parametrize(
    ("grant", "url"),
    [
        ("slack.com", "https://slack.com/api"),
        ("slack.com", "https://SLACK.com:8443/api"),
        ("*.slack.com", "https://hooks.slack.com/x"),
        ("local.example:8065", "http://local.example:8065/x"),
    ],
)
def test_what_is_granted_is_asked(grant: str, url: str) -> None:
    http, asked = way(grant)
    http.check(url)
    assert http.send(Request("GET", url)).status == 200
    assert [each.url for each in asked.requests] == [url]


@pytest.mark.parametrize(
    ("grant", "url"),
    [
        ("slack.com", "https://evil.com/slack.com"),
        ("slack.com", "https://slack.com@evil.com/"),
        ("slack.com", "https://slack.com.evil.com/"),
        ("slack.com", "https://notslack.com/"),
        ("slack.com", "https://slack.com:22/"),
        ("slack.com", "https://slack.com./"),
        ("*.slack.com", "https://slack.com/"),
        ("*.slack.com", "https://.slack.com/"),
        ("local.example:8065", "http://local.example/"),
        ("slack.com", "ftp://slack.com/"),
        ("slack.com", "not a url"),
        ("slack.com", "https://[::1"),
        ("slack.com", ""),
    ],
)
def test_what_is_not_granted_is_refused_with_the_setting(grant: str, url: str) -> None:
    http, asked = way(grant)
    with pytest.raises(HostRefused) as refused:
        http.check(url)
    if isinstance(refused.value, NotGranted):
        assert "nexus.plugins.grants" in refused.value.message
    with pytest.raises(HostRefused):
        http.send(Request("GET", url))
    assert asked.requests == []


def test_a_granted_host_at_a_private_address_is_still_the_guards_to_refuse() -> None:
    client = HttpClient(HttpLimits())
    http = GrantedHttp("nexus-x", Grant(("169.254.169.254", "127.0.0.1")), lambda: client, lambda: 0.0)
    for url in ("https://169.254.169.254/latest/meta-data/", "https://127.0.0.1/"):
        with pytest.raises(HostRefused, match=r"nexus\.http\.allow_hosts"):
            http.send(Request("GET", url))
    client.close()


def test_secrets_are_filled_in_on_the_way_out_and_are_not_shown() -> None:
    http, asked = way("slack.com", secrets={"token": "xoxb-1", "hook": "https://slack.com/services/T/B/x"})
    http.send(Request("POST", "{secret:hook}", {"Authorization": "Bearer {secret:token}"}, b"{secret:token}"))
    (sent,) = asked.requests
    assert (sent.url, sent.headers) == ("https://slack.com/services/T/B/x", {"Authorization": "Bearer xoxb-1"})
    assert sent.body == b"{secret:token}"
    with pytest.raises(NotGranted, match=r"has no secret 'other': write nexus-x:other=VALUE into nexus.plugins.secret"):
        http.send(Request("GET", "https://slack.com/{secret:other}"))
    assert "xoxb" not in repr(http) + repr(Grant((), {"a": "xoxb"})) + repr(PluginSettings(secrets=("x:a=xoxb",)))


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://{secret:token}.evil.example/", {}),
        ("https://evil.example@{secret:token}/", {}),
        ("{secret:token}.evil.example/", {}),
        ("{secret:hook}.evil.example/", {}),
        ("https://slack.com/", {"x": "{secret:token}\n"}),
        ("https://slack.com/", {"x": " {secret:token}"}),
        ("https://slack.com/", {"x": "{secret:token}\u00e9"}),
        ("https://slack.com/", {"x\u00e9": "{secret:token}"}),
        ("https://slack.com/\n{secret:token}", {}),
    ],
)
def test_no_refusal_says_a_secret(url: str, headers: dict[str, str]) -> None:
    """What is refused is told to the plugin, which must not learn a secret by being refused."""
    with HttpServer() as server:
        nowhere = [(2, 1, 6, "", ("127.0.0.1", server.port))]
        limits = HttpLimits(allow_hosts=("slack.com", "*.example"))
        client = HttpClient(limits, resolver=lambda *_: nowhere)
        grant = Grant(("slack.com",), {"token": "c4nary-815", "hook": "https://c4nary-815"})
        http = GrantedHttp("nexus-x", grant, lambda: client, lambda: 0.0)
        for scheme in ("https", "http"):
            with pytest.raises(NexusError) as refused:
                http.send(Request("GET", url.replace("https://slack.com", f"{scheme}://slack.com"), headers))
            assert "c4nary" not in f"{refused.value!r} {refused.value.message} {refused.value.problems}".lower()
        client.close()
    assert server.heard == []


def test_no_refusal_of_a_request_says_what_is_in_it() -> None:
    with HttpServer() as server:
        client = HttpClient(HttpLimits(allow_hosts=(server.allowed,)))
        for value in ("c4nary-815\n", "c4nary-815\u00e9", "c4nary-815\x00"):
            with pytest.raises(ValidationError, match=r"headers\.x") as refused:
                client.send(Request("GET", server.url, {"x": value}))
            assert "c4nary" not in str(refused.value)
        client.close()
    assert server.heard == []


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (Request("CONNECT", "https://slack.com/"), "method"),
        (Request("POST", "https://slack.com/", {}, b"x" * 1_000_001), "body"),
        (Request("GET", "https://slack.com/", {"Host": "internal"}), "headers.Host"),
        (Request("GET", "https://slack.com/", {"Transfer-Encoding": "chunked"}), "headers.Transfer-Encoding"),
        (Request("GET", "https://slack.com/", {f"x-{number}": "1" for number in range(65)}), "headers"),
    ],
)
def test_what_is_not_the_plugins_to_say_is_refused(request_: Request, path: str) -> None:
    http, asked = way("slack.com")
    with pytest.raises(ValidationError) as refused:
        http.send(request_)
    assert [problem.path for problem in refused.value.problems] == [path]
    assert asked.requests == []


@given(gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=60), rate=st.integers(1, 9))
def test_no_second_has_more_requests_than_two_seconds_worth(gaps: list[float], rate: int) -> None:
    now = [0.0]
    http, asked = way("slack.com", now=lambda: now[0], requests_per_second=float(rate))
    moments, waits = [], []
    for gap in gaps:
        now[0] += gap
        try:
            http.send(Request("GET", "https://slack.com/"))
        except OverRate as error:
            waits.append(error.retry_after_seconds)
        else:
            moments.append(now[0])
    assert len(asked.requests) == len(moments)
    assert all(0 < each <= 1.0 / rate + 1e-6 for each in waits)
    for first in moments:
        assert sum(first <= each <= first + 1 for each in moments) <= 2 * rate


def test_who_says_what_a_plugin_may_ask() -> None:
    settings = PluginSettings(grants=("nexus-a:one.example", "nexus-a:two.example:81"), secrets=("nexus-a:t=a=b",))
    asks = ("asked.example",)
    assert grant_for("nexus-a", asks, settings, is_trusted=True).hosts == ("one.example", "two.example:81")
    assert grant_for("nexus-a", asks, settings, is_trusted=False).secrets == {"t": "a=b"}
    assert grant_for("nexus-b", asks, settings, is_trusted=True).hosts == asks
    assert grant_for("nexus-b", asks, settings, is_trusted=False).hosts == ()
    assert grant_for("nexus-b", asks, settings, is_trusted=False).secrets == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grants", "nexus-a:http://x/"),
        ("grants", "nexus-a"),
        ("secrets", "nexus-a:token"),
        ("memory_mb", "10"),
        ("call_seconds", "60"),
        ("requests_per_second", "0"),
    ],
)
def test_settings_that_mean_nothing_stop_the_boot_and_show_no_secret(key: str, value: str) -> None:
    base = {"nexus.database_url": "sqlite:///x", "nexus.secret_key": "x" * 40}
    with pytest.raises(ConfigurationError, match=f"nexus.plugins.{key}") as refused:
        Settings.parse({**base, f"nexus.plugins.{key}": value})
    assert key != "secrets" or value not in refused.value.message


@pytest.fixture
def provider() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


def test_an_include_is_given_its_way_out_and_its_own_settings(provider: HttpServer) -> None:
    given: list[Any] = []

    def include(config: Any) -> None:
        given.append(config.add_marketing_plugin(manifest("nexus-x", Capability.CHANNEL, hosts=(provider.allowed,))))

    settings = {"nexus-x.team": "T1", "nexus.secret_key": "s", "nexus.http.allow_hosts": provider.allowed}
    registry = rehearse(settings, include)
    (ctx,) = given
    assert (ctx.name, ctx.settings) == ("nexus-x", {"team": "T1"})
    assert ctx.http.send(Request("POST", provider.url, {}, b"x")).status == 200
    assert provider.heard[0].body == b"x"
    registry.close()


def test_a_manifest_that_asks_for_no_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"asks for the host 'https://x/', which is none"):
        rehearse({}, lambda config: config.add_marketing_plugin(manifest("nexus-x", hosts=("https://x/",))))
