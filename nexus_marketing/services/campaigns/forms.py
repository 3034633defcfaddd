"""What a campaign's fields may be, for every door they come through."""

from collections.abc import Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.fan_out import MAX_CHANNELS, check_wait_for
from nexus_marketing.core.pacing.rates import check_own_rates
from nexus_marketing.core.schemas import Form, Schema

_REFERENCE: Final = {"type": "id", "nullable": True, "check_with": "id"}
_SUBJECT: Final = {"type": "string", "nullable": True, "maxlength": 200}
_CHANNEL: Final = {"type": "string", "minlength": 1, "maxlength": 64}
FIELDS: Final[Schema] = {
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
    "message_class": {"type": "string", "allowed": [str(each) for each in MessageClass]},
    "channel": _CHANNEL,
    "channels": {
        "type": "dict",
        "nullable": True,
        "minlength": 1,
        "maxlength": MAX_CHANNELS,
        "keysrules": _CHANNEL,
        "valuesrules": {"type": "dict", "schema": {"template_id": {**_REFERENCE, "required": True}}},
    },
    "wait_for": {"type": ["string", "integer"]},
    "recurrence": {
        "type": "dict",
        "nullable": True,
        "schema": {
            "cron": {"type": "string", "required": True, "maxlength": 200},
            "time_zone": {"type": "string", "maxlength": 64},
            "until": {"type": "string", "maxlength": 40},
            "count": {"type": "integer", "min": 1, "max": 10_000},
        },
    },
    "send_rates": {"type": "list", "nullable": True},
    "local_start": {"type": "string", "nullable": True, "check_with": "local_time"},
    "priority": {"type": "integer", "min": 0, "max": 100},
    "obeys_caps": {"type": "boolean"},
    "counts_toward_caps": {"type": "boolean"},
    "segment_id": _REFERENCE,
    "template_id": _REFERENCE,
    "owner_id": _REFERENCE,
    "subject_type": _SUBJECT,
    "subject_id": _SUBJECT,
    "data": {"type": "dict"},
    "budget": {"type": "money", "nullable": True, "maxlength": 20},
    "currency": {"type": "string", "nullable": True, "regex": "[A-Z]{3}"},
}
#: What it is made from is said once, when it is written down.
_MADE_FROM: Final[Schema] = {
    "definition_id": {"type": "id", "check_with": "id"},
    "definition_version": {"type": "string", "minlength": 1, "maxlength": 50},
}
FROM_DEFINITION: Final = Form({**FIELDS, **_MADE_FROM})
NAMED: Final = Form({**FIELDS, **_MADE_FROM, "name": {**FIELDS["name"], "required": True}})


def form_of(document: Mapping[str, Any]) -> Form:
    """The form of a new campaign: one that names no definition needs a name itself."""
    return FROM_DEFINITION if "definition_id" in document else NAMED


def settle_channels(values: dict[str, Any], channel: str, channels: Any, wait_for: str) -> None:
    """See that what is said of channels fits together and with what the campaign has; adds what follows from it.

    Raises:
        ValidationError: both spellings at once, or a number to wait for that is larger than that of channels.
    """
    one = [name for name in ("channel", "template_id") if values.get(name) is not None]
    now = values.get("channels", channels)
    if one and now:
        said = f"The campaign has channels: write channels.<name>.template_id, or set channels to null, not {one[0]}."
        raise ValidationError.at(one[0], "not_allowed", said)
    if values.get("channels"):
        values |= {"channel": next(iter(now)), "template_id": None}
    if "wait_for" in values or "channels" in values:
        values["wait_for"] = check_wait_for(values.get("wait_for", wait_for), len(now or (channel,)))


def settle_times(values: Mapping[str, Any], recurrence: Any, local_start: str | None) -> None:
    """A moment by the clock of each lead is one moment: what is sent again has none.

    Raises:
        ValidationError: there are both.
    """
    if values.get("recurrence", recurrence) is not None and values.get("local_start", local_start) is not None:
        said = "A recurring campaign is sent when its rule says so: set local_start or recurrence to null."
        raise ValidationError.at("local_start", "not_allowed", said)


def own_rate_faults(value: object) -> list[Problem]:
    """What is wrong with a campaign's own rates, with its place in the campaign."""
    try:
        check_own_rates(value)
    except ValidationError as error:
        return [Problem(f"send_rates{each.path}", each.code, each.message) for each in error.problems]
    return []
