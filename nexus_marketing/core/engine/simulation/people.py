"""Leads of a simulation: those of a file, or made up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys.draws import chance
from nexus_marketing.core.journeys.runs import Run
from nexus_marketing.core.pacing.frequency import Use
from nexus_marketing.core.privacy import ConsentState

#: Where made-up leads live, and how many of a hundred.
_PLACES: Final = (
    ("US", "America/New_York", 22),
    ("US", "America/Los_Angeles", 13),
    ("DE", "Europe/Berlin", 15),
    ("GB", "Europe/London", 14),
    ("FR", "Europe/Paris", 10),
    ("IN", "Asia/Kolkata", 10),
    ("BR", "America/Sao_Paulo", 8),
    ("AU", "Australia/Sydney", 5),
    ("JP", "Asia/Tokyo", 3),
)
_WITH_PHONE: Final = 0.6
_YEAR: Final = timedelta(days=365)


@dataclass(slots=True)
class Person:
    """A lead, what it did, and what it was sent.

    ``consent`` is that to marketing by e-mail, nothing where the file does not say; ``unsubscribed`` are the channels by which
    it wants no marketing any more. ``runs`` are all that it ever had, the oldest first.
    """

    id: str
    record: dict[str, Any]
    facts: LeadFacts
    consent: ConsentState | None = None
    unsubscribed: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)


def person_of(number: int, values: Mapping[str, Any], start: datetime, zone: str) -> Person:
    """A lead from the values of a row; what the row does not say is as for a lead that is new."""
    record = {"id": number, "score": 0, "created_at": start, "updated_at": start, **values}
    word = record.pop("consent", None)
    for name in [name for name in record if name.startswith("consent_")]:
        del record[name]
    consent = None if word is None else ConsentState.GRANTED if str(word) == "given" else ConsentState.REVOKED
    record |= {"events": [], "segments": set(), "scores": {}, "consents": _consents(consent)}
    return Person(str(number), record, LeadFacts(record, zone), consent)


def made_up(count: int, seed: str, start: datetime, zone: str) -> Iterator[Person]:
    """So many leads, always the same for the same seed: nine places in seven countries, six of ten with a telephone."""
    for number in range(1, count + 1):
        country, time_zone = _place(chance(seed, "place", str(number)) * 100)
        values: dict[str, Any] = {
            "email": f"lead{number}@example.org",
            "email_norm": f"lead{number}@example.org",
            "name": f"Lead {number}",
            "country": country,
            "time_zone": time_zone,
            "score": int(chance(seed, "score", str(number)) * 100),
            "created_at": start - _YEAR * chance(seed, "age", str(number)),
        }
        if chance(seed, "phone", str(number)) < _WITH_PHONE:
            values["phone"] = f"+1555{number:07}"
        yield person_of(number, values, start, zone)


def _place(percent: float) -> tuple[str, str]:
    for country, time_zone, share in _PLACES:
        percent -= share
        if percent < 0:
            return country, time_zone
    return _PLACES[-1][:2]


def _consents(consent: ConsentState | None) -> dict[tuple[str, str], tuple[bool, datetime | None]]:
    return {} if consent is None else {("email", "marketing"): (consent is ConsentState.GRANTED, None)}
