"""The header encoder against the standard library's parser, over hostile text."""

import email
import email.policy
import re
from datetime import UTC, datetime
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.headers import (
    address_header,
    date_value,
    message_id,
    plain_address_line,
    plain_text_line,
    plain_token_line,
    text_header,
    token_header,
)

pytestmark = pytest.mark.req("S11", "FR-P2-009")

BREAKS = ["\r", "\n", "\r\n", "\0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\x9f", "\u2028", "\u2029"]
hostile = st.text(
    st.one_of(
        st.characters(min_codepoint=32, max_codepoint=126),
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]),
        st.sampled_from(list('=?_ "\\<>@,;:()é漢😀\u200d\u0301\ufeff\u202e')),
    ),
    max_size=300,
)


def parsed(line: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(line + b"\r\nbody\r\n", policy=email.policy.default)


def assert_well_formed(line: bytes) -> None:
    assert line.endswith(b"\r\n")
    assert line.isascii()
    for physical in line[:-2].split(b"\r\n"):
        assert len(physical) <= 998
        assert b"\r" not in physical
        assert b"\n" not in physical
    for continuation in line[:-2].split(b"\r\n")[1:]:
        assert continuation[:1] == b" "
        assert continuation.strip()


@given(hostile)
def test_subject_comes_back_as_it_went_in(value):
    line = text_header("Subject", value)
    assert_well_formed(line)
    message = parsed(line)
    assert message.keys() == ["Subject"]
    assert message["Subject"] == value


@given(hostile)
def test_encoded_words_are_at_most_75_long(value):
    for word in re.findall(rb"=\?utf-8\?[qb]\?[^?]*\?=", text_header("Subject", "é" + value)):
        assert len(word) <= 75


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12), min_size=1))
def test_ascii_lines_aim_at_78(words):
    value = " ".join(words)
    if "=?" not in value:
        assert all(len(line) <= 78 for line in text_header("Subject", value).split(b"\r\n"))


@given(hostile)
def test_display_name_cannot_forge_an_address(display):
    line = address_header("To", display, "anna@example.org")
    assert_well_formed(line)
    message = parsed(line)
    assert message.keys() == ["To"]
    (address,) = message["To"].addresses
    assert address.addr_spec == "anna@example.org"
    name = address.display_name
    if line.count(b"=?") > 1:
        # Python 3.11's address parser keeps the blank between adjacent encoded words of a phrase; its older one does not
        phrase = line.removeprefix(b"To: ").rpartition(b" <")[0].replace(b"\r\n", b"").decode()
        name = str(make_header(decode_header(phrase)))
    # it also trims Unicode blanks its own way
    assert name.split() == display.split()


@pytest.mark.parametrize("sign", BREAKS, ids=ascii)
@pytest.mark.parametrize("template", ["{}", "a{}b", "{}Bcc: x@example.com", "x{}"])
def test_control_characters_and_line_separators_are_refused(sign, template):
    value = template.format(sign)
    for encode in (
        lambda: text_header("Subject", value),
        lambda: token_header("List-Unsubscribe", value),
        lambda: address_header("To", value, "anna@example.org"),
        lambda: address_header("To", "Anna", f"anna@example.org{value}"),
    ):
        with pytest.raises(ValidationError) as caught:
            encode()
        assert caught.value.problems[0].code in {"header_injection", "invalid_address"}
    with pytest.raises(ValidationError, match="Subject"):
        text_header("Subject", value)


@pytest.mark.parametrize("name", ["Sub ject", "Subject:", "", "Betreff\n", "Überschrift", "a" * 71])
def test_bad_header_names_are_refused(name):
    with pytest.raises(ValidationError):
        text_header(name, "valüe")


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValidationError):
        text_header("Subject", "\ud83d")


def test_a_uri_is_never_folded():
    uri = "<https://example.org/u/" + "t" * 300 + ">"
    assert token_header("List-Unsubscribe", uri) == f"List-Unsubscribe: {uri}\r\n".encode()
    folded = token_header("List-Unsubscribe", f"{uri}, <mailto:leave@example.org?subject=leave>")
    assert folded.count(b"\r\n") == 2
    assert uri.encode() in folded


@pytest.mark.parametrize("value", ["", " ", "é", "x" * 999])
def test_structured_headers_refuse_what_cannot_be_written(value):
    with pytest.raises(ValidationError):
        token_header("List-Id", value)


def test_a_word_longer_than_a_line_becomes_encoded_words():
    value = "x" * 3000
    line = text_header("Subject", value)
    assert_well_formed(line)
    assert parsed(line)["Subject"] == value


def test_text_that_looks_encoded_is_not_decoded_into_something_else():
    assert parsed(text_header("Subject", "=?utf-8?q?evil?="))["Subject"] == "=?utf-8?q?evil?="


@pytest.mark.parametrize(
    ("display", "expected"),
    [
        ("", b"From: a@example.org\r\n"),
        ("Anna Smith", b"From: Anna Smith <a@example.org>\r\n"),
        ("Smith, Anna", b'From: "Smith, Anna" <a@example.org>\r\n'),
        ('The "Best" \\ Shop', b'From: "The \\"Best\\" \\\\ Shop" <a@example.org>\r\n'),
        ("Käthe", b"From: =?utf-8?b?S8OkdGhl?= <a@example.org>\r\n"),
    ],
)
def test_display_names_are_quoted_or_encoded_as_needed(display, expected):
    assert address_header("From", display, "a@example.org") == expected


def test_message_id_is_stable_and_checked():
    assert message_id("r.17.4", "mail.example.org") == "<r.17.4@mail.example.org>"
    for bad in ("a b", "a\r\nBcc: x", "", "a@b", "ü"):
        with pytest.raises(ValidationError):
            message_id(bad, "example.org")


def test_date_is_written_as_rfc_5322_says():
    assert date_value(datetime(2026, 11, 5, 7, 3, 9, tzinfo=UTC)) == "Thu, 05 Nov 2026 07:03:09 +0000"


nearly_plain = st.text(st.sampled_from(list('aZ0 .,=?@<>"-_\t\r\né')), max_size=90)


@given(nearly_plain)
def test_plain_text_is_what_the_encoder_leaves_alone(value):
    line = f"Subject: {value}\r\n"
    if re.fullmatch(plain_text_line("Subject"), line):
        assert text_header("Subject", value) == line.encode()


@given(nearly_plain)
def test_plain_tokens_are_what_the_encoder_leaves_alone(value):
    line = f"Message-ID: {value}\r\n"
    if re.fullmatch(plain_token_line("Message-ID"), line):
        assert token_header("Message-ID", value) == line.encode()


@given(nearly_plain, st.one_of(nearly_plain, st.just("a.b@shop.example")))
def test_plain_mailboxes_are_what_the_encoder_leaves_alone(display, address):
    line = f"To: {display} <{address}>\r\n" if display else f"To: {address}\r\n"
    if re.fullmatch(plain_address_line("To"), line):
        assert address_header("To", display, address) == line.encode()


@pytest.mark.parametrize(
    ("plain", "line"),
    [
        (plain_text_line("Subject"), "Subject: Hello Ann, 3 new things\r\n"),
        (plain_token_line("Message-ID"), "Message-ID: <r1.s2.t3@shop.example>\r\n"),
        (plain_token_line("Date"), "Date: Thu, 26 Nov 2026 00:00:00 +0000\r\n"),
        (plain_token_line("List-Unsubscribe"), f"List-Unsubscribe: <https://m.example/u/{'a' * 200}>\r\n"),
        (plain_address_line("To"), "To: Ann Lee <ann@shop.example>\r\n"),
        (plain_address_line("To"), "To: ann@shop.example\r\n"),
    ],
)
def test_usual_lines_are_plain(plain, line):
    assert re.fullmatch(plain, line)
