"""Which addresses a server is given, and how the others are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.addresses import ascii_address

pytestmark = pytest.mark.req("S11", "FR-P2-009")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("anna@example.org", "anna@example.org"),
        ("a+tag.x_y@sub.example-shop.co", "a+tag.x_y@sub.example-shop.co"),
        ("o'neil@example.org", "o'neil@example.org"),
        ('"anna smith"@example.org', '"anna smith"@example.org'),
        ("info@bücher.example", "info@xn--bcher-kva.example"),
        ("info@BÜCHER.example", "info@xn--bcher-kva.example"),
        ("root@localhost", "root@localhost"),
        ("l" * 64 + "@example.org", "l" * 64 + "@example.org"),
    ],
)
def test_usable_addresses_become_ascii(address, expected):
    assert ascii_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "", "@", "anna", "anna@", "@example.org", "anna@@example.org", "an na@example.org", "anna@exa mple.org",
        ".anna@example.org", "anna.@example.org", "an..na@example.org", "anna@-example.org", "anna@example-.org",
        "anna@example..org", "l" * 65 + "@example.org", "a@" + "d" * 64 + ".org", "a@" + "d.eu." * 51 + "org",
        "anna@example.org\r\nRCPT TO:<x@example.org>", "anna@example.org\0", "<anna@example.org>", "anna>@example.org",
        "a\x80b@example.org", "anna@\u2028.org", "anna@exa_mple.org", '"an"na"@example.org', "ann\u00adé@exämple..org",
    ],
)  # fmt: skip
def test_addresses_nobody_can_take_are_invalid(address):
    with pytest.raises(ValidationError) as caught:
        ascii_address(address, path="To")
    assert caught.value.problems[0].code == "invalid_address"
    assert caught.value.problems[0].path == "To"


def test_a_local_part_that_needs_smtputf8_is_unsupported():
    with pytest.raises(ValidationError) as caught:
        ascii_address("käthe@example.org")
    assert caught.value.problems[0].code == "unsupported_address"
    assert ascii_address("käthe@bücher.example", smtputf8=True) == "käthe@xn--bcher-kva.example"


@given(st.text(max_size=300))
def test_what_passes_can_never_carry_a_command(address):
    try:
        result = ascii_address(address)
    except ValidationError:
        return
    assert result.isascii()
    assert result.isprintable()
    assert len(result) <= 254
    local, _, domain = result.rpartition("@")
    assert 0 < len(local) <= 64
    assert domain
