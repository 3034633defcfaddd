"""Bodies of webhooks: whatever is filled in, the structure stays."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.bodies import filled

pytestmark = pytest.mark.req("FR-P3-011")

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text()), st.just({"a": [1]}))


def body_of(body: dict[str, Any], **document: Any) -> Any:
    node = {"type": "webhook", "url": "https://x.example", "body": body}
    return read_journey({"id": "j", "nodes": {"a": node}, **document}).nodes["a"].body


def test_gaps_say_where_a_record_keeps_the_field():
    said = {"a": "{{ plan }}", "b": ["{{lead.email}}", {"c": "{{ event.metadata.order }}!"}], "d": 1}
    found = body_of(said, fields={"plan": "text"})
    assert found == {"a": "{{ metadata.plan }}", "b": ["{{ email }}", {"c": "{{ event.metadata.order }}!"}], "d": 1}
    record = {"metadata": {"plan": "pro"}, "email": "a@x.example", "event": {"metadata": {"order": 7}}}
    assert filled(found, record) == {"a": "pro", "b": ["a@x.example", {"c": "7!"}], "d": 1}


def test_moments_are_written_as_json_has_them():
    record = {"at": datetime(2026, 3, 2, tzinfo=UTC), "day": date(2026, 3, 2)}
    assert filled(["{{ at }}", "{{ day }}", "{{ at.year }}"], record) == [
        "2026-03-02T00:00:00.000000Z",
        "2026-03-02",
        None,
    ]


@given(value=VALUES)
def test_a_value_alone_is_itself_and_inside_a_text_it_is_text(value):
    found = filled({"alone": "{{ x }}", "inside": "a {{ x }} b"}, {"x": value})
    assert found["alone"] == value
    assert found["inside"].startswith("a ")
    assert found["inside"].endswith(" b")


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"a": "{{ shoe }}"}, "nodes.a.body.a", "unknown_field"),
        ({"a": ["{{ email | upper }}"]}, "nodes.a.body.a.0", "not_a_gap"),
        ({"a": "x" * 20_001}, "nodes.a.body", "too_long"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_its_place(body, path, code):
    with pytest.raises(ValidationError) as raised:
        body_of(body)
    assert [(each.path, each.code) for each in raised.value.problems] == [(path, code)]
