"""Which column of a file is which field of a lead.

>>> columns = match_header(["E-Mail", "Full Name", "Plan"])
>>> [column.target for column in columns]
['email', 'name', 'metadata.plan']
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nexus_marketing.core.audience.exporting import is_our_own
from nexus_marketing.core.audience.importing import IGNORED, METADATA, ColumnPolicy, ImportOptions
from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.values import canonical_text

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
#: Any of which says who a row is, the first that it has first.
KEYS: Final = ("external_id", "email", "phone")
_NOT_WORD: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file: its place from 0, its header as written, and the field it fills.

    ``target`` is a lead field, one of the consent columns, ``metadata.<key>``, or ``metadata`` for an object of keys.
    """

    index: int
    header: str
    target: str

    @property
    def key(self) -> str | None:
        """The key in ``metadata``, or nothing for a field of its own."""
        return self.target[9:] if self.target.startswith("metadata.") else None


def match_header(header: Sequence[str], options: ImportOptions | None = None) -> list[Column]:
    """Find the field of each column: as the caller maps it, else by its name; what no field answers to
    goes into ``metadata``. Columns that are to be ignored are left out, and in files that we wrote
    ourselves those that nobody else decides (``id``, ``created_at``, ``updated_at``).

    Raises:
        ValidationError: two columns for one field, no column that says who a row is, a column without
            a name, a mapping of a column that is not there, or consent without the columns that prove
            it; each with column number and remedy.
    """
    options = options or ImportOptions()
    if len(header) > MAX_COLUMNS:
        raise ValidationError.at(
            "header", "too_many_columns", f"The file has {len(header)} columns, at most {MAX_COLUMNS} fit."
        )
    problems = _unknown(header, options.mapping)
    mapping = options.mapping_for(is_ours=is_our_own(header))
    columns: list[Column] = []
    taken: dict[str, Column] = {}
    for index, text in enumerate(header):
        column = Column(index, text.strip(), mapping.get(text.strip()) or target_of(text))
        if not column.header:
            problems.append(_at(index, "empty_header", f"Column {index + 1} has no name: name it or remove it."))
        elif column.target == IGNORED or options.policies.get(column.target) is ColumnPolicy.IGNORE:
            continue
        elif column.target in taken:
            problems.append(_duplicate(taken[column.target], column))
        else:
            taken[column.target] = column
            columns.append(column)
    problems += _missing(taken, header)
    if problems:
        raise ValidationError(problems=problems)
    return columns


def _unknown(header: Sequence[str], mapping: Mapping[str, str]) -> list[Problem]:
    present = [text.strip() for text in header]
    return [
        Problem(f"mapping.{name}", "unknown_column", f"The file has no column {name!a}{hint(name, present[:20])}.")
        for name in mapping
        if name not in present
    ]


def target_of(header: str) -> str:
    """The field that a column of this name fills, without a word of the caller."""
    if header.strip() == METADATA:
        return METADATA
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
    if not taken.keys() & set(KEYS):
        found = ", ".join(repr(text.strip()[:40]) for text in header[:12])
        message = (
            f"No column says who a row is: the header is {found}; name or map one of them 'email', "
            "'external_id' or 'phone'."
        )
        problems.append(Problem("header", "no_key_column", message))
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
