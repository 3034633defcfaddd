"""``ctx.http``: a plugin's way out, as far as the operator grants it (DESIGN.md §6).

What is granted is asked through the guard of :mod:`nexus_marketing.plugin.http`; the rest is refused before a name is
looked up. The plugin writes ``{secret:NAME}`` in the place of an address, into its path or query or into a header, and the
host puts the secret in its place in what leaves, so that neither side of the sandbox ever sees one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from nexus_marketing.core.errors import HostRefused, ValidationError
from nexus_marketing.plugin.exchanges import Answer, Http, NotGranted, OverRate, Request
from nexus_marketing.settings import PluginSettings

GRANTS_SETTING: Final = "nexus.plugins.grants"
SECRETS_SETTING: Final = "nexus.plugins.secrets"
MAX_REQUEST_BYTES: Final = 1_000_000
_MAX_HEADERS: Final = 64
#: The usual ports of a host that is granted without one.
_PORTS: Final = frozenset({80, 443, 8443})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
#: What these say is the client's to say: a Host of its own would reach what was not granted.
_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"}
)
_SECRET: Final = re.compile(r"\{secret:([a-z][a-z0-9_]{0,39})\}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one plugin may do: hosts as in ``nexus.plugins.grants``, secrets by name."""

    hosts: Sequence[str] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    requests_per_second: float = 50.0


def grant_for(plugin: str, asked: Sequence[str], settings: PluginSettings, *, is_trusted: bool) -> Grant:
    """What the operator grants to a plugin.

    Args:
        plugin: its name.
        asked: the hosts that its manifest names: a trusted one may ask them where the operator says nothing else.
        settings: the operator's.
        is_trusted: whether it runs in our process.
    """
    said = [host for name, _, host in (each.partition(":") for each in settings.grants) if name == plugin]
    mine = [rest for name, _, rest in (each.partition(":") for each in settings.secrets) if name == plugin]
    hosts = said or (list(asked) if is_trusted else [])
    secrets = dict(each.split("=", 1) for each in mine)
    return Grant(tuple(each.lower() for each in hosts), secrets, settings.requests_per_second)


class GrantedHttp:
    """The way out of one plugin; any number of threads may use it at once."""

    def __init__(self, plugin: str, grant: Grant, client: Callable[[], Http], now_seconds: Callable[[], float]) -> None:
        """Prepare.

        Args:
            plugin: for people.
            grant: what it may do.
            client: the guarded way out, made when it is first needed: it loads much.
            now_seconds: a clock that never goes back.
        """
        self._plugin = plugin
        self._grant = grant
        self._client = client
        self._now = now_seconds
        self._lock = Lock()
        self._seconds_each = 1.0 / grant.requests_per_second
        #: When the last of all requests so far would have left, had they come evenly.
        self._paid_until = float("-inf")

    def check(self, url: str) -> None:
        """Whether this address may be asked.

        Raises:
            NotGranted: the operator has not granted it.
            HostRefused: the guard does not let it pass.
        """
        self._client().check(self._granted(url))

    def send(self, request: Request, *, on_wire: Callable[[], None] = lambda: None) -> Answer:
        """One exchange, as :class:`nexus_marketing.plugin.Http` says.

        Raises:
            NotGranted: the host or a secret is not granted.
            OverRate: the plugin asks too often; a second's worth of requests may come at once.
            ValidationError: the request is too large, or holds what is not the plugin's to say.
        """
        self._check_form(request)
        url = self._granted(request.url)
        headers = {name: self._filled(value) for name, value in request.headers.items()}
        self._pay()
        return self._client().send(Request(request.method, url, headers, request.body), on_wire=on_wire)

    def _check_form(self, request: Request) -> None:
        if request.method not in _METHODS:
            said = f"{request.method!a:.20} is no method that plugins use: write {', '.join(sorted(_METHODS))}."
            raise ValidationError.at("method", "not_allowed", said)
        if len(request.body) > MAX_REQUEST_BYTES:
            said = f"{len(request.body)} bytes are more than a plugin may send at once ({MAX_REQUEST_BYTES})."
            raise ValidationError.at("body", "too_large", said)
        if len(request.headers) > _MAX_HEADERS:
            raise ValidationError.at("headers", "too_many", f"More than {_MAX_HEADERS} headers: send fewer.")
        theirs = sorted(name for name in request.headers if name.strip().lower() in _OURS)
        if theirs:
            said = f"The header {theirs[0]} is the client's to write: leave it out."
            raise ValidationError.at(f"headers.{theirs[0]}", "not_allowed", said)

    def _filled(self, text: str) -> str:
        def fill(match: re.Match[str]) -> str:
            try:
                return self._grant.secrets[match[1]]
            except KeyError:
                said = f"write {self._plugin}:{match[1]}=VALUE into {SECRETS_SETTING}"
                raise NotGranted(f"{self._plugin} has no secret {match[1]!r}: {said}.") from None

        return _SECRET.sub(fill, text)

    def _granted(self, url: str) -> str:
        """The address with its secrets.

        One that begins with a secret is the operator's whole address. In any other, where it leads is read before the
        secrets are in it, and no refusal says what they are.
        """
        filled = self._filled(url)
        whose = _SECRET.match(url)
        host, port = self._place(filled if whose else url, f"what its secret {whose[1]} holds" if whose else "")
        if self._place(filled, "what its secrets make of it") != (host, port):
            raise NotGranted(
                f"{self._plugin} may not ask {host[:80]} so: a secret is no part of where an address leads."
            )
        return filled

    def _place(self, url: str, shown: str) -> tuple[str, int]:
        """Where an address leads, if that is granted; refusals name ``shown`` in place of the host."""
        from nexus_marketing.plugin.http import place_of  # noqa: PLC0415 - loads the HTTP client

        try:
            host, port = place_of(url)
        except HostRefused as error:
            raise NotGranted(f"{self._plugin} may not ask {shown}: it is no URL.") if shown else error from None
        if not any(_covers(each, host, port) for each in self._grant.hosts):
            asked = shown or (host if port in _PORTS else f"{host}:{port}")
            granted = ", ".join(self._grant.hosts) or "none is"
            said = f"write {self._plugin}:{'HOST' if shown else asked} into {GRANTS_SETTING} (granted: {granted})"
            raise NotGranted(f"{self._plugin} may not ask {asked[:80]}: {said}.")
        return host, port

    def _pay(self) -> None:
        """A bucket that holds a second's worth of requests."""
        with self._lock:
            now = self._now()
            paid = max(self._paid_until, now - 1.0) + self._seconds_each
            if paid > now + 1e-9:
                rate = f"{self._grant.requests_per_second:g} requests a second (nexus.plugins.requests_per_second)"
                raise OverRate(f"{self._plugin} asks more than {rate}.", retry_after_seconds=paid - now)
            self._paid_until = paid


def _covers(grant: str, host: str, port: int) -> bool:
    name, _, wanted = grant.partition(":")
    if wanted != str(port) and (wanted or port not in _PORTS):
        return False
    return host.endswith(name[1:]) and host[0] != "." if name.startswith("*.") else host == name
