"""Which actions a definition's document names."""

from collections.abc import Container, Mapping
from typing import Any

from nexus_marketing.core.errors import Problem
from nexus_marketing.core.extensions import channel_of_action


def named_actions(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every action with the path of its name; what a sequence writes by a channel is none."""
    automation = document.get("automation", {})
    found = [
        (f"automation.{part}.{index}.{name}", each[name])
        for part in ("sequence", "steps", "escalation", "triggers")
        for index, each in enumerate(automation.get(part, ()))
        for name in ("action", "compensate")
        if name in each and not (part == "sequence" and channel_of_action(each[name]) is not None)
    ]
    breach = document.get("roi", {}).get("breach_action")
    return [*found, ("roi.breach_action", breach)] if breach is not None else found


def unknown_actions(document: Mapping[str, Any], known: Container[str]) -> list[Problem]:
    """What a document names and nobody has registered."""
    return [
        Problem(path, "unknown_action", f"No plugin has registered the action {name!a}: it will not be taken.")
        for path, name in named_actions(document)
        if name not in known
    ]
