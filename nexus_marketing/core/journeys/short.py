"""The requirements' short form, ``automation.sequence: [{delay, action, template}]``, as nodes and edges.

>>> long = expanded({"id": "drip", "automation": {"sequence": [{"delay": "1 hour", "action": "send_email"}]}})
>>> list(long["nodes"]), long["nodes"]["step-1"]["channel"]
(['step-1-delay', 'step-1'], 'email')
"""

from collections.abc import Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.extensions import channel_of_action
from nexus_marketing.core.journeys.nodes import END

#: What a document of the short form may say of the journey itself.
JOURNEY_KEYS: Final = ("entry", "exit", "goals", "quiet_hours", "salt", "fields")


def is_short(document: Mapping[str, Any]) -> bool:
    """Whether a document has a sequence and no nodes."""
    automation = document.get("automation")
    return "nodes" not in document and isinstance(automation, Mapping) and bool(automation.get("sequence"))


def expanded(document: Mapping[str, Any]) -> dict[str, Any]:
    """The full form of a document in the short one, whose form was checked.

    Each step waits for its ``delay`` after the one before it. ``send_email``, ``send_sms``, … write by that channel; any
    other action is taken by name. The campaign's segment is who enters.
    """
    sequence = document["automation"]["sequence"]
    nodes: dict[str, Any] = {}
    for number, step in enumerate(sequence, 1):
        nodes[f"step-{number}-delay"] = {"type": "delay", "for": step["delay"], "next": f"step-{number}"}
        following = f"step-{number + 1}-delay" if number < len(sequence) else END
        nodes[f"step-{number}"] = {**_step(step, document), "next": following}
    long: dict[str, Any] = {"id": document["id"], "nodes": nodes}
    if "name" in document:
        long["name"] = document["name"]
    long |= {key: document[key] for key in JOURNEY_KEYS if key in document}
    long.setdefault("entry", _entry(document))
    return long


def _step(step: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    channel = channel_of_action(step["action"])
    if channel is None:
        return {"type": "action", "action": step["action"]}
    message_class = document.get("message_class", str(MessageClass.MARKETING))
    message = {"type": "message", "channel": channel, "class": message_class}
    template = step.get("template") or _template_of(channel, document)
    return {**message, **({"template": template} if template else {})}


def _template_of(channel: str, document: Mapping[str, Any]) -> str | None:
    """What the campaign says of the channel, or of itself."""
    channels = document.get("channels")
    about = channels.get(channel) if isinstance(channels, Mapping) else None
    own = about.get("template") if isinstance(about, Mapping) else None
    return own or document.get("template")


def _entry(document: Mapping[str, Any]) -> dict[str, Any]:
    segment = document.get("targeting", {}).get("segment", document.get("segment"))
    if isinstance(segment, str):
        return {"triggers": [{"on": "segment_entered", "segment": segment}]}
    entry: dict[str, Any] = {"triggers": [{"on": "list"}]}
    return {**entry, "filter": segment} if segment else entry
