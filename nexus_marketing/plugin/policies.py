"""Which addresses we connect to when others name them: public ones, and what the operator lets us into (SECURITY.md S10)."""

import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import urlsplit

from ssrfguard import Policy

from nexus_marketing.core.errors import ConfigurationError

#: What an operator may let us into. Not link-local: no setting opens the metadata services of clouds.
_PRIVATE: Final = (
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
)
_ONE_HOST = re.compile(r"[^\s@]+").fullmatch
#: Of a name that was looked up, for people who named it: what our name servers answer is not theirs to know.
LEADS_INSIDE: Final = "the name leads to an address that is none of these"
#: Addresses of a name that are tried, one after the other.
ATTEMPTS: Final = 2


def public_only(ports: Collection[int], **changes: Any) -> Policy:
    """Public addresses at these ports."""
    return Policy(allowed_ports=frozenset(ports), max_connection_attempts=ATTEMPTS, **changes)


def exception_for(
    entry: str, *, setting: str, ports: Collection[int], schemes: Collection[str] = (), example: str
) -> Policy:
    """What the operator lets us into: this host, wherever it lies, at the port that is named or the usual ones.

    Args:
        entry: ``host`` or ``host:port``; ``*.example.com`` stands for the names below it.
        setting: where it stands in the ini file.
        ports: the usual ones.
        schemes: of URLs, where there are such.
        example: of an entry, for people.

    Raises:
        ConfigurationError: it means nothing.
    """
    changes = {"allowed_schemes": frozenset(schemes)} if schemes else {}
    try:
        parts = urlsplit(f"//{entry}")
        return public_only(
            ports if parts.port is None else (parts.port,),
            # Anything but host and port makes it no name, which the policy refuses.
            allowed_hosts=frozenset({(_ONE_HOST(parts.netloc) and parts.netloc == entry and parts.hostname) or ""}),
            allowed_networks=_PRIVATE,
            **changes,
        )
    except ValueError:
        raise ConfigurationError(
            f"{setting}: {entry!r} is no host: write names or addresses, each with its port if it is not usual, "
            f"such as {example}."
        ) from None
