"""The way out: HTTP to addresses that others name, without letting them into our own network (SECURITY.md S10).

A name is looked up once, every answer is checked, and the connection goes to an address that was checked, so that a
record that moves in between moves nothing. Redirects are answers, proxies of the environment are not asked, and a whole
exchange ends in time however slowly the other side drips. The libraries that connect are known to this module
and to its neighbours ``http_transport``, ``policies`` and ``sockets`` alone.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import certifi
import httpx
from ssrfguard import Policy
from ssrfguard.errors import SSRFGuardError
from ssrfguard.httpx import Client

from nexus_marketing.core.errors import HostRefused, ValidationError
from nexus_marketing.plugin.exchanges import Answer, NoAnswer, NotReached, Request
from nexus_marketing.plugin.http_transport import Deadline, Resolver, Transport, bounded
from nexus_marketing.plugin.policies import ATTEMPTS, LEADS_INSIDE, exception_for, public_only
from nexus_marketing.version import __version__

__all__ = ["ALLOW_SETTING", "Answer", "HttpClient", "HttpLimits", "NoAnswer", "NotReached", "Request", "place_of"]

ALLOW_SETTING: Final = "nexus.http.allow_hosts"

_USUAL_PORTS: Final = frozenset({80, 443, 8443})
_PORTS: Final = {"http": 80, "https": 443}
#: Names and values of headers (RFC 9110 5.1 and 5.5), without the bytes above ASCII that nobody reads alike.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}").fullmatch
_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?").fullmatch


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long and how much; ``allow_hosts`` are the operator's exceptions, ``host`` or ``host:port`` each.

    A host of these may be asked in plain HTTP, on the port that is named (else 80, 443, 8443), and lie at a private
    or loopback address; ``*.example.com`` stands for the names below it.
    """

    connect_seconds: float = 5.0
    total_seconds: float = 15.0
    max_response_bytes: int = 65_536
    allow_hosts: Sequence[str] = ()


class HttpClient:
    """Sends requests over pooled connections; any number of threads may use it at once."""

    def __init__(self, limits: HttpLimits = HttpLimits(), *, resolver: Resolver | None = None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            limits: the operator's.
            resolver: in place of ``socket.getaddrinfo``; what it answers is checked all the same.

        Raises:
            ConfigurationError: an entry of ``allow_hosts`` means nothing.
        """
        self._limits = limits
        self._deadline = Deadline()
        self._tls = ssl.create_default_context(cafile=certifi.where())
        look_up = bounded(resolver or socket.getaddrinfo, limits.connect_seconds)
        https = frozenset({"https"})
        public = public_only(_USUAL_PORTS - {80}, allowed_schemes=https)
        policies = [*map(_exception, limits.allow_hosts), public]
        self._doors = [(policy, self._client(policy, look_up)) for policy in policies]

    def check(self, url: str) -> None:
        """Say now what can be said of an address without asking anybody.

        Raises:
            HostRefused: naming what is wrong with it, and the setting that would allow it.
        """
        self._door(url)

    def send(self, request: Request, *, on_wire: Callable[[], None] = lambda: None) -> Answer:
        """One exchange, without a repetition.

        Args:
            request: where to and what.
            on_wire: called before the byte that completes the request may leave.

        Raises:
            HostRefused: the address is not one that we connect to.
            NotReached: nothing that the other side could act on has left; ``on_wire`` was not called.
            NoAnswer: it was, and no status came back in time.
            ValidationError: a header is none; its value, which may be a secret, is not said.
        """
        _check_headers(request.headers)
        client = self._door(request.url)
        trace = _Trace("send_request_body" if request.body else "send_request_headers", on_wire)
        self._deadline.until = time.monotonic() + self._limits.total_seconds
        try:
            return self._exchange(client, request, trace)
        except SSRFGuardError:  # its own words hold the whole address, and what the name server answered
            raise _refused(request.url, None, LEADS_INSIDE) from None
        except httpx.LocalProtocolError as error:
            # What the library says of a request of ours repeats it.
            raise NotReached("The request has a form in which it cannot be sent.") from error
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {error}"[:200]
            raise (NoAnswer(said) if trace.reached else NotReached(said)) from error

    def close(self) -> None:
        """Let go of the connections."""
        for _, client in self._doors:
            client.close()

    def _exchange(self, client: Client, request: Request, trace: "_Trace") -> Answer:
        headers = {"Accept-Encoding": "identity", **request.headers}
        extensions = {"trace": trace}
        with client.stream(
            request.method, request.url, content=request.body, headers=headers, extensions=extensions
        ) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, found, self._body(response))

    def _body(self, response: httpx.Response) -> bytes:
        """As much as arrives; the status is known, so that a body that breaks off changes nothing about it."""
        body = b""
        try:
            # Raw: a compressed kilobyte may be a gigabyte.
            for piece in response.iter_raw():
                body += piece
                if len(body) >= self._limits.max_response_bytes:
                    break
        except httpx.HTTPError:
            pass
        return body[: self._limits.max_response_bytes]

    def _door(self, url: str) -> Client:
        """The client of the first policy that lets the address pass, the operator's exceptions first."""
        refusal: Exception | None = None
        for policy, client in self._doors:
            try:
                policy.check_url(str(httpx.URL(url)))
            except (SSRFGuardError, httpx.InvalidURL) as error:
                refusal = error
            else:
                return client
        raise _refused(url, refusal)

    def _client(self, policy: Policy, resolver: Resolver) -> Client:
        limits = self._limits
        transport = Transport(policy, resolver, self._tls, self._deadline)
        timeout = httpx.Timeout(limits.total_seconds, connect=limits.connect_seconds / ATTEMPTS)
        return Client(
            transport=transport,
            timeout=timeout,
            headers={"User-Agent": f"nexus-marketing/{__version__}"},
            # None is kept: what one tenant's receiver sets must not reach it again in another's name.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
            follow_redirects=False,
        )


def place_of(url: str) -> tuple[str, int]:
    """The host and the port that a request to a URL goes to, as the client reads it.

    Raises:
        HostRefused: it is no URL that can be asked.
    """
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise _refused("", error) from None
    if found.scheme not in _PORTS or not found.host:
        raise _refused(url, None)
    return found.raw_host.decode("ascii").lower(), found.port or _PORTS[found.scheme]


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _NAME(name):
            said = f"{name!a:.40} is no name of a header: write letters, digits and hyphens."
            raise ValidationError.at("headers", "not_well_formed", said)
        if not _VALUE(value):
            said = f"What the header {name[:40]} holds is not printable ASCII, or begins or ends with a space."
            raise ValidationError.at(f"headers.{name[:40]}", "not_well_formed", said)


def _exception(entry: str) -> Policy:
    """What the operator lets us into: this host, by either scheme, wherever it lies."""
    return exception_for(
        entry,
        setting=ALLOW_SETTING,
        ports=_USUAL_PORTS,
        schemes=("http", "https"),
        example="hooks.internal:8080",
    )


def _refused(url: str, error: Exception | None, said: str = "it is not a URL that can be asked") -> HostRefused:
    """Which rule, and what an operator may allow; the path and the query stay unsaid, they may hold secrets."""
    try:
        host = httpx.URL(url).host or "the address"
    except httpx.InvalidURL:
        host = "the address"
    reason = getattr(error, "reason", None) or said
    return HostRefused(
        f"{host[:80]} is not connected to: only public addresses by https are, and what the operator lists in "
        f"{ALLOW_SETTING} ({reason})"
    )


class _Trace:
    """Hears the steps of an exchange, and calls once before the one that completes the request."""

    def __init__(self, step: str, on_wire: Callable[[], None]) -> None:
        self._name = f"http11.{step}.started"
        self._on_wire = on_wire
        self.reached = False

    def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        del info
        if name == self._name and not self.reached:
            self.reached = True
            self._on_wire()
