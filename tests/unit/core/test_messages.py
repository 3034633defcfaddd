"""The template language: what it is, what it refuses, and what becomes of values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import Problem, TemplateError
from nexus_marketing.core.messages import Link, OpenPixel, Place, Variable, resolve, value_key, with_url_prefixes
from nexus_marketing.core.templates import parse_message

pytestmark = pytest.mark.req("FR-P2-011")


def html(markup: str, **parts: str) -> dict[str, str]:
    return {"subject": "Hello", "html": markup, **parts}


def codes(content: dict[str, str]) -> set[str]:
    with pytest.raises(TemplateError) as refused:
        parse_message(content)
    return {problem.code for problem in refused.value.problems}


def test_links_are_numbered_over_all_parts_and_stored_unescaped() -> None:
    message = parse_message(
        html(
            '<a href="https://a.example/?x=1&amp;y=2">A</a>',
            text="See https://b.example/x. Or https://a.example/?x=1&y=2",
        )
    )
    assert message.links == ("https://a.example/?x=1&y=2", "https://b.example/x")
    assert [piece.number for piece in message.parts["text"] if isinstance(piece, Link)] == [1, 0]


def test_a_link_with_a_variable_stays_as_written() -> None:
    message = parse_message(html('<a href="https://a.example/{{ external_id }}">A</a>'))
    assert message.links == ()
    assert Variable("external_id", Place.URL_PART) in message.variables


def test_the_open_pixel_stands_before_the_end_of_the_body() -> None:
    parts = parse_message(html("<html><body><p>Hi</p></body></html>")).parts["html"]
    assert parts[1] == OpenPixel()
    assert str(parts[2]).endswith("</body></html>")


def test_unknown_names_are_reported_with_place_and_nearest() -> None:
    with pytest.raises(TemplateError) as refused:
        parse_message({"subject": "a", "text": "a\n {{ frist_name }}"})
    (problem,) = refused.value.problems
    assert problem.path == "content.text"
    assert problem.message == "line 2, column 2: unknown variable frist_name. Did you mean first_name?"


@pytest.mark.parametrize(
    ("markup", "code"),
    [
        ("{% for x in y %}", "not_in_language"),
        ("{# note #}", "not_in_language"),
        ("{{ name", "not_in_language"),
        ("{{ 7*7 }}", "not_a_name"),
        ("{{ ''.__class__ }}", "not_a_name"),
        ("{{ lead.__class__.__mro__ }}", "not_a_name"),
        ("{{ config }}", "unknown_variable"),
        ("{{ name | attr('x') }}", "unknown_filter"),
        ("{{ name | upper() | }}", "bad_filter"),
        ('<a href="{{ metadata.url }}">x</a>', "unsafe_link"),
        ('<a href="https://{{ external_id }}.example/">x</a>', "unsafe_link"),
        ('<a href="javascript:{{ name }}">x</a>', "unsafe_link"),
        ("<p title={{ name }}>x</p>", "unquoted_attribute"),
        ('<p onclick="{{ name }}">x</p>', "unsafe_place"),
        ('<p style="{{ name }}">x</p>', "unsafe_place"),
        ("<script>{{ name }}</script>", "unsafe_place"),
        ("<style>{{ name }}</style>", "unsafe_place"),
    ],
)
@pytest.mark.req("SR-002")
def test_what_is_not_in_the_language_is_refused(markup: str, code: str) -> None:
    assert code in codes(html(markup))


def test_a_subject_is_one_line() -> None:
    for character in "\n\r\x7f\u2028":
        assert codes({"subject": f"Hi{character}there", "text": "x"}) == {"control_character"}


def test_a_flood_of_openings_is_refused_at_once() -> None:
    assert "not_in_language" in codes({"subject": "s", "text": "{{" * 50_000})
    assert "too_many_variables" in codes({"subject": "s", "text": "{{ name }}" * 15_000})


def test_parts_that_are_missing_are_named() -> None:
    with pytest.raises(TemplateError) as refused:
        parse_message({"text": ""})
    assert {problem.path for problem in refused.value.problems} == {"content.subject", "content"}


def test_declared_variables_and_metadata_are_known() -> None:
    message = parse_message(
        {"subject": "{{ coupon }} {{ metadata.city }}", "text": "x"}, {"coupon": {"fallback": "TEN"}}
    )
    assert message.names == {"coupon", "metadata.city"}


@pytest.mark.parametrize(
    ("variable", "value", "declared", "expected"),
    [
        (Variable("name", Place.TEXT), "Ann", {}, "Ann"),
        (Variable("name", Place.TEXT), None, {}, ""),
        (Variable("name", Place.TEXT), "   ", {"name": {"required": True}}, None),
        (Variable("name", Place.TEXT, (), "you"), " ", {"name": {"required": True}}, "you"),
        (Variable("name", Place.TEXT), None, {"name": {"fallback": "friend"}}, "friend"),
        (Variable("name", Place.TEXT, ("trim", "upper")), " ann ", {}, "ANN"),
        (Variable("score", Place.TEXT), 5.0, {}, "5"),
        (Variable("score", Place.TEXT), 0, {"score": {"fallback": "none"}}, "0"),
        (Variable("vip", Place.TEXT), False, {}, "false"),
    ],
)
def test_values_become_text(
    variable: Variable, value: object, declared: dict[str, object], expected: str | None
) -> None:
    assert resolve(variable, value, declared) == expected


def test_fixed_url_parts_are_written_out_before_their_tokens() -> None:
    message = parse_message(html('<a href="https://a.example/">A</a><a href="{{ unsubscribe_url }}">out</a>'))
    parts = with_url_prefixes(message, click="C/", pixel="P/", unsubscribe="U/").parts["html"]
    assert [parts[parts.index(piece) - 1] for piece in parts if not isinstance(piece, str)] == ["C/", "U/", "P/"]


@given(st.text(alphabet="{}%#|<>\"'= abn()._-\n", max_size=80))
@pytest.mark.req("SR-002")
def test_any_text_parses_or_is_refused_with_its_place(text: str) -> None:
    problems = refused_or_parsed(text)
    assert all(problem.path.startswith("content") for problem in problems)


def refused_or_parsed(text: str) -> list[Problem]:
    """The faults of a text; without any, nothing of the language is left in its static parts."""
    try:
        message = parse_message({"subject": "s", "html": text, "text": "t"})
    except TemplateError as error:
        return list(error.problems)
    static = "".join(piece for piece in message.parts.get("html", ()) if isinstance(piece, str))
    assert "{{" not in static
    assert len({value_key(piece) for piece in message.variables}) <= len(message.variables)
    return []
