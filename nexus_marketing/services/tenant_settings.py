"""What a tenant may decide about itself, checked in one place for commands and declarations."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

from nexus_marketing.core.audience import normalise_field
from nexus_marketing.core.conditions import lead_schema
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.privacy import ConsentPolicy
from nexus_marketing.core.values import Canonical
from nexus_marketing.services.fields import DECLARABLE


def check_settings(settings: Mapping[str, object], path: str = "settings") -> dict[str, Canonical]:
    """The settings in the form in which they are stored.

    Keys: ``consent_policy`` (``eu``, ``always``, ``never``), ``default_locale``,
    ``default_time_zone``, ``fields`` (own lead field → type).

    Raises:
        ValidationError: every key that is unknown (naming the nearest) and every value that is wrong.
    """
    checked: dict[str, Canonical] = {}
    problems = list(unknown_keys(settings, _SETTINGS, path))
    for name in settings.keys() & _SETTINGS.keys():
        try:
            checked[name] = _SETTINGS[name](settings[name])
        except ValidationError as error:
            problems += [Problem(f"{path}.{name}", each.code, each.message) for each in error.problems]
    if problems:
        raise ValidationError(problems=sorted(problems, key=lambda problem: problem.path))
    return checked


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


def _fields(value: object) -> Canonical:
    if not isinstance(value, Mapping):
        raise ValidationError.at("", "not_a_table", "fields is a table of names and types, such as seats = 'number'.")
    taken = lead_schema().fields
    problems = []
    for name, kind in value.items():
        if kind not in DECLARABLE:
            words = ", ".join(sorted(DECLARABLE))
            problems.append(Problem("", "unknown_type", f"{name}: {kind!r} is no type of a field: use {words}."))
        if name in taken:
            problems.append(Problem("", "taken", f"{name}: every lead has a field of this name; choose another."))
    if problems:
        raise ValidationError(problems=problems)
    return {str(name): str(kind) for name, kind in value.items()}


_SETTINGS: Final[Mapping[str, Callable[[object], Canonical]]] = {
    "consent_policy": _consent_policy,
    "default_locale": lambda value: normalise_field("locale", value),
    "default_time_zone": lambda value: normalise_field("time_zone", value),
    "fields": _fields,
}
