"""Whom an address stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.limits.addresses import network_of, visitor_of

pytestmark = pytest.mark.req("SR-003")


@given(st.ip_addresses(network="2606:4700::/32"), st.integers(0, 2**64 - 1))
def test_whoever_has_a_64_is_one_visitor(address, other) -> None:
    neighbour = str(type(address)(int(address) >> 64 << 64 | other))
    assert visitor_of(str(address)) == visitor_of(neighbour) == network_of(str(address)) == network_of(neighbour)


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_a_port_makes_nobody_another(address, port: int) -> None:
    expected = str(address) if address.is_global else None
    assert {visitor_of(f"{address}"), visitor_of(f"{address}:{port}"), visitor_of(f"::ffff:{address}")} == {expected}


@given(st.text(max_size=40))
def test_what_is_no_address_is_nobody(text: str) -> None:
    assert visitor_of(text) is None or "." in text or ":" in text
