"""Finding out what a file is, and reading it record by record."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.seen_keys import SeenKeys
from nexus_marketing.services.csv_files import inspect_csv, read_records

pytestmark = pytest.mark.req("FR-P2-009")


@pytest.fixture
def inspect(tmp_path):
    def write(content: bytes, **options):
        path: Path = tmp_path / "file.csv"
        path.write_bytes(content)
        return inspect_csv(path, **options)

    return write


@pytest.mark.parametrize(
    ("content", "encoding", "confidence"),
    [
        (b"email\nplain\n", "utf-8", 1.0),
        ("email\nZoë\n".encode(), "utf-8", 1.0),
        ("email\nZoë\n".encode("utf-8-sig"), "utf-8", 1.0),
        ("email\nZoë €\n".encode("cp1252"), "cp1252", 0.7),
        (b"email\nZo\xeb \x81\n", "iso-8859-1", 0.5),
        ("email\nZoë\n".encode("utf-16"), "utf-16-le", 1.0),
        (b"\xfe\xff" + "email\nZoë\n".encode("utf-16-be"), "utf-16-be", 1.0),
    ],
)
def test_encodings_are_told_apart(inspect, content, encoding, confidence):
    found = inspect(content)
    assert (found.encoding, found.confidence) == (encoding, confidence)


def test_latin_1_after_a_megabyte_of_ascii_is_still_found(inspect):
    assert inspect(b"email\n" + b"a@example.org\n" * 100_000 + b"Zo\xeb\n").encoding == "cp1252"


def test_a_character_across_two_blocks_is_whole(inspect):
    content = b"x" * ((1 << 20) - 1) + "ë\n".encode()
    assert inspect(content).encoding == "utf-8"


def test_mostly_utf8_with_damage_is_utf8(inspect):
    found = inspect("ë\n".encode() * 30 + b"\xeb\n")
    assert (found.encoding, found.has_damage) == ("utf-8", True)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("email,name\na,b\n", ","),
        ("email;name\na;b,c\n", ";"),
        ("email\tname\na\tb\n", "\t"),
        ("email|name\na|b\n", "|"),
        ("email\na\n", ","),
        ('email;note\na;"x, y, z"\nb;"1, 2"\n', ";"),
        ("sep=|\nemail|name\na|b\n", "|"),
    ],
)
def test_delimiters_are_told_apart(inspect, text, delimiter):
    assert inspect(text.encode()).delimiter == delimiter


@pytest.mark.parametrize(
    ("options", "said"), [({"encoding": "ebcdic"}, "use one of utf-8"), ({"delimiter": "#"}, "use one of , ; tab")]
)
def test_an_encoding_or_delimiter_nobody_knows_is_refused(inspect, options, said):
    with pytest.raises(ValidationError, match=said):
        inspect(b"email\n", **options)


CELLS = st.lists(
    st.lists(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2
    ),
    min_size=1,
    max_size=6,
)


@given(CELLS, st.sampled_from(["utf-8", "utf-16-le"]), st.sampled_from(["\n", "\r\n"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_are_those_of_the_standard_reader_and_offsets_end_lines(tmp_path, rows, encoding, line_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([["email", "name"], *rows])
    path = tmp_path / "any.csv"
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    path.write_bytes(mark + text.getvalue().encode(encoding))
    file = inspect_csv(path, encoding=encoding, delimiter=",")
    found = list(read_records(file))
    expected = [row for row in csv.reader(io.StringIO(text.getvalue(), newline="")) if row]
    assert [list(record.cells) for record in found] == expected
    assert found[-1].end_offset == path.stat().st_size
    for record in found:
        rest = path.read_bytes()[record.end_offset :].decode(encoding)
        assert text.getvalue().endswith(rest)


def test_old_line_ends_and_blank_lines_are_read(inspect):
    records = list(read_records(inspect(b"email,n\ra@b.c,1\r\r\n\nd@e.f,2")))
    assert [list(record.cells) for record in records] == [["email", "n"], ["a@b.c", "1"], ["d@e.f", "2"]]


def test_a_file_without_line_ends_is_refused_and_not_swallowed(inspect):
    file = inspect(b"email," + b"x" * 3_000_000)
    with pytest.raises(ValidationError, match="longer than"):
        list(read_records(file))


def test_the_digest_is_that_of_the_bytes(inspect):
    assert inspect(b"email\na\n").digest == inspect(b"email\na\n").digest != inspect(b"email\nb\n").digest


@given(st.lists(st.lists(st.integers(-30, 30), max_size=20), max_size=10), st.sampled_from([0, 5, 1000]))
def test_keys_are_new_once_wherever_they_are_kept(pieces, in_memory):
    seen, known = SeenKeys(in_memory), set()
    try:
        for keys in pieces:
            expected = []
            for key in keys:
                expected.append(key not in known)
                known.add(key)
            assert seen.first_times(keys) == expected
    finally:
        seen.close()
