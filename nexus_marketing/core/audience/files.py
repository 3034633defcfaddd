"""A row of a table as a lead's values.

Pure and fast: a row of eight columns takes about 6 us, because ordinary text is recognised by two
method calls and answers for countries, locales and zones are remembered.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final

import orjson

from nexus_marketing.core.audience.exporting import TAG_BREAK, WORDS, restored
from nexus_marketing.core.audience.fields import METADATA_LIMITS, normalise_field, plain_email
from nexus_marketing.core.audience.headers import KEYS, Column
from nexus_marketing.core.audience.importing import METADATA, ColumnPolicy, ImportOptions
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical, canonical_text, email_norm

_NOT_WORD: Final = re.compile(r"[^a-z0-9]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MEMORY: Final = 2_000

Converter = Callable[[str], Canonical]


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
    """Turns rows of one table into lead values; made once per file.

    Args:
        columns: from :func:`match_header`.
        width: how many cells a row has.
        declared: converters of the tenant's own fields, by metadata key.
        instant: reads the moment of a consent as canonical text.
        options: what clears a field, and whose phone numbers have no country code.
        is_ours: we wrote the file, so that apostrophes before what looks like a formula are ours.
    """

    __slots__ = ("_cells", "_keys", "_null", "_phone", "_region", "_width")

    def __init__(
        self,
        columns: Sequence[Column],
        width: int,
        declared: Mapping[str, Converter],
        instant: Converter,
        options: ImportOptions | None = None,
        *,
        is_ours: bool = False,
    ) -> None:
        options = options or ImportOptions()
        self._width, self._null, self._region = width, options.null_text, options.region
        self._cells = [
            (column.index, column.target, column.key, _converter(column, declared, instant, options, is_ours=is_ours))
            for column in columns
            if column.target != "phone"
        ]
        # Read last: what a number means depends on the row's country.
        self._phone = next((column.index for column in columns if column.target == "phone"), None)
        targets = {column.target for column in columns}
        self._keys = [key for key in KEYS if key in targets]

    def read(self, cells: Sequence[str]) -> dict[str, Canonical]:
        """The values of one row; an empty cell says nothing about its field, ``None`` clears it.

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
        null = self._null
        for index, target, key, convert in self._cells:
            cell = cells[index]
            if cell:
                if cell == null:
                    if key is not None:
                        metadata[key] = None
                    elif target in _CLEARABLE:
                        values[target] = None
                    continue
                value = convert(cell)
                if value is not None:
                    if key is None:
                        values[target] = value
                    else:
                        metadata[key] = value
        if self._phone is not None and (cell := cells[self._phone]):
            values.update(self._read_phone(cell, values.get("country")))
        if metadata:
            whole: Any = values.get(METADATA)
            values[METADATA] = {**whole, **metadata} if whole else metadata
        fold_keys(values, self._keys)
        return values

    def _read_phone(self, cell: str, country: Canonical) -> Mapping[str, Canonical]:
        if cell == self._null:
            return {"phone": None}
        phone = normalise_field("phone", cell, region=str(country) if country else self._region)
        return {} if phone is None else {"phone": phone}


#: What an explicit null may clear: not who the row is, and nothing about consent.
_CLEARABLE: Final = frozenset(
    {"name", "first_name", "last_name", "country", "locale", "time_zone", "tags", "score", "phone"}
)


def fold_keys(values: dict[str, Canonical], keys: Sequence[str]) -> None:
    """Set the folded companion of the address, and see that a row says who it is.

    Args:
        keys: which of the keys the file has.

    Raises:
        ValidationError: it has none of them.
    """
    email = values.get("email")
    if email is not None:
        values["email_norm"] = str(email).lower() if str(email).isascii() else email_norm(str(email))
    elif not (values.get("external_id") or values.get("phone")):
        path = "email" if "email" in keys else keys[0] if keys else "email"
        names = " or ".join(_KEY_NAMES[key] for key in keys) or _KEY_NAMES["email"]
        raise ValidationError.at(path, "required", f"The row has no {names}: add it or remove the row.")


_KEY_NAMES: Final = {"external_id": "external id", "email": "e-mail address", "phone": "phone number"}


def _converter(
    column: Column, declared: Mapping[str, Converter], instant: Converter, options: ImportOptions, *, is_ours: bool
) -> Converter:
    convert = _plain_converter(column, declared, instant, options)
    if is_ours and column.target in (*WORDS, "tags"):
        return lambda cell: convert(restored(cell))
    return convert


def _plain_converter(
    column: Column, declared: Mapping[str, Converter], instant: Converter, options: ImportOptions
) -> Converter:
    if column.key is not None:
        return _checking_text(declared.get(column.key) or _free_text, column.target)
    special: Mapping[str, Converter] = {
        "email": _email,
        "tags": _tags,
        METADATA: partial(_object, options),
        "score": _score,
        "consent": consent_word,
        "consent_at": instant,
        "consent_source": partial(evidence, "consent_source"),
        "consent_ip": partial(evidence, "consent_ip"),
        "consent_text_version": partial(evidence, "consent_text_version"),
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


def _object(options: ImportOptions, text: str) -> Canonical:
    try:
        found = orjson.loads(_whole(text, METADATA, keep_breaks=True))
    except orjson.JSONDecodeError:
        found = text
    return normalise_field(METADATA, nested_metadata(found, options)) or None


def nested_metadata(value: Canonical, options: ImportOptions) -> Mapping[str, Canonical]:
    """The keys of an object of own fields that are read.

    Raises:
        ValidationError: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        said = "metadata is a JSON object of names and values: map the column to metadata.<key> if it is one of them."
        raise ValidationError.at(METADATA, "not_an_object", said)
    ignored = {name for name, policy in options.policies.items() if policy is ColumnPolicy.IGNORE}
    return {name: each for name, each in value.items() if f"{METADATA}.{name}" not in ignored}


def _tags(text: str) -> Canonical:
    if text.startswith("["):
        listed = _listed(_whole(text, "tags", keep_breaks=True))
        if listed is not None:
            return normalise_field("tags", listed) or None
    return normalise_field("tags", list(TAG_BREAK.split(_whole(text, "tags", keep_breaks=True)))) or None


def _listed(text: str) -> list[Canonical] | None:
    """A JSON list of texts; nothing where tags only begin with a bracket."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


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


def consent_word(text: str) -> Canonical:
    """What a cell says about consent; nothing for "no", which gives none and withdraws none."""
    word = _NOT_WORD.sub("_", text.strip().lower()).strip("_")
    if word not in _CONSENT_WORDS:
        raise ValidationError.at(
            "consent", "not_a_consent", f"{text[:40]!a} says nothing about consent: write yes, no or withdrawn."
        )
    found = _CONSENT_WORDS[word]
    return None if found is None else str(found)


def evidence(target: str, text: str) -> Canonical:
    """One line of what proves a consent."""
    trimmed = _whole(text.strip(), target)
    if len(trimmed) > 200 or not trimmed.isprintable():
        raise ValidationError.at(target, "too_long", f"{target} is one line of at most 200 characters.")
    return trimmed or None


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
