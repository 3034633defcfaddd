"""Whatever is filled in, the structure stays what the template says."""

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core import json_text as module
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.json_text import JsonText, json_text
from nexus_marketing.core.messages import TEXT, with_url_prefixes
from nexus_marketing.core.templates import parse_message

pytestmark = pytest.mark.req("FR-P2-009", "US-018", "S11")

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def read(text: str) -> JsonText:
    return json_text(parse_message({"text": text}, kind=TEXT).parts["text"])


def filled(text: str, **values: str):
    return json.loads(read(text).fill({f"var:{name}": value for name, value in values.items()}))


@given(ANY_TEXT, ANY_TEXT)
def test_no_value_changes_the_structure(name, score):
    text = '{"a": {"name": "Dear {{ name }}!", "score": {{ score }}}, "b": ["{{ name }}"], "c": "\\"{{ name }}\\\\"}'
    found = filled(text, name=name, score=score)
    assert found == {
        "a": {"name": f"Dear {name}!", "score": found["a"]["score"]},
        "b": [name],
        "c": f'"{name}\\',
    }
    assert not isinstance(found["a"]["score"], dict | list)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        ("-3.5", -3.5),
        ("true", True),
        ("null", None),
        ("", None),
        (" ", None),
        ("007", "007"),
        ("+4930123", "+4930123"),
        ("1e5", "1e5"),
        ("1" * 400, "1" * 400),
        ("NaN", "NaN"),
        ('1, "admin": true', '1, "admin": true'),
        ("{}", "{}"),
        ("١٢", "١٢"),
        ("3\n", "3\n"),
    ],
)
def test_a_value_outside_of_quotes_becomes_one_of_its_own(value, expected):
    assert filled('{"x": {{ score }} }', score=value) == {"x": expected}


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        '{"a": }',
        '{"a": "{{ name }}}',
        '{"a": {{ name }}{{ score }}}',
        '{"a": 1{{ score }}}',
        "{ {{ name }}: 1}",
        '{"a": "\\{{ name }}"}',
        '{"a": "\\u00{{ name }}"}',
        '{"a": NaN}',
        '{"a": tr{{ name }}}',
        '{"a": -{{ score }}}',
        '{"a": "line\nbreak"}',
        '{"a": 1} {{ name }}',
        "[" * 20_000,
    ],
)
def test_a_text_that_is_not_json_with_every_value_is_refused(text):
    with pytest.raises(ValidationError, match="not JSON once its gaps are filled"):
        read(text)


def test_links_and_the_way_out_stand_inside_quotes():
    parsed = parse_message({"text": '{"go": "https://shop.example/a?b=c", "out": "{{ unsubscribe_url }}"}'}, kind=TEXT)
    message = with_url_prefixes(parsed, click="https://m.example/t/c/", pixel="", unsubscribe="https://m.example/u/")
    found = json.loads(json_text(message.parts["text"]).fill({"link:0": "TOKEN", "var:unsubscribe_url": "OUT"}))
    assert found == {"go": "https://m.example/t/c/TOKEN", "out": "https://m.example/u/OUT"}
    unquoted = with_url_prefixes(
        parse_message({"text": '{"out": {{ unsubscribe_url }} }'}, kind=TEXT),
        click="",
        pixel="",
        unsubscribe="https://m/u/",
    )
    with pytest.raises(ValidationError):
        json_text(unquoted.parts["text"])


def test_the_example_holds():
    assert doctest.testmod(module).failed == 0
