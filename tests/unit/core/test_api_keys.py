import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.api_keys import KEY_ID_CHARACTERS, ParsedKey, build_key, parse_key

pytestmark = pytest.mark.req("SR-001")

KEY_IDS = st.text(st.sampled_from(KEY_ID_CHARACTERS), min_size=8, max_size=8)
SECRETS = st.binary(min_size=32, max_size=32)


@given(KEY_IDS, SECRETS)
def test_a_key_reads_back_as_its_id_and_hash(key_id, secret):
    issued = build_key(key_id, secret)
    assert re.fullmatch(r"nmk_live_[a-z0-9]{8}_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", issued.text)
    assert parse_key(issued.text) == ParsedKey(key_id, issued.secret_hash)
    assert issued.text not in repr(issued)


@given(KEY_IDS, SECRETS, st.integers(0, 68), st.characters())
def test_one_wrong_character_is_seen_before_any_look_up(key_id, secret, place, character):
    text = build_key(key_id, secret).text
    if text[place] != character:
        assert parse_key(text[:place] + character + text[place + 1 :]) is None


@given(st.text())
def test_what_is_no_key_is_nothing(text):
    assert parse_key(text) is None
