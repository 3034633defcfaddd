"""The way out: what is refused is never connected to, and no exchange takes longer or brings more than it may."""

import gzip
import ipaddress
import socket
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ConfigurationError, HostRefused, ValidationError
from nexus_marketing.plugin.http import Answer, HttpClient, HttpLimits, NoAnswer, NotReached, Request
from tests.contract.channels.servers import HttpServer, Reply

pytestmark = [
    pytest.mark.req("S10", "SR-004", "FR-P2-009"),
    # Servers that hang up or stall leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

PUBLIC = HttpClient()
NOW = datetime(2026, 11, 2, 10, tzinfo=UTC)


@pytest.fixture
def connected(monkeypatch) -> list[object]:
    """Every address that a socket was asked to connect to."""
    found: list[object] = []
    usual = socket.socket

    class Watched(usual):  # type: ignore[misc, valid-type]
        def connect(self, address):
            found.append(address)
            return super().connect(address)

    monkeypatch.setattr(socket, "socket", Watched)
    return found


def resolving(*answers: str):
    """A name server's answers, whatever it is asked; the last one stays."""
    left = list(answers)

    def look_up(host, port, *_):
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = (left.pop(0) if len(left) > 1 else left[0]).split()
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    return look_up


#: Of public lists of SSRF payloads, and one for each range that is nobody's to ask.
FORBIDDEN = [
    "https://169.254.169.254/latest/meta-data/",
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://192.0.0.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.0.0.1./",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://public.example@127.0.0.1/",
    "https://127.0.0.1#@public.example/",
    "https://user:password@public.example/",
    "https://127.0.0.1\\@public.example/",
    "https://public.example:22/",
    "https://public.example:6379/",
    "http://public.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:25/_HELO",
    "https:///",
    "//public.example/",
    "https://public.example\r\n.internal/",
    "",
]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_nothing_leaves_for_a_forbidden_address(url, connected, make_client):
    client = make_client(resolver=resolving("127.0.0.1"))
    with pytest.raises(HostRefused) as refused:
        client.send(Request("POST", url, body=b"x"))
    assert "nexus.http.allow_hosts" in refused.value.message
    assert "password" not in refused.value.message
    assert connected == []


@pytest.mark.parametrize(
    "answer",
    ["10.0.0.5", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.5", "fd00::1", "93.184.216.34 10.0.0.5"],
)
def test_a_name_that_leads_inside_is_not_connected_to(answer, connected, make_client):
    client = make_client(resolver=resolving(answer))
    client.check("https://public.example/hook")
    with pytest.raises(HostRefused, match=r"public\.example is not connected to"):
        client.send(Request("POST", "https://public.example/hook", body=b"x"))
    assert connected == []


def test_a_name_that_moves_between_look_ups_moves_nothing(connected, make_client):
    """DNS rebinding: public at first, 127.0.0.1 ever after. One look-up a connection, and each answer is checked."""
    client = make_client(resolver=resolving("93.184.216.34", "127.0.0.1"))
    for expected in (NotReached, HostRefused, HostRefused):
        with pytest.raises((expected, AssertionError)):
            client.send(Request("POST", "https://public.example/", body=b"x"))
    assert {address for address, *_ in connected} <= {"93.184.216.34"}


RANGES = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::1/128",
    "::ffff:10.0.0.0/104",
    "64:ff9b::a00:0/104",
    "2002:a00::/24",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
]


@given(st.sampled_from(RANGES).flatmap(lambda network: st.ip_addresses(network=network)))
def test_no_address_of_a_closed_range_is_let_pass(address):
    shown = f"[{address}]" if address.version == 6 else address
    with pytest.raises(HostRefused):
        PUBLIC.check(f"https://{shown}/")


def test_the_environments_proxy_is_not_asked(monkeypatch, make_client):
    with HttpServer() as proxy, HttpServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert make_client(server).send(Request("GET", server.url)).status == 200
        assert (proxy.connections, len(server.heard)) == (0, 1)


class TestExceptions:
    """What an operator lists, and no more than that."""

    def test_a_listed_host_is_asked_in_plain_http(self, make_client):
        with HttpServer([Reply(201, b"hello", {"X-Answer": "yes"})]) as server:
            answer = make_client(server).send(Request("POST", f"{server.url}/a?b=c", {"X-Test": "1"}, b"body"))
        assert (answer.status, answer.body, answer.headers["x-answer"]) == (201, b"hello", "yes")
        (heard,) = server.heard
        assert (heard.method, heard.path, heard.body, heard.headers["x-test"]) == ("POST", "/a?b=c", b"body", "1")

    def test_another_port_of_it_is_not(self, make_client):
        with HttpServer() as server, HttpServer() as other:
            with pytest.raises(HostRefused):
                make_client(server).send(Request("GET", other.url))
            assert other.connections == 0

    def test_ports_belong_to_their_hosts(self, make_client):
        client = make_client("127.0.0.1:7001", "hooks.internal:7002")
        client.check("http://127.0.0.1:7001/")
        client.check("http://hooks.internal:7002/")
        for url in ("http://127.0.0.1:7002/", "http://hooks.internal:7001/", "http://hooks.internal/"):
            with pytest.raises(HostRefused):
                client.check(url)

    def test_names_below_a_name(self, make_client):
        client = make_client("*.svc.internal", "[::1]:8081")
        client.check("http://[::1]:8081/")
        client.check("http://a.svc.internal/")
        for url in ("http://svc.internal/", "http://asvc.internal/", "http://svc.internal.example/"):
            with pytest.raises(HostRefused):
                client.check(url)

    def test_a_listed_name_may_lead_to_private_addresses_but_to_no_metadata(self, connected, make_client):
        with HttpServer() as server:
            listed = f"hooks.internal:{server.port}"
            url = f"http://hooks.internal:{server.port}/"
            assert make_client(listed, resolver=resolving("127.0.0.1")).send(Request("GET", url)).status == 200
            connected.clear()
            for answer in ("169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1"):
                with pytest.raises(HostRefused):
                    make_client(listed, resolver=resolving(answer)).send(Request("GET", url))
            assert connected == []

    @pytest.mark.parametrize("entry", ["", "a b", "http://x", "x/y", "u@x", "x:99999", "x:port", "*", "a.*.b", "[::1"])
    def test_an_entry_that_is_no_host_stops_the_start(self, entry):
        with pytest.raises(ConfigurationError, match=r"nexus\.http\.allow_hosts"):
            HttpClient(HttpLimits(allow_hosts=[entry]))


def test_a_redirect_is_an_answer(connected, make_client):
    with HttpServer() as inside:
        for target in (inside.url, "http://169.254.169.254/", "/again"):
            with HttpServer([Reply(307, headers={"Location": target})]) as server:
                answer = make_client(server).send(Request("POST", server.url, body=b"x"))
                assert (answer.status, len(server.heard)) == (307, 1)
        assert inside.connections == 0
    assert len(connected) == 3


def test_no_cookie_is_kept(make_client):
    with HttpServer(usual=Reply(200, headers={"Set-Cookie": "tenant=a; Path=/"})) as server:
        client = make_client(server)
        for _ in range(2):
            client.send(Request("POST", server.url, body=b"x"))
    assert [heard.headers.get("cookie") for heard in server.heard] == [None, None]
    assert server.heard[0].headers["user-agent"].startswith("nexus-marketing/")


class TestBounds:
    def test_a_large_answer_is_cut(self, make_client):
        with HttpServer([Reply(200, b"x" * 5_000_000)]) as server:
            answer = make_client(server, max_response_bytes=1000).send(Request("GET", server.url))
        assert (answer.status, len(answer.body)) == (200, 1000)

    def test_a_compressed_answer_stays_compressed(self, make_client):
        packed = gzip.compress(bytes(10_000_000))
        with HttpServer([Reply(200, packed, {"Content-Encoding": "gzip"})]) as server:
            answer = make_client(server).send(Request("GET", server.url))
        assert answer.body == packed
        assert server.heard[0].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        "reply",
        [Reply(delay_seconds=20), Reply(drip_seconds=0.1), Reply(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000)],
    )
    def test_a_slow_answer_ends_in_time(self, reply, make_client):
        wired = []
        with HttpServer([reply]) as server:
            began = time.monotonic()
            with pytest.raises(NoAnswer):
                make_client(server, total_seconds=0.5).send(
                    Request("POST", server.url, body=b"x"), on_wire=lambda: wired.append(1)
                )
            assert time.monotonic() - began < 2
        assert wired == [1]

    def test_a_body_that_drips_is_cut_in_time_and_its_status_stands(self, make_client):
        head = b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000\r\n\r\npart"
        with HttpServer([Reply(raw=head)]) as server:
            assert make_client(server).send(Request("GET", server.url)) == Answer(
                202, {"content-length": "1000"}, b"part"
            )

    def test_a_name_server_that_never_answers_is_not_waited_for(self, make_client):
        client = make_client(connect_seconds=0.2, resolver=lambda *_: time.sleep(2))
        began = time.monotonic()
        with pytest.raises(NotReached):
            client.send(Request("GET", "https://public.example/"))
        assert time.monotonic() - began < 1.5


class TestOnTheWire:
    """Whether a request may have arrived is told apart from whether it has."""

    def test_a_port_where_nobody_listens(self, free_port, make_client):
        wired = []
        client = make_client(f"127.0.0.1:{free_port}")
        with pytest.raises(NotReached):
            client.send(Request("POST", f"http://127.0.0.1:{free_port}/", body=b"x"), on_wire=lambda: wired.append(1))
        assert wired == []

    def test_a_server_that_speaks_no_tls(self, make_client):
        wired = []
        with HttpServer() as server, pytest.raises(NotReached):
            url = server.url.replace("http:", "https:")
            make_client(server).send(Request("POST", url, body=b"x"), on_wire=lambda: wired.append(1))
        assert wired == []

    def test_a_header_that_cannot_be_sent(self, make_client):
        wired = []
        with HttpServer() as server, pytest.raises(ValidationError, match=r"headers\.X-Test"):
            request = Request("POST", server.url, {"X-Test": "a\r\nX-More: b"}, b"x")
            make_client(server).send(request, on_wire=lambda: wired.append(1))
        assert (wired, server.heard) == ([], [])

    @pytest.mark.parametrize(
        "reply", [Reply(hang_up="after"), Reply(raw=b"hello\r\n"), Reply(raw=b"HTTP/1.1 2"), Reply(raw=b"")]
    )
    def test_no_answer_to_a_whole_request(self, reply, make_client):
        wired = []
        with HttpServer([reply]) as server, pytest.raises(NoAnswer):
            make_client(server).send(Request("POST", server.url, body=b"x"), on_wire=lambda: wired.append(1))
        assert (wired, len(server.heard)) == ([1], 1)

    def test_it_is_told_before_the_request_is_complete(self, make_client):
        wired, seen = [], []
        with HttpServer(on_heard=lambda _: seen.append(list(wired))) as server:
            client = make_client(server)
            client.send(Request("POST", server.url, body=b"x"), on_wire=lambda: wired.append("post"))
            client.send(Request("GET", server.url), on_wire=lambda: wired.append("get"))
        assert seen == [["post"], ["post", "get"]]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("99999999999999999999", 86_400.0),
        ("Mon, 02 Nov 2026 10:01:00 GMT", 60.0),
        ("Mon, 02 Nov 2026 09:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("１２", None),
        ("Mon, 02 Nov 2026", None),
    ],
)
def test_retry_after_in_both_forms(text, seconds):
    assert Answer(503, {"retry-after": text}, b"").retry_after_seconds(NOW) == seconds
