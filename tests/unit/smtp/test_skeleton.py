"""Skeletons against the standard library's parser: exactly the expected text comes back, whatever the values are."""

import email
import email.policy
import html as html_module
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.encoding import encode_qp
from nexus_marketing.smtp.parts import AddressHeader, Context, Header, Slot
from nexus_marketing.smtp.skeleton import compile_message

pytestmark = pytest.mark.req("FR-P2-009", "S11")

C = Context
nasty = st.one_of(
    st.text(max_size=200),
    st.text(st.sampled_from(list(".= \t\r\n<>&\"'aé😀-_")), max_size=200),
    st.text(st.sampled_from("ab."), min_size=70, max_size=400),
    st.builds(
        lambda c, n: c * n, st.sampled_from([".", " ", "=", "é", "\n", "\r\n", "x", "From "]), st.integers(0, 160)
    ),
)
pieces = st.lists(st.one_of(nasty, st.builds(Slot, st.sampled_from(["a", "b", "c"]), st.just(C.TEXT))), max_size=8)
values_of = st.fixed_dictionaries({"a": nasty, "b": nasty, "c": nasty})


def parse(data: bytes):
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert not message.defects
    for part in message.walk():
        assert not part.defects
    return message


def unified(text: str) -> str:
    return re.sub("\r\n?", "\n", text)


def content(part) -> str:
    return unified(part.get_payload(decode=True).decode("utf-8"))


def expected(template, values, escape=lambda text: text) -> str:
    # static newlines are unified on their own, as are those of values: they never meet across a slot
    text = "".join(unified(p) if isinstance(p, str) else unified(escape(values[p.name])) for p in joined(template))
    last = joined(template)[-1] if joined(template) else ""
    static_end = isinstance(last, str) and unified(last).endswith("\n")
    return (text if static_end else text + "\n").encode("utf-8", "replace").decode("utf-8")


def joined(template):
    result: list[str | Slot] = []
    for piece in template:
        if isinstance(piece, str) and result and isinstance(result[-1], str):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def assert_wire_clean(data: bytes) -> None:
    assert data.isascii()
    assert data.endswith(b"\r\n")
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
    head, _, body = data.partition(b"\r\n\r\n")
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith(b".")
        assert not line.endswith((b" ", b"\t"))
    for line in head.split(b"\r\n"):
        assert len(line) <= 998


HEADERS = [
    AddressHeader("From", ["Shop"], ["shop@example.com"]),
    AddressHeader("To", [Slot("name", C.HEADER)], [Slot("email", C.HEADER)]),
    Header("Subject", ["News for ", Slot("name", C.HEADER)]),
    Header("Message-ID", ["<", Slot("id", C.HEADER), "@example.com>"], structured=True),
]
PERSON = {"name": "Zoë, Ltd.", "email": "zoe@example.org", "id": "r.1"}


@given(template=pieces, values=values_of)
def test_text_comes_back_exactly(template, values):
    data = compile_message([], text=template).fill(values)
    assert_wire_clean(data)
    assert content(parse(data)) == expected(template, values)


@given(text=pieces, markup=pieces, values=values_of)
def test_both_alternatives_come_back_exactly(text, markup, values):
    data = compile_message(HEADERS, text=text, html=markup).fill(values | PERSON)
    assert_wire_clean(data)
    message = parse(data)
    plain, rich = message.iter_parts()
    assert message.get_content_type() == "multipart/alternative"
    assert (plain.get_content_type(), rich.get_content_type()) == ("text/plain", "text/html")
    assert content(plain) == expected(text, values)
    assert content(rich) == expected(markup, values, html_module.escape)
    assert message["Subject"] == "News for Zoë, Ltd."
    assert message["To"].addresses[0].display_name == "Zoë, Ltd."


@given(value=nasty)
def test_html_values_cannot_leave_their_place(value):
    data = compile_message([], html=['<p title="', Slot("a", C.HTML), '">', Slot("a", C.HTML), "</p>"]).fill(
        {"a": value}
    )
    escaped = unified(html_module.escape(value)).encode("utf-8", "replace").decode()
    assert content(parse(data)) == f'<p title="{escaped}">{escaped}</p>\n'


@given(value=nasty)
def test_raw_values_are_only_encoded(value):
    data = compile_message([], html=[Slot("a", C.RAW)]).fill({"a": value})
    assert_wire_clean(data)
    assert content(parse(data)) == unified(value).encode("utf-8", "replace").decode() + "\n"


@given(value=nasty)
def test_url_values_hold_url_characters_only(value):
    template = ['<a href="https://example.org/', Slot("a", C.URL), "?q=", Slot("a", C.URL_PART), '">x</a>']
    body = content(parse(compile_message([], html=template).fill({"a": value})))
    match = re.fullmatch(r'<a href="https://example\.org/([^"]*)\?q=([^"?]*)">x</a>\n', body)
    assert match
    assert re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*", html_module.unescape(match[1]))
    assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*", match[2])


def test_whole_links_pass_and_ampersands_are_escaped():
    template = ['<a href="', Slot("u", C.URL), '">']
    link = "https://example.org/c/" + "t" * 200 + "?a=1&b=2#f"
    body = content(parse(compile_message([], html=template).fill({"u": link})))
    assert body == f'<a href="{html_module.escape(link)}">\n'
    assert content(parse(compile_message([], text=["see ", Slot("u", C.URL)]).fill({"u": link}))) == f"see {link}\n"


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", " JavaScript:x", "data:text/html,x", "vbscript:x", "\tjavascript:1"]
)
def test_links_that_could_run_something_are_refused(link):
    skeleton = compile_message([], html=['<a href="', Slot("u", C.URL), '">'])
    with pytest.raises(ValidationError) as caught:
        skeleton.fill({"u": link})
    assert caught.value.problems[0].code == "url_scheme"


def test_a_link_of_many_blanks_holds_nobody_up():
    skeleton = compile_message([], html=['<a href="', Slot("u", C.URL), '">'])
    begun = time.thread_time()
    for blank in (" ", "\t", "\x1f"):
        skeleton.fill({"u": blank * 65_000 + "x"})
    assert time.thread_time() - begun < 2.0


@pytest.mark.parametrize("link", ["https://e.org/a:b", "/path", "mailto:a@e.org", "tel:+431", "?x=a:b", "#top"])
def test_harmless_links_pass(link):
    assert content(parse(compile_message([], text=[Slot("u", C.URL)]).fill({"u": link}))) == link + "\n"


@pytest.mark.parametrize("sign", ["\r", "\n", "\r\n", "\0", "\x85", "\u2028", "\u2029"], ids=ascii)
@pytest.mark.parametrize("name", ["name", "email", "id"])
def test_a_hostile_header_value_stops_the_message(sign, name):
    skeleton = compile_message(HEADERS, text=["x"])
    with pytest.raises(ValidationError):
        skeleton.fill(PERSON | {name: f"a{sign}Bcc: victim@example.org"})


def test_a_missing_variable_is_named():
    skeleton = compile_message(HEADERS, text=[Slot("first_name", C.TEXT)])
    assert skeleton.slots == {"name", "email", "id", "first_name"}
    with pytest.raises(ValidationError) as caught:
        skeleton.fill(PERSON)
    assert caught.value.problems[0].path == "first_name"
    assert caught.value.problems[0].code == "missing_variable"


def test_the_same_template_compiles_to_the_same_bytes():
    def build(word):
        return compile_message(HEADERS, text=[word, Slot("a", C.TEXT)], html=["<b>", Slot("a", C.HTML)])

    values = PERSON | {"a": "1"}
    assert build("x").fill(values) == build("x").fill(values)
    assert build("x").fill(values) != build("y").fill(values)


def test_headers_that_may_stand_once_are_checked():
    with pytest.raises(ValidationError, match="once"):
        compile_message([Header("Subject", ["a"]), Header("subject", ["b"])], text=["x"])
    with pytest.raises(ValidationError, match="MIME"):
        compile_message([Header("Content-Type", ["text/x"])], text=["x"])
    with pytest.raises(ValidationError, match="body"):
        compile_message([Header("Subject", ["a"])])
    with pytest.raises(ValidationError, match="context"):
        compile_message([], text=[Slot("a", C.HEADER)])


def test_one_value_in_many_places_is_the_same_everywhere():
    skeleton = compile_message([], html=[Slot("a", C.HTML), " ", Slot("a", C.HTML), " ", Slot("a", C.HTML)])
    assert content(parse(skeleton.fill({"a": "<é>"}))) == "&lt;é&gt; &lt;é&gt; &lt;é&gt;\n"


@given(nasty, st.booleans())
def test_quoted_printable_is_what_the_standard_library_decodes(text, soft_end):
    encoded = encode_qp(text, soft_end=soft_end)
    lines = encoded.split(b"\r\n")
    assert all(len(line) <= 76 for line in lines)
    assert len(lines[-1]) <= (75 if soft_end else 76)
    message = email.message_from_bytes(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + encoded)
    assert unified(message.get_payload(decode=True).decode()) == unified(text).encode("utf-8", "replace").decode()


PLACES = {C.HTML: "<p>", C.TEXT: "<p>", C.RAW: "<p>", C.URL: "<a href='", C.URL_PART: "<a href='https://x.example/"}


@given(st.sampled_from(sorted(PLACES)), st.text(st.sampled_from(list("aZ0.~ -_:/?&=%'\"<>\0\té")), max_size=90))
def test_a_plain_value_is_what_its_encoder_leaves_alone(context, value):
    skeleton = compile_message([], html=[PLACES[context], Slot("a", context)])
    ((gap, _),) = skeleton._parts
    if re.fullmatch(gap.plain, value):
        assert gap.encoded((value,)) == value.encode()


@pytest.mark.parametrize("place", ["a", "b"])
@pytest.mark.parametrize("strange", ["x\0y", "\0", "é", "1\n2", ".x", "x" * 200])
def test_one_strange_value_leaves_its_neighbours_as_they_are(place, strange):
    values = {"a": "one", "b": "two", "c": "three"} | {place: strange}
    slots = [piece for name in "abc" for piece in (f"[{name}]", Slot(name, C.TEXT))]
    message = parse(compile_message([], text=slots).fill(values))
    assert content(message) == unified("".join(f"[{name}]{values[name]}" for name in "abc")) + "\n"


MANY = compile_message(
    HEADERS, text=["Hi ", Slot("name", C.TEXT)], html=[Slot("a", C.HTML), "<a href='", Slot("u", C.URL), "'>x</a>"]
)
person = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("Ann"), nasty),
        "email": st.sampled_from(["ann@example.org", "é@example.org", "none"]),
        "id": st.just("r.1"),
        "a": st.one_of(st.just("plain"), st.sampled_from(["a\0b", "\0"]), nasty),
        "u": st.sampled_from(["https://x.example/", "javascript:x"]),
    },
    optional={"other": nasty},
)


@given(people=st.lists(st.one_of(person, st.just({"name": "only"})), max_size=4))
def test_many_at_once_are_what_they_are_one_by_one(people):
    found = MANY.personal(people)
    assert len(found) == len(people)
    for each, values in zip(found, people, strict=True):
        if isinstance(each, ValidationError):
            with pytest.raises(ValidationError) as caught:
                MANY.fill(values)
            assert (each.message, each.problems) == (caught.value.message, caught.value.problems)
        else:
            assert MANY.joined(each) == MANY.fill(values)


def test_values_beside_the_rows_go_before_theirs():
    skeleton = compile_message([], text=[Slot("a", C.TEXT), Slot("b", C.TEXT)])
    rows = [{"a": "1", "b": "x"}, {"a": "2"}]
    assert [skeleton.joined(each) for each in skeleton.personal(rows, {"b": ["3", "4"]})] == [
        skeleton.fill({"a": "1", "b": "3"}),
        skeleton.fill({"a": "2", "b": "4"}),
    ]
