"""What of an address stands for one visitor."""

from ipaddress import IPv6Address, ip_address, ip_network


def network_of(address: str) -> str:
    """The address itself, or the /64 of an IPv6 one, which a single visitor has whole.

    >>> network_of("192.0.2.7"), network_of("2001:db8::1:2:3:4")
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
