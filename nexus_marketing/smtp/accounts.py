"""What an e-mail account of a tenant is set to: who mail is from, a server of its own, and who signs it."""

import socket
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from nexus_marketing.core.errors import HostRefused, PermissionDenied, Problem, Unavailable, ValidationError
from nexus_marketing.smtp.addresses import ascii_address
from nexus_marketing.smtp.client import PoolSettings, ReplyKind
from nexus_marketing.smtp.dkim import Signer, make_signer
from nexus_marketing.smtp.handshake import Session, SetupError, TlsPolicy, try_session
from nexus_marketing.smtp.headers import check_header_value

TLS: Final[Mapping[str, TlsPolicy]] = {
    "none": TlsPolicy.NONE,
    "opportunistic": TlsPolicy.OPPORTUNISTIC,
    "starttls": TlsPolicy.REQUIRED,
    "tls": TlsPolicy.IMPLICIT,
}
_MOST_CONNECTIONS: Final = 16
_USUAL_CONNECTIONS: Final = 4
_PROBE_SECONDS: Final = 20.0
_SECRET: Final = {"secret": True}
_LINE: Final[Mapping[str, Any]] = {"type": "string", "maxlength": 998}
#: As the manifest says it; the channel itself looks at what a schema cannot say.
SCHEMA: Final[Mapping[str, Mapping[str, Any]]] = {
    "from_email": {**_LINE, "required": True},
    "from_name": _LINE,
    "reply_to": _LINE,
    "postal_address": {"type": "string", "maxlength": 2_000},
    "bounce_domain": _LINE,
    "host": {"type": "string", "maxlength": 253},
    "port": {"type": "integer", "min": 1, "max": 65_535},
    "security": {"type": "string", "allowed": list(TLS)},
    "username": _LINE,
    "password": {**_LINE, "meta": _SECRET},
    "connections": {"type": "integer", "min": 1, "max": _MOST_CONNECTIONS},
    "dkim_domain": _LINE,
    "dkim_selector": _LINE,
    "dkim_key": {"type": "string", "maxlength": 10_000, "meta": _SECRET},
}
SECRETS: Final = frozenset({"password", "dkim_key"})
IDENTITY: Final = frozenset({"from_email"})
DESTINATIONS: Final[Mapping[str, frozenset[str]]] = {"password": frozenset({"host", "port", "security"})}
_OF_SERVER: Final = ("port", "security", "username", "password", "connections")
_OF_DKIM: Final = ("dkim_domain", "dkim_selector", "dkim_key")
_ADDRESSES: Final = ("from_email", "reply_to")
_HEADERS: Final = ("from_email", "from_name", "reply_to", "bounce_domain")


class Dials(Protocol):
    """Connects to servers that tenants name, if they are not our own network's: ``nexus_marketing.plugin.sockets.Dialer``."""

    def check(self, host: str, port: int) -> None:
        """Raise ``HostRefused`` where it can be said without asking anybody."""
        ...

    def is_exception(self, host: str, port: int) -> bool:
        """Whether the operator names this server."""
        ...

    def connect(self, host: str, port: int, timeout_seconds: float) -> socket.socket:
        """A connected socket, or ``HostRefused``, or ``OSError``."""
        ...


class NoServers:
    """Where nobody can tell good servers from bad: accounts have none of their own."""

    def check(self, host: str, port: int) -> None:
        """Refuse.

        Raises:
            HostRefused: always.
        """
        raise HostRefused(f"{host[:80]}:{port} is not connected to: accounts have no servers of their own here")

    def is_exception(self, host: str, port: int) -> bool:
        """None is."""
        del host, port
        return False

    def connect(self, host: str, port: int, timeout_seconds: float) -> socket.socket:
        """Refuse.

        Raises:
            HostRefused: always.
        """
        del timeout_seconds
        self.check(host, port)
        raise AssertionError(host)


def account_problems(settings: Mapping[str, Any], dialer: Dials) -> list[Problem]:
    """Everything that is wrong with an account's settings."""
    problems = [
        Problem(name, "unknown_setting", f"{name} is no setting of e-mail: use {', '.join(SCHEMA)}.")
        for name in settings.keys() - SCHEMA.keys()
    ]
    if not settings.get("from_email"):
        problems.append(Problem("from_email", "required", "The address that mail comes from is required."))
    problems += [problem for name in _HEADERS for problem in _header_problems(name, str(settings.get(name) or ""))]
    problems += _server_problems(settings, dialer) if settings.get("host") else _without_server(settings)
    return problems + _dkim_problems(settings)


def _header_problems(name: str, value: str) -> list[Problem]:
    if name in _ADDRESSES and value:
        return _said(lambda: ascii_address(value, path=name))
    problems = _said(lambda: check_header_value(name, value))
    if name == "bounce_domain" and value and not problems:
        return _said(lambda: ascii_address(f"bounce@{value}", path=name))
    return problems


def _without_server(settings: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(name, "needs_host", f"{name} is of a server of the account's own: set host too, or leave it out.")
        for name in _OF_SERVER
        if settings.get(name)
    ]


def _server_problems(settings: Mapping[str, Any], dialer: Dials) -> list[Problem]:
    problems: list[Problem] = []
    security, host, port = str(settings.get("security") or "starttls"), str(settings["host"]), port_of(settings)
    if security not in TLS:
        problems.append(Problem("security", "not_allowed", f"{security[:40]!r} is none of {', '.join(TLS)}."))
    if not isinstance(port, int) or not 0 < port < 65_536:
        problems.append(Problem("port", "not_a_port", f"{str(port)[:40]!r} is no port from 1 to 65535."))
        return problems
    try:
        dialer.check(host, port)
    except HostRefused as error:
        problems.append(Problem("host", error.code, f"{error.message}."))
    if bool(settings.get("username")) != bool(settings.get("password")):
        missing = "password" if settings.get("username") else "username"
        problems.append(Problem(missing, "required", "A login has a username and a password: set both, or neither."))
    in_the_clear = security in ("none", "opportunistic") and not dialer.is_exception(host, port)
    if settings.get("username") and in_the_clear:
        said = "A password does not travel in the clear: use starttls or tls."
        problems.append(Problem("security", "password_in_the_clear", said))
    return problems


def _dkim_problems(settings: Mapping[str, Any]) -> list[Problem]:
    given = [name for name in _OF_DKIM if settings.get(name)]
    if not given:
        return []
    missing = [name for name in _OF_DKIM if name not in given]
    if missing:
        return [Problem(name, "required", f"Signing needs {', '.join(_OF_DKIM)}.") for name in missing]
    domain = str(settings["dkim_domain"]).lower()
    sender = str(settings.get("from_email") or "").rpartition("@")[2].lower()
    if sender != domain and not sender.endswith(f".{domain}"):
        said = f"Receivers want the domain that mail comes from, {sender!a:.80}, or one above it (RFC 7489 3.1.1)."
        return [Problem("dkim_domain", "not_aligned", said)]
    return _said(lambda: signer_of(settings))


def _said(step: Callable[[], object]) -> list[Problem]:
    try:
        step()
    except ValidationError as error:
        return list(error.problems)
    return []


def port_of(settings: Mapping[str, Any]) -> Any:
    """The server's port: where none is set, the one that its kind of TLS has."""
    return settings.get("port") or (465 if settings.get("security") == "tls" else 587)


def signer_of(settings: Mapping[str, Any]) -> Signer | None:
    """What signs an account's mail; nothing where it is not signed here.

    Raises:
        ValidationError: the key, or what it is for, is none.
    """
    if not settings.get("dkim_key"):
        return None
    return _signer(*(str(settings.get(name) or "") for name in _OF_DKIM))


@lru_cache(maxsize=64)
def _signer(domain: str, selector: str, key: str) -> Signer:
    """Reading a key costs as much as signing with it."""
    return make_signer(domain, selector, key)


def server_of(settings: Mapping[str, Any], usual: PoolSettings, dialer: Dials) -> PoolSettings:
    """The server of an account, the installation's where it has none of its own."""
    host = settings.get("host")
    if not host:
        return usual
    wanted = int(settings.get("connections") or _USUAL_CONNECTIONS)
    return PoolSettings(
        host=str(host),
        port=int(port_of(settings)),
        # More than the channel promised would be more without an answer than the journal has room for.
        connections=max(1, min(wanted, usual.connections)),
        tls=TLS[str(settings.get("security") or "starttls")],
        username=str(settings.get("username") or ""),
        password=str(settings.get("password") or ""),
        connect_timeout_seconds=usual.connect_timeout_seconds,
        reply_timeout_seconds=usual.reply_timeout_seconds,
        give_up_seconds=usual.give_up_seconds,
        local_hostname=usual.local_hostname,
        ssl_context=usual.ssl_context,
        dial=dialer.connect,
    )


def probe(server: PoolSettings) -> None:
    """Connect, log in and part; ends in time however slowly the other side speaks.

    Raises:
        Unavailable: it cannot be reached now.
        PermissionDenied: it refuses these settings, or we refuse the server.
    """
    opened = _Opening(server)
    opened.done.wait(_PROBE_SECONDS)
    opened.give_up()
    if opened.error is not None:
        code = f"{opened.error.code} " if opened.error.code else ""
        said = f"{server.host}:{server.port}: {code}{opened.error.text}"
        raise (PermissionDenied if opened.error.kind is ReplyKind.PERMANENT_SENDER else Unavailable)(said)
    if opened.session is None:
        raise Unavailable(f"{server.host}:{server.port} did not greet and log in within {_PROBE_SECONDS:.0f} s.")


class _Opening:
    """A connection that is being set up in a thread of its own, and closed whenever that ends."""

    def __init__(self, server: PoolSettings) -> None:
        self.session: Session | None = None
        self.error: SetupError | None = None
        self.done = threading.Event()
        self._server = server
        self._lock = threading.Lock()
        self._is_over = False
        threading.Thread(target=self._open, name="smtp-probe", daemon=True).start()

    def give_up(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._is_over = True
            if self.session is not None:
                _part(self.session.sock)

    def _open(self) -> None:
        found = try_session(self._server)
        if isinstance(found, SetupError):
            self.error = found
        else:
            with self._lock:
                if self._is_over:
                    _part(found.sock)
                else:
                    self.session = found
        self.done.set()


def _part(sock: socket.socket) -> None:
    try:
        sock.send(b"QUIT\r\n")
    except OSError:
        pass  # it is gone already
    finally:
        sock.close()
