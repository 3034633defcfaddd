"""Tenants' secrets as they lie in the database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import SecretsUnreadable
from nexus_marketing.keys import Keys

pytestmark = pytest.mark.req("SR-004", "US-018")

OLD, NEW = b"o" * 40, b"n" * 40
SECRETS = st.dictionaries(
    st.text(min_size=1, max_size=8), st.text(max_size=20) | st.integers(-9, 9), min_size=1, max_size=3
)


@given(SECRETS, st.integers(0, 200), st.integers(0, 7))
def test_what_is_sealed_comes_back_and_no_changed_bit_does(secrets, place, bit):
    vault = Keys((NEW,)).vault
    sealed = vault.seal(secrets, "1/account/1")
    assert sealed is not None
    assert vault.open(sealed, "1/account/1") == secrets
    altered = bytearray(sealed)
    altered[place % len(sealed)] ^= 1 << bit
    with pytest.raises(SecretsUnreadable):
        vault.open(bytes(altered), "1/account/1")


def test_secrets_copied_into_another_tenants_row_open_nothing():
    vault = Keys((NEW,)).vault
    sealed = vault.seal({"password": "c4n4ry"}, "1/account/1")
    for place in ("2/account/1", "1/account/2", "1/plugin/1"):
        with pytest.raises(SecretsUnreadable, match="altered"):
            vault.open(sealed, place)


def test_two_seals_of_one_secret_do_not_look_alike():
    vault = Keys((NEW,)).vault
    first, second = (vault.seal({"password": "c4n4ry"}, "x") for _ in range(2))
    assert first != second
    assert b"c4n4ry" not in first


def test_an_older_key_still_opens_and_a_missing_one_is_named():
    sealed = Keys((OLD,)).vault.seal({"password": "c4n4ry"}, "x")
    both = Keys((NEW, OLD)).vault
    assert both.open(sealed, "x") == {"password": "c4n4ry"}
    assert (both.is_current(sealed), both.knows(sealed)) == (False, True)
    with pytest.raises(SecretsUnreadable, match=r"nexus\.secret_key"):
        Keys((NEW,)).vault.open(sealed, "x")


def test_nothing_is_sealed_where_there_are_no_secrets():
    vault = Keys((NEW,)).vault
    assert vault.seal({}, "x") is None
    assert vault.open(None, "x") == {}
