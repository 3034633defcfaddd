"""What of an address stands for one visitor."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def network_of(address: str) -> str:
    """The address itself, or the /64 of an IPv6 one, which a single visitor has whole.

    >>> network_of("192.0.2.7"), network_of("2001:db8::1:2:3:4")
    ('192.0.2.7', '2001:db8::/64')
    """
    parsed = _parsed(address)
    return address if parsed is None else _network(parsed)


@lru_cache(maxsize=4096)
def visitor_of(address: str) -> str | None:
    """The network of a stranger; nothing where the address tells nobody apart.

    That is one of our own networks, which strangers come from only where a proxy stands that the server was not told of,
    or no address at all. Some proxies write the port of the connection behind an address: it says nothing.

    >>> visitor_of("8.8.4.4"), visitor_of("8.8.4.4:3128"), visitor_of("[2606:4700::1]:80"), visitor_of("10.0.0.1")
    ('8.8.4.4', '8.8.4.4', '2606:4700::/64', None)
    """
    parsed = _parsed(address) or _parsed(_without_port(address))
    return _network(parsed) if parsed is not None and parsed.is_global else None


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def _network(parsed: IPv4Address | IPv6Address) -> str:
    return str(ip_network((parsed, 64), strict=False) if isinstance(parsed, IPv6Address) else parsed)


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
