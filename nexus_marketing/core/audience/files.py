"""Files of leads: which column is which field, and a row of text as a lead's values.

Pure and fast: a row of eight columns takes about 6 us, because ordinary text is recognised by two
method calls and answers for countries, locales and zones are remembered.

>>> columns = match_header(["E-Mail", "Full Name", "Plan"])
>>> [column.target for column in columns]
['email', 'name', 'metadata.plan']
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nexus_marketing.core.audience.fields import METADATA_LIMITS, normalise_field, plain_email
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import Canonical, canonical_text, email_norm

MAX_COLUMNS: Final = 500
_EMAIL_WORDS: Final = "email e_mail mail email_address e_mail_address mail_address emailaddress e_mail_adresse"
_SYNONYMS: Final[Mapping[str, str]] = {
    "email": _EMAIL_WORDS,
    "name": "name full_name fullname contact contact_name display_name",
    "first_name": "first_name firstname first given_name givenname forename",
    "last_name": "last_name lastname last surname family_name familyname",
    "external_id": "external_id externalid customer_id customerid user_id contact_id crm_id",
    "phone": "phone phone_number phonenumber telephone tel mobile mobile_phone cell cell_phone",
    "country": "country country_code countrycode country_iso iso_country",
    "locale": "locale language lang language_code preferred_language",
    "time_zone": "time_zone timezone tz zone zoneinfo",
    "tags": "tags tag labels label",
    "score": "score lead_score leadscore",
    "consent": "consent opt_in optin opted_in marketing_consent gdpr_consent subscribed",
    "consent_at": "consent_at consent_date consent_time opt_in_at opt_in_date opted_in_at optin_at optin_date",
    "consent_source": "consent_source opt_in_source optin_source consent_origin",
    "consent_ip": "consent_ip opt_in_ip optin_ip ip ip_address consent_ip_address",
    "consent_text_version": "consent_text_version consent_version",
}
_TARGETS: Final = {word: target for target, words in _SYNONYMS.items() for word in words.split()}
EVIDENCE: Final = ("consent_at", "consent_source")
_NOT_WORD: Final = re.compile(r"[^a-z0-9]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TAG_BREAK: Final = re.compile(r"[,;|]")
_MEMORY: Final = 2_000

Converter = Callable[[str], Canonical]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file: its place from 0, its header as written, and the field it fills.

    ``target`` is a lead field, one of the consent columns, or ``metadata.<key>``.
    """

    index: int
    header: str
    target: str

    @property
    def key(self) -> str | None:
        """The key in ``metadata``, or nothing for a field of its own."""
        return self.target[9:] if self.target.startswith("metadata.") else None


def match_header(header: Sequence[str]) -> list[Column]:
    """Find the field of each column by its name; what no field answers to goes into ``metadata``.

    Raises:
        ValidationError: two columns for one field, no e-mail column, a column without a name,
            or consent without the columns that prove it; each with column number and remedy.
    """
    if len(header) > MAX_COLUMNS:
        raise ValidationError.at(
            "header", "too_many_columns", f"The file has {len(header)} columns, at most {MAX_COLUMNS} fit."
        )
    problems: list[Problem] = []
    columns: list[Column] = []
    taken: dict[str, Column] = {}
    for index, text in enumerate(header):
        column = Column(index, text.strip(), _target(text))
        if not column.header:
            problems.append(_at(index, "empty_header", f"Column {index + 1} has no name: name it or remove it."))
        elif column.target in taken:
            problems.append(_duplicate(taken[column.target], column))
        else:
            taken[column.target] = column
            columns.append(column)
    problems += _missing(taken, header)
    if problems:
        raise ValidationError(problems=problems)
    return columns


def _target(header: str) -> str:
    folded = unicodedata.normalize("NFKD", header).casefold()
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    if plain.strip().startswith("metadata."):
        plain = plain.strip()[9:]
        return f"metadata.{_slug(plain, header)}"
    slug = _NOT_WORD.sub("_", plain).strip("_")
    return _TARGETS.get(slug) or f"metadata.{_slug(plain, header)}"


def _slug(plain: str, header: str) -> str:
    return _NOT_WORD.sub("_", plain).strip("_")[:64] or canonical_text(header.strip())[:64]


def _duplicate(first: Column, second: Column) -> Problem:
    message = (
        f"Columns {first.index + 1} ({first.header!a}) and {second.index + 1} ({second.header!a}) "
        f"both mean {first.target}: remove or rename one."
    )
    return _at(second.index, "duplicate_header", message)


def _missing(taken: Mapping[str, Column], header: Sequence[str]) -> list[Problem]:
    problems = []
    if "email" not in taken:
        found = ", ".join(repr(text.strip()[:40]) for text in header[:12])
        message = f"No column is the e-mail address: the header is {found}; name one of them 'email'."
        problems.append(Problem("header", "no_email_column", message))
    if "consent" in taken:
        for name in EVIDENCE:
            if name not in taken:
                message = (
                    f"consent counts only with evidence: add a column {name}, or remove {taken['consent'].header!a}."
                )
                problems.append(Problem("header", "no_consent_evidence", message))
    return problems


def _at(index: int, code: str, message: str) -> Problem:
    return Problem(f"header.{index + 1}", code, message)


class ConsentWord(StrEnum):
    """What a cell of the consent column says; anything else but "no" is refused."""

    GIVEN = "given"
    WITHDRAWN = "withdrawn"


_CONSENT_WORDS: Final[Mapping[str, ConsentWord | None]] = {
    **dict.fromkeys(("yes", "y", "true", "1", "x", "granted", "given", "opted_in", "subscribed"), ConsentWord.GIVEN),
    **dict.fromkeys(("withdrawn", "revoked", "unsubscribed", "opted_out", "opt_out"), ConsentWord.WITHDRAWN),
    **dict.fromkeys(("", "no", "n", "false", "0"), None),
}


class RowReader:
    """Turns rows of one file into lead values; made once per file.

    Args:
        columns: from :func:`match_header`.
        declared: converters of the tenant's own fields, by metadata key.
        instant: reads the moment of a consent as canonical text.
    """

    __slots__ = ("_cells", "_splits_name", "_width")

    def __init__(
        self, columns: Sequence[Column], width: int, declared: Mapping[str, Converter], instant: Converter
    ) -> None:
        self._width = width
        self._cells = [
            (column.index, column.target, column.key, _converter(column, declared, instant)) for column in columns
        ]
        targets = {column.target for column in columns}
        self._splits_name = "name" in targets and not targets & {"first_name", "last_name"}

    def read(self, cells: Sequence[str]) -> dict[str, Canonical]:
        """The values of one row; an empty cell says nothing about its field.

        Raises:
            ValidationError: the first cell that is wrong; its path is the field or ``metadata.<key>``.
        """
        if len(cells) != self._width:
            raise ValidationError.at(
                "row",
                "wrong_width",
                f"The row has {len(cells)} cells, the header {self._width}: mend quotes or commas.",
            )
        values: dict[str, Canonical] = {}
        metadata: dict[str, Canonical] = {}
        for index, target, key, convert in self._cells:
            cell = cells[index]
            if cell:
                value = convert(cell)
                if value is not None:
                    if key is None:
                        values[target] = value
                    else:
                        metadata[key] = value
        email = values.get("email")
        if email is None:
            raise ValidationError.at("email", "required", "The row has no e-mail address: add it or remove the row.")
        values["email_norm"] = str(email).lower() if str(email).isascii() else email_norm(str(email))
        if metadata:
            values["metadata"] = metadata
        self._complete(values)
        return values

    def _complete(self, values: dict[str, Canonical]) -> None:
        name = values.get("name")
        if self._splits_name and name is not None:
            first, _, last = str(name).partition(" ")
            values["first_name"] = first
            if last:
                values["last_name"] = last.strip()
        elif name is None and (parts := [values[part] for part in ("first_name", "last_name") if part in values]):
            values["name"] = " ".join(map(str, parts))


def _converter(column: Column, declared: Mapping[str, Converter], instant: Converter) -> Converter:
    if column.key is not None:
        return _checking_text(declared.get(column.key) or _free_text, column.target)
    special: Mapping[str, Converter] = {
        "email": _email,
        "tags": _tags,
        "score": _score,
        "consent": _consent,
        "consent_at": instant,
        "consent_source": _evidence("consent_source"),
        "consent_ip": _evidence("consent_ip"),
        "consent_text_version": _evidence("consent_text_version"),
        "name": _plain_or("name", 300),
        "first_name": _plain_or("first_name", 150),
        "last_name": _plain_or("last_name", 150),
        "external_id": _plain_or("external_id", 200),
    }
    found = special.get(column.target)
    return found if found is not None else _remembering(lambda text: normalise_field(column.target, text))


def _checking_text(convert: Converter, path: str) -> Converter:
    def checked(text: str) -> Canonical:
        trimmed = text.strip()
        if not trimmed:
            return None
        if not trimmed.isascii() or not trimmed.isprintable():
            trimmed = _whole(trimmed, path)
        return convert(trimmed)

    return checked


def _free_text(text: str) -> Canonical:
    if len(text) > METADATA_LIMITS.text_characters:
        raise ValidationError.at("metadata", "too_long", f"The cell has {len(text)} characters, at most 8192 fit.")
    return text


def _plain_or(target: str, longest: int) -> Converter:
    def convert(text: str) -> Canonical:
        trimmed = text.strip(" ")
        if trimmed.isascii() and trimmed.isprintable() and len(trimmed) <= longest:
            return trimmed or None
        return normalise_field(target, _whole(text, target, keep_breaks=True))

    return convert


def _whole(text: str, path: str, *, keep_breaks: bool = False) -> str:
    if _SURROGATE.search(text):
        raise ValidationError.at(
            path, "not_utf8", f"{text[:40]!a} has bytes that are not UTF-8: save the file as UTF-8."
        )
    return text if keep_breaks else canonical_text(text, path)


def _email(text: str) -> Canonical:
    plain = plain_email(text.strip(" \t"))
    return (
        plain
        if plain is not None
        else normalise_field("email", _whole(text, "email", keep_breaks=True).strip() or None)
    )


def _tags(text: str) -> Canonical:
    return normalise_field("tags", list(_TAG_BREAK.split(_whole(text, "tags", keep_breaks=True)))) or None


def _score(text: str) -> Canonical:
    try:
        number = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        number = float("nan")
    if not -1e15 < number < 1e15:
        raise ValidationError.at(
            "score", "not_a_number", f"{text[:40]!a} is no score: write a number such as 12 or 12.5."
        )
    return number


def _consent(text: str) -> Canonical:
    word = _NOT_WORD.sub("_", text.strip().lower()).strip("_")
    if word not in _CONSENT_WORDS:
        raise ValidationError.at(
            "consent", "not_a_consent", f"{text[:40]!a} says nothing about consent: write yes, no or withdrawn."
        )
    found = _CONSENT_WORDS[word]
    return None if found is None else str(found)


def _evidence(target: str) -> Converter:
    def convert(text: str) -> Canonical:
        trimmed = _whole(text.strip(), target)
        if len(trimmed) > 200 or not trimmed.isprintable():
            raise ValidationError.at(target, "too_long", f"{target} is one line of at most 200 characters.")
        return trimmed or None

    return convert


def _remembering(convert: Converter) -> Converter:
    """Few countries, locales and zones fill many rows: remember what was answered."""
    memory: dict[str, Canonical] = {}

    def remembered(text: str) -> Canonical:
        try:
            return memory[text]
        except KeyError:
            value = convert(text)
            if len(memory) < _MEMORY:
                memory[text] = value
            return value

    return remembered
