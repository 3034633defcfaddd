import json
import math
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import (
    MAX_INTEGER,
    Limits,
    canonical,
    canonical_datetime,
    email_norm,
    fold,
    normalise_email,
    parse_date,
    parse_datetime,
    parse_duration,
    parse_json,
    readable,
)

pytestmark = pytest.mark.req("FR-P2-003", "SR-002")

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.text(st.characters(codec="utf-8")).map(lambda text: text.replace("\x00", ""))
)
DOCUMENTS = st.recursive(
    SCALARS | st.floats(-(2.0**50), 2.0**50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (-0.0, 0),
        (2.0, 2),
        (2.5, 2.5),
        (MAX_INTEGER, MAX_INTEGER),
        ("e\u0301", "é"),
        ({"e\u0301": 1, "é": 2}, {"é": 2}),
        ((1, 2), [1, 2]),
        (True, True),
        (date(1, 1, 1), "0001-01-01"),
        (datetime(2026, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=2))), "2026-03-29T01:30:00.000000Z"),
    ],
)
def test_values_are_stored_in_one_form(value, stored):
    assert canonical(value) == stored
    assert type(canonical(value)) is type(stored)


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 1e300, 9007199254740992.0, math.nan, math.inf, pytest.param(10**5000, id="huge"), "a\x00", "\ud800", "é\udfff", b"x", {1}, object(),
     {1: 2}, datetime(2026, 1, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))],  # noqa: DTZ001
)  # fmt: skip
def test_what_engines_read_differently_is_refused_with_path_and_remedy(value):
    with pytest.raises(ValidationError) as refusal:
        canonical({"a": [0, value]}, "lead")
    (problem,) = refusal.value.problems
    assert problem.path == "lead.a.1"
    assert problem.code == "not_canonical"
    assert ";" in problem.message


def test_depth_and_size_are_bounded():
    endless = []
    endless.append(endless)
    limits = Limits(depth=3, items=10, text_characters=5, total_characters=8)
    for value in (endless, [[[[1]]]], list(range(10)), "abcdef", ["abcde", "abcde"]):
        with pytest.raises(ValidationError) as refusal:
            canonical(value, limits=limits)
        assert refusal.value.problems[0].code == "too_large"


@given(DOCUMENTS)
def test_the_canonical_form_is_a_fixed_point_and_survives_json(document):
    stored = canonical(document)
    assert canonical(stored) == stored
    assert parse_json(json.dumps(stored)) == stored
    assert parse_json(json.dumps(stored, ensure_ascii=False)) == stored


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 5_000, '{"a":NaN}', "-Infinity", b"\xff", "{", '"\\u0000"', '"\\ud800"', "1e400"]
)
def test_bad_json_is_refused_not_raised(text):
    with pytest.raises(ValidationError):
        parse_json(text)


def test_the_last_of_duplicate_keys_wins():
    assert parse_json('{"a": 1, "a": 2, "b": 1e2}') == {"a": 2, "b": 100}


def test_reading_a_strangers_object_turns_the_unrepresentable_into_missing_and_says_so():
    value, problems = readable({"age": 3, "blob": b"x", "big": 2**60, "nested": {"bad": math.nan}}, "lead")
    assert value == {"age": 3, "blob": None, "big": None, "nested": None}
    assert [problem.path for problem in problems] == ["lead.blob", "lead.big", "lead.nested.bad"]
    assert readable(2.0) == (2, ())


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-3-9", "0000-01-01", "2026-03-29 ", "٢٠٢٦-٠٣-٢٩", "2026-03-29\n", ""]
)
def test_dates_that_no_calendar_has_are_refused(text):
    with pytest.raises(ValidationError):
        parse_date(text)


@pytest.mark.parametrize(
    "text", ["2026-03-29T24:00:00Z", "2026-03-29T23:59:60Z", "2026-03-29T10:00:00", "2026-03-29", "2026-03-29T10:00:00+25:00",
             "0001-01-01T00:00:00+01:00", "2026-03-29T10:00:00.1234567Z"],
)  # fmt: skip
def test_times_that_no_clock_has_are_refused(text):
    with pytest.raises(ValidationError):
        parse_datetime(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_datetimes_keep_their_order_as_text(moment):
    text = canonical_datetime(moment)
    assert len(text) == 27
    assert parse_datetime(text) == moment
    later = moment + timedelta(microseconds=1) if moment < datetime.max.replace(tzinfo=UTC) else moment
    assert canonical_datetime(later) >= text


@given(st.text(st.characters(codec="utf-8")))
def test_folding_is_idempotent(text):
    assert fold(fold(text)) == fold(text)
    assert email_norm(email_norm(text)) == email_norm(text)


def test_folding_joins_what_differs_by_case_alone():
    assert fold("ΣΑΣ") == fold("σας") == fold("σασ")
    assert fold("STRASSE") == fold("straße")
    assert fold("E\u0301") == fold("é")
    assert email_norm(" Ann@Example.COM ") == "ann@example.com"
    assert email_norm("a@MÜNCHEN.de") == "a@xn--mnchen-3ya.de"
    assert email_norm("straße@x.de") != email_norm("strasse@x.de")


@pytest.mark.parametrize(
    "text", ["", "a", "a@", "@b", "a@b@c", "a b@c.de", "a\r\nBcc: x@c.de", "a" * 65 + "@b.de", "a@" + "b" * 260]
)
def test_what_cannot_be_one_address_is_refused(text):
    with pytest.raises(ValidationError) as refusal:
        normalise_email(text)
    assert refusal.value.problems[0].path == "email"


def test_an_address_is_normalised_for_storage():
    assert normalise_email("Ann@Example.com ") == "ann@example.com"


@pytest.mark.parametrize("text", ["999999999 weeks", "1000000000 seconds ", "-1 days", "1.5 hours", "soon", ""])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_duration(text)
