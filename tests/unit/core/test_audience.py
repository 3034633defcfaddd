"""Leads as values: normal forms, and files of them."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.audience import (
    LEAD_FIELDS,
    RowReader,
    complete_names,
    match_header,
    normalise_email_address,
    normalise_lead,
    plain_email,
)
from nexus_marketing.core.audience.countries import COUNTRIES
from nexus_marketing.core.errors import ValidationError

pytestmark = pytest.mark.req("FR-P2-009")


def by_library(text: str) -> str | None:
    try:
        return validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError:
        return None


#: Addresses near the border of what is one: pieces that matter, put together at random.
PIECES = st.sampled_from(
    [
        "a",
        "Z",
        "9",
        ".",
        "..",
        "-",
        "--",
        "_",
        "+",
        "@",
        "example",
        "com",
        "xn--",
        "INFO",
        "Postmaster",
        "ü",
        '"',
        "test",
        "local",
        "arpa",
        "onion",
        "invalid",
        "localhost",
        "co.uk",
        "[1.2.3.4]",
        "%",
        "'",
        "/",
        "0",
        " ",
        "\n",
        "x" * 62,
    ]
)
NEARLY = st.builds("".join, st.lists(PIECES, max_size=9))
SHAPED = st.builds(
    "{}@{}.{}".format,
    NEARLY,
    NEARLY,
    st.sampled_from(["com", "Org", "test", "c0m", "x", "museum", "local", "com.", ""]),
)


@given(st.one_of(NEARLY, SHAPED, st.emails(), st.text(max_size=40)))
def test_the_short_way_accepts_only_what_the_library_accepts_and_answers_the_same(text):
    found = plain_email(text)
    if found is not None:
        assert found == by_library(text)


@given(st.one_of(SHAPED, st.emails()))
def test_an_address_is_accepted_exactly_when_the_library_accepts_it(text):
    expected = by_library(text.strip(" \t\u00a0"))
    try:
        found = normalise_email_address(text)
    except ValidationError:
        found = None
    assert found == expected or (expected is not None and len(expected) > 240)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ann.Lee@Example.ORG", "Ann.Lee@example.org"),
        ("  ann@example.org ", "ann@example.org"),
        ("ann+tag@sub.example.co.uk", "ann+tag@sub.example.co.uk"),
        ("INFO@Example.org", "info@example.org"),
        ("grün@bücher.example", "grün@bücher.example"),
        ("ann@xn--bcher-kva.example", "ann@bücher.example"),
    ],
)
def test_addresses_have_one_normal_form(text, normal):
    assert normalise_email_address(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "ann@",
        "@example.org",
        "ann@localhost",
        "ann@example",
        "a..b@example.org",
        ".a@example.org",
        "a@b@example.org",
        "ann@example.test",
        "ann@-x.org",
        "a" * 65 + "@example.org",
        "ann@exa mple.org",
        '"a"@x.org',
        "ann@[127.0.0.1]",
        "Ann <ann@example.org>",
        "a@" + "x" * 64 + ".org",
        "a@" + "x.y" * 90 + ".org",
    ],
)
def test_what_is_no_address_is_refused_with_the_remedy(text):
    with pytest.raises(ValidationError, match="Write name@example"):
        normalise_email_address(text)


@pytest.mark.parametrize("name", [f for f in LEAD_FIELDS if f not in ("tags", "metadata")])
@pytest.mark.parametrize("evil", ["\r\nBcc: all@example.org", "\n", "\r", "\x00", "\x1b[31m", "\u2028", "\x85"])
def test_no_field_takes_a_line_break_or_control_character(name, evil):
    with pytest.raises(ValidationError) as refused:
        normalise_lead({name: f"a{evil}b"})
    assert refused.value.problems[0].code in ("control_character", "not_canonical")
    assert refused.value.problems[0].path == name


@pytest.mark.parametrize(
    ("field", "text", "stored"),
    [
        ("country", "de", "DE"),
        ("country", " ", None),
        ("locale", "zh_hant_tw", "zh-Hant-TW"),
        ("locale", "EN-us", "en-US"),
        ("locale", "es-419", "es-419"),
        ("phone", "0049 (30) 123-456", "+4930123456"),
        ("time_zone", "America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("name", "  Ann  Lee\u00a0", "Ann  Lee"),
        ("name", "Zoe\u0308", "Zo\u00eb"),
        ("tags", ["vip", " vip ", "", "beta"], ["vip", "beta"]),
        ("tags", None, []),
        ("metadata", None, {}),
        ("email", None, None),
    ],
)
def test_fields_have_one_stored_form(field, text, stored):
    assert normalise_lead({field: text})[field] == stored


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("country", "UK", "write GB"),
        ("country", "Germany", "two letters"),
        ("locale", "english", "BCP 47"),
        ("phone", "030 123456", r"\+4930123456"),
        ("phone", "+1", "E.164"),
        ("time_zone", "CEST", "IANA"),
        ("time_zone", "../etc/passwd", "IANA"),
        ("name", 5, "is text, not int"),
        ("name", "x" * 301, "at most 300"),
        ("tags", "vip", "list of texts"),
        ("tags", [str(n) for n in range(101)], "at most 100"),
        ("metadata", [1], "object"),
        ("metadata", {"n": 2**53}, "store it as text"),
        ("metadata", {"t": "\ud800"}, "surrogate"),
        ("contry", "DE", "did you mean country"),
        ("score", 5, "no field 'score'"),
    ],
)
def test_a_wrong_value_is_refused_with_the_remedy(field, value, said):
    with pytest.raises(ValidationError, match=said):
        normalise_lead({field: value})


def test_all_faults_are_told_at_once():
    with pytest.raises(ValidationError) as refused:
        normalise_lead({"email": "x", "country": "UK", "phone": "1"})
    assert [problem.path for problem in refused.value.problems] == ["email", "country", "phone"]


def test_the_countries_are_those_of_the_standard():
    assert len(COUNTRIES) == 249


@pytest.mark.parametrize(
    ("values", "current", "added"),
    [
        ({"name": "Ann"}, {}, {"first_name": "Ann", "last_name": None}),
        ({"name": "Ann van  Lee"}, {}, {"first_name": "Ann", "last_name": "van  Lee"}),
        ({"name": None}, {}, {"first_name": None, "last_name": None}),
        ({"first_name": "Ann"}, {"last_name": "Lee"}, {"name": "Ann Lee"}),
        ({"last_name": None}, {"first_name": "Ann", "last_name": "Lee"}, {"name": "Ann"}),
        ({"first_name": None}, {}, {"name": None}),
        ({"name": "Dr X", "first_name": "Ann"}, {}, {}),
        ({"country": "DE"}, {"name": "Ann"}, {}),
    ],
)
def test_the_parts_of_a_name_follow_each_other(values, current, added):
    assert complete_names(values, current) == added


# Files


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("email", "email"),
        (" E-Mail ", "email"),
        ("EMAIL ADDRESS", "email"),
        ("e-mail_adresse", "email"),
        ("First Name", "first_name"),
        ("Surname", "last_name"),
        ("Téléphone", "phone"),
        ("Telephone", "phone"),
        ("Country Code", "country"),
        ("Lang", "locale"),
        ("Timezone", "time_zone"),
        ("Customer ID", "external_id"),
        ("Opt-in date", "consent_at"),
        ("Größe (cm)", "metadata.grosse_cm"),
        ("metadata.Plan Type", "metadata.plan_type"),
        ("生年月日", "metadata.生年月日"),
    ],
)
def test_headers_are_matched_by_what_they_say(header, target):
    columns = match_header(["email", header]) if target != "email" else match_header([header])
    assert columns[-1].target == target


def reader(*header: str) -> RowReader:
    return RowReader(match_header(header), len(header), {}, lambda text: text)


def test_a_row_becomes_the_same_values_as_a_lead_from_the_api():
    cells = ["Ann@Example.org", "  Ann Lee", "nl", "zh_tw", "+31 20 1234567", "Europe/Amsterdam", "vip;beta|x"]
    fields = ["email", "name", "country", "locale", "phone", "time_zone", "tags"]
    by_file = reader(*fields).read(cells)
    document = dict(zip(fields, cells, strict=True)) | {"tags": ["vip", "beta", "x"]}
    by_api = normalise_lead(document)
    assert by_file == by_api


@given(st.text(max_size=30))
def test_any_cell_is_stored_as_the_api_would_store_it_or_refused_alike(text):
    try:
        expected = normalise_lead({"name": text})["name"] if text else None
    except ValidationError:
        expected = "refused"
    try:
        found = reader("email", "name").read(["a@example.org", text]).get("name")
    except ValidationError:
        found = "refused"
    assert found == expected


def test_an_empty_cell_says_nothing():
    values = reader("email", "name", "tags", "score", "plan").read(["a@example.org", "", " ", "", "  "])
    assert values == {"email": "a@example.org", "email_norm": "a@example.org"}


@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [
        ("score", "1_000", "not_a_number"),
        ("score", "nan", "not_a_number"),
        ("score", "1e400", "not_a_number"),
        ("score", "\u0661", "not_a_number"),
        ("plan", "a\x00b", "not_canonical"),
        ("plan", "a\udcffb", "not_utf8"),
        ("name", "a\udcffb", "not_utf8"),
        ("plan", "x" * 8_193, "too_long"),
        ("tags", "\x07", "control_character"),
        ("consent", "perhaps", "not_a_consent"),
    ],
)
def test_a_cell_without_meaning_is_refused(column, cell, code):
    header = ["email", column] + (["consent_at", "consent_source"] if column == "consent" else [])
    with pytest.raises(ValidationError) as refused:
        reader(*header).read(["a@example.org", cell, *[""] * (len(header) - 2)])
    assert refused.value.problems[0].code == code
