"""Connections to servers that a tenant names, other than by HTTP: to public addresses at usual ports (SECURITY.md S10).

As in :mod:`nexus_marketing.plugin.http` a name is looked up once, every answer is checked, and the connection goes to an
address that was checked.
"""

import re
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import TimeoutError as LookUpTimeout

from ssrfguard import Policy, Target, connect, resolve
from ssrfguard.errors import SSRFGuardError

from nexus_marketing.core.errors import HostRefused
from nexus_marketing.plugin.http_transport import Resolver, bounded
from nexus_marketing.plugin.policies import LEADS_INSIDE, exception_for, public_only

_LOOK_UP_SECONDS = 5.0
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}").fullmatch


class Dialer:
    """Opens sockets; any number of threads may use it at once.

    Args:
        setting: of the ini file, where the operator lists exceptions.
        allow_hosts: those, ``host`` or ``host:port`` each.
        ports: that are usual.
        resolver: in place of ``socket.getaddrinfo``; what it answers is checked all the same.

    Raises:
        ConfigurationError: an exception means nothing.
    """

    def __init__(
        self, setting: str, allow_hosts: Sequence[str], ports: Collection[int], *, resolver: Resolver | None = None
    ) -> None:
        self._setting = setting
        self._ports = sorted(ports)
        example = f"relay.internal:{self._ports[0]}"
        self._exceptions = [exception_for(each, setting=setting, ports=ports, example=example) for each in allow_hosts]
        self._public = public_only(ports)
        self._look_up = bounded(resolver or socket.getaddrinfo, _LOOK_UP_SECONDS)

    def check(self, host: str, port: int) -> None:
        """Say now what can be said of a server without asking anybody.

        Raises:
            HostRefused: naming what is wrong with it, and the setting that would allow it.
        """
        self._door(host, port)

    def is_exception(self, host: str, port: int) -> bool:
        """Whether the operator names this server."""
        try:
            return self._door(host, port)[0] is not self._public
        except HostRefused:
            return False

    def connect(self, host: str, port: int, timeout_seconds: float) -> socket.socket:
        """A connected socket.

        Raises:
            HostRefused: it is not one that we connect to, by its name or by what the name means now.
            OSError: it does not answer.
        """
        policy, target = self._door(host, port)
        try:
            addresses = resolve(target, policy=policy, resolver=self._look_up)
            return connect(addresses, policy=policy, timeout=timeout_seconds)
        except SSRFGuardError:
            raise self._refused(host, port, None, LEADS_INSIDE) from None
        except LookUpTimeout:
            raise TimeoutError(f"{host[:80]} was not found within {_LOOK_UP_SECONDS:.0f} s") from None

    def _door(self, host: str, port: int) -> tuple[Policy, Target]:
        """The first policy that lets the server pass, the operator's exceptions first."""
        refusal: SSRFGuardError | None = None
        # A host is nothing more than that: what a URL would read as its end or as a login is no part of one.
        for policy in (*self._exceptions, self._public) if _HOST(host) else ():
            try:
                return policy, policy.check_url(f"https://{f'[{host}]' if ':' in host else host}:{port}/")
            except SSRFGuardError as error:
                refusal = error
        raise self._refused(host, port, refusal)

    def _refused(self, host: str, port: int, error: SSRFGuardError | None, said: str = "it is no host") -> HostRefused:
        usual = ", ".join(map(str, self._ports))
        reason = getattr(error, "reason", None) or said
        return HostRefused(
            f"{host[:80]}:{port} is not connected to: only public addresses at the ports {usual} are, and what the "
            f"operator lists in {self._setting} ({reason})"
        )
