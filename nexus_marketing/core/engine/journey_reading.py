"""A journey from any document that describes one: nodes and edges, or a campaign's ``automation.sequence``."""

from collections.abc import Collection, Mapping
from typing import Any

from nexus_marketing.core.conditions import NO_PLUGINS, FieldType, Vocabulary
from nexus_marketing.core.definitions import parse_definition
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.journeys import JOURNEY_KEYS, Journey, Surroundings, expanded, is_short, parse_journey
from nexus_marketing.core.pacing.quiet import check_quiet_hours
from nexus_marketing.core.pacing.recurrence import read_recurrence
from nexus_marketing.core.values import canonical


def read_journey(
    document: Mapping[str, Any],
    fields: Mapping[str, FieldType] | None = None,
    actions: Collection[str] | None = None,
    code: str = "journey",
    conditions: Vocabulary = NO_PLUGINS,
) -> Journey:
    """Read a journey.

    Args:
        document: in the full form, or a campaign's definition (the short form) that may say ``entry``, ``exit``,
            ``goals``, ``quiet_hours``, ``salt`` and ``fields`` beside.
        fields: the tenant's own.
        actions: what is registered; nothing where that is not known, and then no name is refused.
        code: its name where the document has no ``id``.
        conditions: those of plugins.

    Raises:
        ValidationError: every fault, each with its path and remedy.
    """
    plain = canonical(document)
    plain.setdefault("id", code)
    if is_short(plain):
        parse_definition({key: value for key, value in plain.items() if key not in JOURNEY_KEYS}, actions=actions or ())
        plain = expanded(plain)
    elif "nodes" not in plain:
        said = "There is no journey in this: write nodes, or steps in automation.sequence."
        raise ValidationError(problems=[Problem("nodes", "required", said)])
    return parse_journey(plain, Surroundings(fields or {}, actions, check_quiet_hours, read_recurrence, conditions))
