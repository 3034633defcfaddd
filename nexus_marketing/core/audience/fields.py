"""What a lead is allowed to look like: one normal form per field, whichever door it comes through.

The API, imports, plugins and the mixin call the same functions, so that a value that was accepted
once is found again by every look-up and condition.

>>> normalise_lead({"email": " Ann.Lee@Example.ORG", "name": "Ann Lee", "country": "de"})["email_norm"]
'ann.lee@example.org'
"""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from nexus_marketing.core.audience.countries import COUNTRIES, MISTAKEN
from nexus_marketing.core.conditions.clock import is_zone
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import Canonical, Limits, canonical, canonical_text, email_norm

#: A lead's metadata is small: it is read with every message and every condition.
METADATA_LIMITS: Final = Limits(depth=8, items=500, text_characters=8_192, total_characters=32_768)
MAX_TAGS: Final = 100

#: Accepts only what email-validator accepts, at a twentieth of its cost (24 us an address): ASCII,
#: an unquoted local part, and labels without the double hyphens that announce Punycode.
_PLAIN_EMAIL: Final = re.compile(
    r"([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)"
    r"@((?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+([A-Za-z]{2,63}))"
)
_LINE_BREAK: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CANONICAL_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_LOCALE: Final = re.compile(r"([a-z]{2,3})(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|[0-9]{3}))?", re.IGNORECASE)


def normalise_lead(data: Mapping[str, object], region: str | None = None) -> dict[str, Canonical]:
    """Bring the given fields into the form in which they are stored; absent fields stay absent.

    ``None`` clears a field. Beside ``email`` comes its folded companion ``email_norm``.

    Args:
        data: fields by name.
        region: the country whose numbers a phone without a country code is one of, unless ``data`` says one.

    Raises:
        ValidationError: every fault of every field, with what to do about it.
    """
    values: dict[str, Canonical] = {}
    problems: list[Problem] = []
    for name, value in data.items():
        try:
            values[name] = normalise_field(name, value, region=_region(data) or region)
        except ValidationError as error:
            problems.extend(error.problems)
    if problems:
        raise ValidationError(problems=problems)
    if "email" in values:
        email = values["email"]
        values["email_norm"] = email_norm(email) if isinstance(email, str) else None
    return values


def _region(data: Mapping[str, object]) -> str | None:
    code = str(data.get("country") or "").strip().upper()
    return code if code in COUNTRIES else None


def normalise_field(name: str, value: object, *, region: str | None = None) -> Canonical:
    """The stored form of one field; ``region`` as in :func:`normalise_lead`.

    Raises:
        ValidationError: at the field's name.
    """
    normalise = _FIELDS.get(name)
    if normalise is None:
        hint = get_close_matches(name, _FIELDS, n=1, cutoff=0.6)
        remedy = f"did you mean {hint[0]}?" if hint else "put what is your own into metadata."
        raise ValidationError.at(name, "unknown_field", f"A lead has no field {name[:80]!r}: {remedy}")
    if value is None and name not in ("tags", "metadata"):
        return None
    return _phone(value, region) if name == "phone" else normalise(value)


def complete_names(values: Mapping[str, Canonical], current: Mapping[str, str | None]) -> dict[str, Canonical]:
    """The parts of a name follow the whole and the whole follows its parts, unless both are given.

    The first word is the first name and the rest the last name: wrong for some cultures, which is
    why parts that are given are never replaced.

    Args:
        values: the fields being written.
        current: ``name``, ``first_name`` and ``last_name`` as stored.

    >>> complete_names({"name": "Ann van Lee"}, {})
    {'first_name': 'Ann', 'last_name': 'van Lee'}
    """
    parts = {"first_name", "last_name"} & values.keys()
    if "name" in values and not parts:
        first, _, last = str(values["name"] or "").partition(" ")
        return {"first_name": first or None, "last_name": last.strip() or None}
    if parts and "name" not in values:
        words = [values.get(part, current.get(part)) for part in ("first_name", "last_name")]
        return {"name": " ".join(str(word) for word in words if word) or None}
    return {}


def normalise_email_address(value: object) -> str:
    """An address that could be delivered to, its domain in lower case.

    Raises:
        ValidationError: code ``not_an_email``.
    """
    text = _line(value, "email", 320)
    plain = plain_email(text)
    return plain if plain is not None else _checked_by_library(text)


def plain_email(text: str) -> str | None:
    """The normal form of an ordinary ASCII address; ``None`` leaves the decision to the library.

    Whatever is answered here, email-validator answers too (``tests/unit/core/test_audience.py``).
    """
    match = _PLAIN_EMAIL.fullmatch(text)
    if match is None or len(text) > 254:
        return None
    local, domain, top = match.groups()
    if len(local) > 64 or len(domain) > 253 or top.lower() in _reserved():
        return None
    if max(map(len, domain.split("."))) > 63:
        return None
    return f"{local.lower() if local.lower() in _role_names() else local}@{domain.lower()}"


@lru_cache(maxsize=1)
def _reserved() -> frozenset[str]:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES  # noqa: PLC0415 - loaded on first use

    return frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)


@lru_cache(maxsize=1)
def _role_names() -> frozenset[str]:
    from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES  # noqa: PLC0415 - loaded on first use

    return frozenset(CASE_INSENSITIVE_MAILBOX_NAMES)


def _checked_by_library(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 - loaded on first use

    try:
        found = validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError as error:
        reason = str(error)
    else:
        if len(email_norm(found)) <= 254:
            return found
        reason = "It is longer than 254 characters."
    raise ValidationError.at(
        "email", "not_an_email", f"{text[:80]!a} is no e-mail address: {reason} Write name@example.com."
    )


def _line(value: object, name: str, longest: int) -> str:
    """Trimmed text of one line: a line break in a name is how headers are injected."""
    if not isinstance(value, str):
        raise ValidationError.at(name, "not_text", f"{name} is text, not {type(value).__name__}.")
    text = canonical_text(value.strip(" \t\u00a0"), name)
    if len(text) > longest:
        raise ValidationError.at(name, "too_long", f"{name} has {len(text)} characters, at most {longest} fit.")
    found = _LINE_BREAK.search(text)
    if found is not None:
        raise ValidationError.at(
            name,
            "control_character",
            f"{name} has the control character U+{ord(found[0]):04X} at position {found.start() + 1} "
            "(a line break, NUL or the like): remove it.",
        )
    return text


def _text(name: str, longest: int) -> Callable[[object], Canonical]:
    return lambda value: _line(value, name, longest) or None


def _phone(value: object, region: str | None = None) -> Canonical:
    text = _line(value, "phone", 40)
    if not text:
        return None
    # An international prefix that most of the world dials; the library takes it only together with a country.
    number = _e164("+" + text[2:] if text.startswith("00") else text, region)
    if number is None:
        remedy = "write it as +4930123456 (E.164)" + ("." if region else ", or say the country beside it.")
        raise ValidationError.at("phone", "not_a_phone", f"{text!a} is no phone number: {remedy}")
    return number


def _e164(text: str, region: str | None) -> str | None:
    """Numbers of a possible length pass: new ranges are in use before any library knows them."""
    import phonenumbers  # noqa: PLC0415 - loaded on first use

    try:
        found = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(found) or found.extension:
        return None
    number: str = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
    return number if _CANONICAL_PHONE.fullmatch(number) else None


def _country(value: object) -> Canonical:
    code = _line(value, "country", 80).upper()
    if not code or code in COUNTRIES:
        return code or None
    meant = f"write {MISTAKEN[code]}." if code in MISTAKEN else "write two letters of ISO 3166-1, such as DE or US."
    raise ValidationError.at("country", "not_a_country", f"{code!a} is no country code: {meant}")


def _locale(value: object) -> Canonical:
    text = _line(value, "locale", 40)
    if not text:
        return None
    match = _LOCALE.fullmatch(text)
    if match is None:
        raise ValidationError.at(
            "locale", "not_a_locale", f"{text!a} is no locale: write a BCP 47 tag such as en, de-DE or zh-Hant-TW."
        )
    language, script, region = match.groups()
    parts = (language.lower(), script and script.title(), region and region.upper())
    return "-".join(part for part in parts if part)


def _time_zone(value: object) -> Canonical:
    name = _line(value, "time_zone", 64)
    if not name or is_zone(name):
        return name or None
    raise ValidationError.at(
        "time_zone", "not_a_time_zone", f"{name!a} is no time zone: write an IANA name such as Europe/Berlin."
    )


def _tags(value: object) -> Canonical:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValidationError.at("tags", "not_a_list", "tags is a list of texts, for example ['vip', 'trial'].")
    tags = list(dict.fromkeys(tag for tag in (_line(each, "tags", 64) for each in value) if tag))
    if len(tags) > MAX_TAGS:
        raise ValidationError.at("tags", "too_many", f"tags has {len(tags)} entries, at most {MAX_TAGS} fit.")
    return list(tags)


def _metadata(value: object) -> Canonical:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValidationError.at("metadata", "not_an_object", "metadata is an object of names and values.")
    return canonical(value, "metadata", METADATA_LIMITS)


_FIELDS: Final[Mapping[str, Callable[[object], Canonical]]] = {
    "email": normalise_email_address,
    "name": _text("name", 300),
    "first_name": _text("first_name", 150),
    "last_name": _text("last_name", 150),
    "external_id": _text("external_id", 200),
    "phone": _phone,
    "country": _country,
    "locale": _locale,
    "time_zone": _time_zone,
    "tags": _tags,
    "metadata": _metadata,
}
LEAD_FIELDS: Final = tuple(_FIELDS)
