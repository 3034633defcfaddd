"""Events that programs report: one row of input as the values that are stored.

By far the most rows are of one shape, which :func:`_ordinary` reads at half the price. Others pass :func:`_is_plain`,
which costs a tenth of a validator; what it does not know for certain is held against the schema, which names every
fault.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from nexus_marketing.core.engagements.agents import machine_hint
from nexus_marketing.core.engagements.vocabulary import EngagementType, MachineHint, Verdict
from nexus_marketing.core.engagements.words import search_words
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.schemas import Form, Schema
from nexus_marketing.core.values import MAX_INTEGER, Limits, canonical, canonical_text, email_norm, parse_datetime

#: How old a reported event may be, and how far a client's clock may run ahead.
OLDEST = timedelta(days=35)
_FUTURE = timedelta(minutes=5)
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
#: One event's properties: a row of a table of millions.
_LIMITS = Limits(depth=6, items=256, text_characters=8_192, total_characters=16_384)
_MAX_NOTES = 10_000
#: Canonical text but for its fraction, which may be left out or have milliseconds; its day may be none.
_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{3}|\.[0-9]{6})?Z")
_SECONDS, _CANONICAL = 20, 27

EVENT_SCHEMA: Schema = {
    "type": {"type": "string", "required": True, "allowed": [str(each) for each in EngagementType]},
    "name": {"type": "string", "regex": _NAME.pattern},
    "lead_id": {"type": "id", "check_with": "id"},
    "external_id": {"type": "string", "minlength": 1, "maxlength": 255},
    "email": {"type": "string", "minlength": 3, "maxlength": 320},
    "event_id": {"type": "string", "minlength": 1, "maxlength": 128},
    "campaign_id": {"type": "id", "nullable": True, "check_with": "id"},
    "channel": {"type": "string", "nullable": True, "maxlength": 64},
    "tracked_at": {"type": "string", "maxlength": 40},
    "notes": {"type": "string", "nullable": True, "maxlength": _MAX_NOTES},
    "metadata": {"type": "dict", "nullable": True},
    "properties": {"type": "dict", "nullable": True},
    "user_agent": {"type": "string", "maxlength": 2048},
}
SERVER_FIELDS = frozenset({"id", "tenant_id", "verdict", "machine_hint", "send_id", "seq", "link", "words"})
_FORM = Form(EVENT_SCHEMA)
_TYPES = frozenset(EngagementType)
_CUSTOM = str(EngagementType.CUSTOM)
_NAMELESS = frozenset(str(each) for each in _TYPES - {_CUSTOM})
_HUMAN = str(Verdict.HUMAN)
_ORDINARY = {"type", "lead_id", "event_id", "campaign_id", "tracked_at", "metadata"}
_LENGTHS = {"external_id": (1, 255), "event_id": (1, 128), "channel": (0, 64), "tracked_at": (0, 40)}
#: Shorter numbers are those of the database, whatever their digits.
_DIGITS = 19
_IDS = frozenset({"lead_id", "campaign_id"})
_LEADS = ("lead_id", "external_id", "email")
_VERDICTS = {None: Verdict.HUMAN, MachineHint.SCANNER: Verdict.MACHINE, MachineHint.PROXY: Verdict.UNKNOWN}


@dataclass(slots=True)
class ReportedEvent:
    """An event as it is stored, but for the lead's id where another name of the lead was given.

    ``values`` has the keys of the table's columns; ``tracked_at`` is canonical text.
    """

    values: dict[str, Any]
    event_id: str | None
    lead: tuple[str, str | int]
    campaign_id: int | None

    @property
    def day(self) -> str:
        """The day (UTC) it counts on, as text."""
        return str(self.values["tracked_at"][:10])


def read_event(row: Any, now: datetime) -> ReportedEvent:
    """A row of input as an event.

    Raises:
        ValidationError: every fault of its form; else the first of its meaning.
    """
    event = _ordinary(row, now)
    if event is not None:
        return event
    if not _is_plain(row):
        if not isinstance(row, dict):
            raise ValidationError.at("", "not_an_object", "Each engagement is a JSON object.")
        _FORM.check(row, SERVER_FIELDS)
    type_ = row["type"]
    name = _name(type_, row.get("name"))
    attributes = _attributes(row, type_)
    notes = row.get("notes")
    if notes is not None:
        notes = canonical_text(notes, "notes")
    agent = row.get("user_agent")
    hint = None if agent is None else machine_hint(agent)
    campaign = row.get("campaign_id")
    values = {
        "tracked_at": _moment(row.get("tracked_at"), now),
        "type": type_,
        "verdict": _VERDICTS[hint],
        "metadata": attributes,
    }
    if name is not None:
        values["name"] = name
    if hint is not None:
        values["machine_hint"] = hint
    if notes is not None:
        values["notes"] = notes
    if notes or attributes:
        values["words"] = search_words(notes, attributes)
    channel = row.get("channel")
    if channel is not None:
        values["channel"] = canonical_text(channel, "channel")
    event_id = row.get("event_id")
    return ReportedEvent(
        values,
        None if event_id is None else canonical_text(event_id, "event_id"),
        _lead(row),
        None if campaign is None else int(campaign),
    )


def _ordinary(row: Any, now: datetime) -> ReportedEvent | None:
    """The event of a row of the usual shape that leaves nothing in doubt; nothing where it is any other."""
    if type(row) is not dict or row.keys() != _ORDINARY:
        return None
    type_, lead, event_id, campaign = row["type"], row["lead_id"], row["event_id"], row["campaign_id"]
    moment, attributes = row["tracked_at"], row["metadata"]
    if not (
        (type(type_) is type(lead) is type(event_id) is type(campaign) is type(moment) is str)
        and type(attributes) is dict
        and type_ in _NAMELESS
        and _is_number(lead)
        and _is_number(campaign)
        and 0 < len(event_id) <= _LENGTHS["event_id"][1]
        and event_id.isascii()
        and "\x00" not in event_id
        and _is_canonical(attributes)
    ):
        return None
    values: dict[str, Any] = {
        "tracked_at": _moment(moment, now),
        "type": type_,
        "verdict": _HUMAN,
        "metadata": attributes,
    }
    if attributes:
        values["words"] = search_words(None, attributes)
    return ReportedEvent(values, event_id, ("lead_id", int(lead)), int(campaign))


def event_ids_of(rows: Iterable[Any]) -> set[str]:
    """The event ids of rows as :func:`read_event` reads them, but for those that are refused for theirs."""
    low, high = _LENGTHS["event_id"]
    given = {id_ for id_ in _texts_of(rows, "event_id") if low <= len(id_) <= high}
    together = "".join(given)
    if together.isascii() and "\x00" not in together:
        return given
    found = set()
    for id_ in given:
        with suppress(ValidationError):
            found.add(canonical_text(id_))
    return found


def ids_named(rows: Iterable[Any], field: str) -> set[int]:
    """The numbers that a field of ids has in rows: of what :func:`read_event` reads, and perhaps of what it refuses."""
    return {int(text) for text in _texts_of(rows, field) if text.isascii() and text.isdigit() and len(text) < _DIGITS}


def _texts_of(rows: Iterable[Any], field: str) -> set[str]:
    return {text for row in rows if type(row) is dict and type(text := row.get(field)) is str}


def receipt_days(now: datetime) -> list[date]:
    """Under which days an event id is taken: around midnight the coming one too.

    A copy that is taken in just after midnight then waits at the key that the first one holds.
    """
    moment = now.astimezone(UTC)
    tomorrow = (moment + timedelta(minutes=10)).date()
    return [moment.date()] if tomorrow == moment.date() else [moment.date(), tomorrow]


def _is_plain(row: Any) -> bool:
    """Whether the schema has nothing against a row, for certain; what is unusual is left to the schema."""
    if type(row) is not dict or "type" not in row:
        return False
    for key, value in row.items():
        kind = type(value)
        if key in _LENGTHS:
            low, high = _LENGTHS[key]
            if kind is not str or not low <= len(value) <= high:
                return False
        elif key in _IDS:
            if kind is not str or not _is_number(value):
                return False
        elif key == "type":
            if kind is not str or value not in _TYPES:
                return False
        elif key in ("metadata", "properties"):
            if kind is not dict:
                return False
        elif key == "notes":
            if kind is not str or len(value) > _MAX_NOTES:
                return False
        else:
            return False
    return True


def _is_number(text: str) -> bool:
    return text.isdigit() and text.isascii() and len(text) < _DIGITS and text != "0" * len(text)


def _name(type_: str, name: str | None) -> str | None:
    if type_ != _CUSTOM:
        if name is not None:
            raise ValidationError.at("name", "not_allowed", f'Only type "custom" has a name: {type_} is one itself.')
        return None
    if name is None:
        raise ValidationError.at("name", "required", "A custom event has a name, such as order_placed.")
    if name in _TYPES:
        raise ValidationError.at("name", "not_allowed", f'{name} is a type of its own: send it as "type".')
    return name


def _attributes(row: Mapping[str, Any], type_: str) -> dict[str, Any]:
    field, other = ("properties", "metadata") if type_ == _CUSTOM else ("metadata", "properties")
    if row.get(other) is not None:
        raise ValidationError.at(other, "not_allowed", f"{type_} events have {field}: rename the field.")
    attributes: dict[str, Any] = row.get(field) or {}
    return attributes if _is_canonical(attributes) else canonical(attributes, field, _LIMITS)


def _is_canonical(attributes: Mapping[str, Any]) -> bool:
    """Whether a small flat object is canonical for certain."""
    if len(attributes) > 32:
        return False
    for key, value in attributes.items():
        if not key.isascii() or "\x00" in key or len(key) > 128:
            return False
        kind = type(value)
        if kind is str:
            if not value.isascii() or "\x00" in value or len(value) > 256:
                return False
        elif kind is int:
            if not -MAX_INTEGER <= value <= MAX_INTEGER:
                return False
        elif kind is not bool and value is not None:
            return False
    return True


def _lead(row: Mapping[str, Any]) -> tuple[str, str | int]:
    if "external_id" not in row and "email" not in row and row.get("lead_id") is not None:  # by far the most
        return "lead_id", int(row["lead_id"])
    given = [field for field in _LEADS if row.get(field) is not None]
    if len(given) != 1:
        fault = "required" if not given else "not_allowed"
        raise ValidationError.at("lead_id", fault, "Say whose it is by one of lead_id, external_id and email.")
    field = given[0]
    text = row[field]
    if field == "lead_id":
        return field, int(text)
    return field, email_norm(canonical_text(text, field)) if field == "email" else canonical_text(text, field)


def _moment(text: str | None, now: datetime) -> str:
    """Canonical text of a moment within the bounds."""
    if text is not None and _SHAPE.fullmatch(text) and _is_day(text[:10]):
        length = len(text)
        canonical = text if length == _CANONICAL else f"{text[:-1]}{'.000000Z' if length == _SECONDS else '000Z'}"
    else:
        canonical = _written(now if text is None else parse_datetime(text, "tracked_at"))
    earliest, latest = _bounds(now)
    if not earliest <= canonical <= latest:
        raise ValidationError.at(
            "tracked_at",
            "out_of_bounds",
            f"{text} must lie within the last {OLDEST.days} days: repeats of what is older cannot be told apart.",
        )
    return canonical


@lru_cache(maxsize=16)
def _bounds(now: datetime) -> tuple[str, str]:
    """Of what is canonical text the order is that of the moments."""
    return _written(now - OLDEST), _written(now + _FUTURE)


@lru_cache(maxsize=1000)
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
