"""What a tenant may decide about itself, checked in one place for commands and declarations."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

from nexus_marketing.core.audience import normalise_field, read_rule
from nexus_marketing.core.audience.custom import DECLARABLE
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.pacing.frequency import check_caps
from nexus_marketing.core.pacing.quiet import check_quiet_hours
from nexus_marketing.core.pacing.rates import check_rates
from nexus_marketing.core.pacing.warm_up import check_warm_ups
from nexus_marketing.core.privacy import ConsentPolicy
from nexus_marketing.core.values import Canonical, canonical


def check_settings(settings: Mapping[str, object], path: str = "settings") -> dict[str, Canonical]:
    """The settings in the form in which they are stored.

    Keys: ``consent_policy`` (``eu``, ``always``, ``never``), ``default_country`` (whose numbers a phone
    without a country code is one of), ``default_locale``, ``default_time_zone``, ``fields`` (own lead
    field → type, or a table as ``core.audience.custom.read_rule`` takes it), ``frequency_caps`` (``core.pacing.frequency.check_caps``),
    ``max_bounced`` (the share of hard bounces at which a send stops itself),
    ``quiet_hours`` (``core.pacing.quiet.check_quiet_hours``), ``segment_budget`` (what the
    rules of all segments may cost together, ``core.segments.PRICES``), ``send_rates`` (``core.pacing.rates.check_rates``),
    ``warm_up`` (``core.pacing.warm_up.check_warm_ups``).

    Raises:
        ValidationError: every key that is unknown (naming the nearest) and every value that is wrong.
    """
    checked: dict[str, Canonical] = {}
    problems = list(unknown_keys(settings, _SETTINGS, path))
    for name in settings.keys() & _SETTINGS.keys():
        try:
            checked[name] = _SETTINGS[name](settings[name])
        except ValidationError as error:
            problems += [
                Problem(_below(f"{path}.{name}", each.path), each.code, each.message) for each in error.problems
            ]
    if problems:
        raise ValidationError(problems=sorted(problems, key=lambda problem: problem.path))
    return checked


def _below(path: str, place: str) -> str:
    """Where in a setting of several parts a fault is; the others name no place of their own."""
    return path + place if place.startswith("[") else path


def unknown_keys(given: Mapping[str, object], known: Mapping[str, object], path: str) -> list[Problem]:
    """One problem per key that means nothing here, with the nearest that does."""
    problems = []
    for key in given.keys() - known.keys():
        nearest = get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}."
        where = f"{path}.{key}" if path else key
        problems.append(Problem(where, "unknown_key", f"{key!r} means nothing here: {remedy}"))
    return problems


def _consent_policy(value: object) -> Canonical:
    if value not in tuple(ConsentPolicy):
        raise ValidationError.at("", "unknown_policy", f"{value!r} is no consent policy: use eu, always or never.")
    return str(value)


def _segment_budget(value: object) -> Canonical:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise ValidationError.at("", "not_a_number", f"{value!r} is no budget: write a whole number up to 1000000.")
    return value


def _share(value: object) -> Canonical:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValidationError.at("", "not_a_share", f"{value!r} is no share: write a number above 0 and up to 1.")
    return value


def _fields(value: object) -> Canonical:
    if not isinstance(value, Mapping):
        raise ValidationError.at("", "not_a_table", "fields is a table of names and types, such as seats = 'number'.")
    problems: list[Problem] = []
    for name, said in value.items():
        try:
            read_rule(str(name), said if isinstance(said, Mapping) else {"type": said})
        except ValidationError as error:
            problems += [Problem("", each.code, f"{name}: {_sentence(each, said)}") for each in error.problems]
    if problems:
        raise ValidationError(problems=problems)
    fields: dict[str, Canonical] = canonical(dict(value), "fields")
    return fields


def _sentence(problem: Problem, said: object) -> str:
    if problem.path == "type" and not isinstance(said, Mapping):
        return f"{said!r} is no type of a field: use {', '.join(sorted(DECLARABLE))}."
    return problem.message if problem.path == "name" else f"{problem.path}: {problem.message}"


_SETTINGS: Final[Mapping[str, Callable[[object], Canonical]]] = {
    "consent_policy": _consent_policy,
    "default_country": lambda value: normalise_field("country", value),
    "default_locale": lambda value: normalise_field("locale", value),
    "default_time_zone": lambda value: normalise_field("time_zone", value),
    "fields": _fields,
    "frequency_caps": lambda value: canonical(check_caps(value), "frequency_caps"),
    "max_bounced": _share,
    "quiet_hours": lambda value: canonical(check_quiet_hours(value), "quiet_hours"),
    "segment_budget": _segment_budget,
    "send_rates": lambda value: canonical(check_rates(value), "send_rates"),
    "warm_up": lambda value: canonical(check_warm_ups(value), "warm_up"),
}
