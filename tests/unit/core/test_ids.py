"""Ids from outside are numbers or not found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.ids import MAX_ID, parse_id

pytestmark = pytest.mark.req("S01")


@given(st.integers(1, MAX_ID))
def test_what_we_gave_out_is_read_back(number):
    assert parse_id(str(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e3",
        "1_000",
        "0x10",
        "١",
        "²",
        "1\x00",
        str(MAX_ID + 1),
        "9" * 19,
        "9" * 5000,
        "null",
        "1; DROP TABLE marketing_leads",
    ],
)
def test_anything_else_is_not_found_and_not_an_error(text):
    with pytest.raises(NotFound) as caught:
        parse_id(text, "campaign")
    assert caught.value.message == "There is no campaign with this id."


@given(st.text())
def test_no_text_is_an_error(text):
    try:
        found = parse_id(text)
    except NotFound:
        return
    assert text == text.lstrip("+-")
    assert found == int(text)
    assert 0 < found <= MAX_ID
