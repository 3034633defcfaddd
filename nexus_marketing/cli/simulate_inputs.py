"""What a simulation is given: the journey's file, leads, a tenant's folder, prices, a start."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from nexus_marketing.core.audience import FieldRule, ImportOptions, read_rule
from nexus_marketing.core.audience.custom import DECLARABLE
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.engine.simulation import Person, made_up, person_of
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.delays import local_instant
from nexus_marketing.core.money import minor_units
from nexus_marketing.core.values import (
    DATE_SHAPE,
    canonical,
    canonical_datetime,
    parse_date,
    parse_datetime,
    parse_json,
    parse_local_time,
)

MOST_LEADS = 1_000_000
_PIECE = 10_000
_YEARS = range(1970, 3_000)
_LOCAL_SHAPE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d\Z")


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A tenant as its folder says: settings, and the types of its own fields."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, FieldType] = field(default_factory=dict)


def local_settings(folder: Path | None) -> LocalSettings:
    """The settings of a tenant's folder, or of nobody.

    Raises:
        ValidationError: there is not exactly one tenant, or its file has faults.
    """
    if folder is None:
        return LocalSettings()
    from nexus_marketing.services.declarations import read_declarations

    found = read_declarations(folder.parent if folder.is_file() else folder)
    if len(found) != 1:
        names = ", ".join(each.slug for each in found)
        raise ValidationError.at("--settings", "not_one_tenant", f"There are several tenants: name one of {names}.")
    settings = found[0].settings
    declared: Any = settings.get("fields", {})
    rules = [read_rule(name, said if isinstance(said, Mapping) else {"type": said}) for name, said in declared.items()]
    return LocalSettings(settings, {rule.name: rule.type for rule in rules})


def read_file(path: Path) -> dict[str, Any]:
    """A journey's document: JSON, or TOML by its ending.

    Raises:
        ValidationError: it is neither, or no object.
    """
    if path.suffix == ".toml":
        try:
            found: Any = canonical(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValidationError.at("", "not_toml", f"{path.name} cannot be read: {error}.") from error
    else:
        try:
            found = parse_json(path.read_bytes())
        except ValidationError as error:
            told = "; ".join(each.message for each in error.problems)
            raise ValidationError.at("", error.problems[0].code, f"{path.name} is {told}.") from error
    if not isinstance(found, dict):
        raise ValidationError.at("", "not_an_object", f"{path.name} holds no object of names and values.")
    return found


def read_costs(given: Iterable[str], currency: str) -> dict[str, int]:
    """Prices of 1,000 messages in minor units, from ``CHANNEL=AMOUNT``.

    Raises:
        ValidationError: it is no pair, or no amount.
    """
    found = {}
    for text in given:
        channel, equals, amount = text.partition("=")
        if not channel or not equals:
            raise ValidationError.at("--cost", "not_a_pair", f"{text!r}: write CHANNEL=AMOUNT, such as sms=70.")
        found[channel] = minor_units(amount, currency, f"--cost {channel}")
    return found


def read_start(text: str, zone: ZoneInfo) -> datetime:
    """A day, a reading of the tenant's clock, or a moment.

    Raises:
        ValidationError: it is none of them, or not of these centuries.
    """
    if DATE_SHAPE.match(text):
        found = local_instant(parse_date(text, "--from"), time(), zone)
    elif _LOCAL_SHAPE.match(text):
        local = parse_local_time(text, "--from")
        found = local_instant(local.date(), local.time(), zone)
    else:
        found = parse_datetime(text, "--from")
    if found.year not in _YEARS:
        raise ValidationError.at("--from", "out_of_bounds", f"{text} is not of the years 1970 to 2999.")
    return found


def read_leads(
    said: str, fields: Mapping[str, FieldType], start: datetime, zone: str, seed: str
) -> tuple[list[Person], int]:
    """The leads, and how many rows of their file are none.

    Raises:
        ValidationError: there is no such file, it cannot be read as leads, or there are none.
    """
    if said.isascii() and said.isdigit():
        count = int(said[:9])
        if not 1 <= count <= MOST_LEADS:
            raise ValidationError.at("--leads", "out_of_bounds", f"{said} leads: make up 1 to {MOST_LEADS}.")
        return list(made_up(count, seed, start, zone)), 0
    with _about_leads():
        people, rejected = _from_file(Path(said), fields, start, zone)
    if not people:
        raise ValidationError.at("--leads", "empty", f"{said} has no row that is a lead ({rejected} are none).")
    return people, rejected


def _from_file(path: Path, fields: Mapping[str, FieldType], start: datetime, zone: str) -> tuple[list[Person], int]:
    from nexus_marketing.services.imports.rows import RowSource

    rules: dict[str, FieldRule] = {
        name: read_rule(name, {"type": str(kind)}) for name, kind in fields.items() if kind in DECLARABLE
    }
    source = RowSource.open(
        path, ImportOptions(), rules, canonical_datetime(datetime.max.replace(tzinfo=UTC)), may_consent=True
    )
    people, rejected = [], 0
    for piece in source.pieces(_PIECE):
        words = {act.row_no: act.word for act in piece.consents}
        rejected += len(piece.errors) + piece.duplicate
        for row in piece.rows:
            number = int(str(row.pop("row_no")))
            values = {name: value for name, value in row.items() if value is not None}
            if number in words:
                values["consent"] = str(words[number])
            people.append(person_of(number, values, start, zone))
    return sorted(people, key=lambda person: int(person.id)), rejected


@contextmanager
def _about_leads() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise error.under("leads") from error
