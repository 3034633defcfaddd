"""Keyed hashes: the same in every process, of no use elsewhere, stable when keys rotate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.keys import Keys

pytestmark = pytest.mark.req("S15", "D04")

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = Keys((NEW, OLD))
#: As it lies in databases: a change here would forget every suppression there is.
STORED = "c73ac33924156004fa2aac9cf3c25c03"


def test_an_address_has_one_hash_in_every_process():
    assert Keys((NEW, OLD)).address_hash(1, "ann@example.org") == KEYS.address_hash(1, "ann@example.org")
    assert KEYS.address_hash(1, "ann@example.org").hex() == STORED


@given(st.integers(1, 2**63 - 1), st.text(), st.integers(1, 2**63 - 1), st.text())
def test_different_addresses_or_tenants_have_different_hashes(tenant, address, other_tenant, other_address):
    same = (tenant, address) == (other_tenant, other_address)
    assert (KEYS.address_hash(tenant, address) == KEYS.address_hash(other_tenant, other_address)) == same


def test_a_number_at_the_beginning_of_an_address_is_not_taken_for_the_tenants():
    assert KEYS.address_hash(1, "2:a@b") != KEYS.address_hash(12, "a@b")


def test_stored_hashes_outlive_a_rotation():
    assert Keys((OLD,)).address_hash(1, "ann@example.org") == KEYS.address_hash(1, "ann@example.org")
    assert Keys((NEW,)).address_hash(1, "ann@example.org") != KEYS.address_hash(1, "ann@example.org")


def test_tokens_mailed_before_a_rotation_still_count():
    token = Token(TokenKind.OPEN, 1, 2, 3, 4)
    assert KEYS.tokens.read(Keys((OLD,)).tokens.sign(token), TokenKind.OPEN) == token


def test_each_use_has_a_key_of_its_own():
    payload = b"1:ann@example.org"
    assert KEYS.cursor_tag(payload) not in KEYS.address_hash(1, "ann@example.org")
    assert len(KEYS.cursor_tag(payload)) == 8
    assert Keys((OLD,)).cursor_tag(payload) != KEYS.cursor_tag(payload)


@pytest.mark.parametrize("key", [b"x" * 32, b"x" * 64])
def test_keys_of_every_allowed_length_work(key):
    assert len(Keys((key,)).address_hash(1, "a@b")) == 16
