"""The forms of a journey's document: what each part may say. What it means together is for the readers."""

import re
from collections.abc import Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.journeys.crossings import DOWN, UP
from nexus_marketing.core.journeys.delays import WEEKDAYS
from nexus_marketing.core.journeys.model import ENDS, ConcurrencyKind, ReentryKind, TriggerKind
from nexus_marketing.core.journeys.nodes import ChannelMode, NodeKind
from nexus_marketing.core.schemas import Form, Schema

MAX_NODES: Final = 500
MAX_WAYS: Final = 50
_NAME: Final = {"type": "string", "minlength": 1, "maxlength": 200}
_CODE: Final = {"type": "string", "regex": "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"}
ID: Final[dict[str, str]] = {"type": "string", "regex": "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"}
_EDGE: Final = {"type": "string", "minlength": 1, "maxlength": 64}
_MUST: Final = {**_EDGE, "required": True}
_EVENT: Final = {"type": "string", "regex": "[a-z][a-z0-9_.]{0,63}"}
_CONDITION: Final = {"type": ["string", "dict"]}
_TIME: Final = {"type": "string", "maxlength": 40, "check_with": "duration"}
_OFFSET: Final = {"type": "string", "maxlength": 40}
_CLOCK: Final = {"type": "string", "regex": "([01][0-9]|2[0-3]):[0-5][0-9]"}
_ZONE: Final = {"type": "string", "maxlength": 64}
_ACTION: Final = {"type": "string", "regex": "[A-Za-z][A-Za-z0-9_]{0,63}"}
_YES: Final = {"type": "boolean"}
_PERCENT: Final = {"type": "number", "min": 0, "max": 100}
_FALLBACK: Final = {"type": ["string", "dict"]}


def _dict(schema: Schema, **more: Any) -> dict[str, Any]:
    return {"type": "dict", "schema": schema, **more}


def _list(schema: Schema, **more: Any) -> dict[str, Any]:
    return {"type": "list", "schema": _dict(schema), "maxlength": MAX_WAYS, **more}


_OCCASION: Final[Schema] = {
    "when": _CONDITION,
    "event": _EVENT,
    "where": _CONDITION,
    "of": _EDGE,
    "any_verdict": _YES,
}
_TIMEOUT: Final = _dict({"after": {**_TIME, "required": True}, "to": _MUST})
_SEGMENT: Final[Schema] = {"segment": {"type": ["string", "integer"], "required": True}, "next": _EDGE}
_SHARE: Final[Schema] = {"name": _NAME, "weight": {"type": "number", "required": True}, "to": _MUST}
_DELAY: Final[Schema] = {
    "for": _TIME,
    "days": {"type": "integer", "min": 0, "max": 3_660},
    "weekdays": {"type": "list", "minlength": 1, "allowed": list(WEEKDAYS)},
    "until": _NAME,
    "at": _CLOCK,
    "offset": _OFFSET,
    "if_past": _FALLBACK,
    "if_missing": _FALLBACK,
    "zone": _ZONE,
    "recompute_on_change": _YES,
    "next": _EDGE,
}
_MESSAGE: Final[Schema] = {
    "channel": _NAME,
    "channels": {"type": ["list", "dict"], "minlength": 1, "maxlength": 10},
    "template": _NAME,
    "class": {"type": "string", "allowed": [str(each) for each in MessageClass]},
    "mode": {"type": "string", "allowed": [str(each) for each in ChannelMode]},
    "require_sent": _YES,
    "on": _dict({"sent": _EDGE, "skipped": _EDGE, "failed": _EDGE}),
    "priority": {"type": "integer", "min": 0, "max": 100},
    "obeys_caps": _YES,
    "counts_toward_caps": _YES,
    "obeys_quiet_hours": _YES,
    "quiet_hours": {"type": "list"},
    "next": _EDGE,
}
#: How often a run may come to a node, and where to instead of one time more.
_VISITS: Final = _dict({"most": {"type": "integer", "required": True, "min": 1, "max": 1_000}, "to": _EDGE})
_NODES: Final[Mapping[NodeKind, Schema]] = {
    NodeKind.DELAY: _DELAY,
    NodeKind.WAIT_UNTIL: {
        "until": _list({**_OCCASION, "to": _MUST, "after_arrival": _YES}, required=True, minlength=1),
        "timeout": _TIMEOUT,
        "grace": _TIME,
    },
    NodeKind.BRANCH: {"branches": _list({**_OCCASION, "to": _MUST}, required=True, minlength=1), "else": _MUST},
    NodeKind.SPLIT: {
        "ways": _list(_SHARE, required=True, minlength=2),
        "salt": {"type": "string", "maxlength": 64},
    },
    NodeKind.MESSAGE: _MESSAGE,
    NodeKind.UPDATE_LEAD: {"set": {"type": "dict", "required": True, "minlength": 1}, "next": _EDGE},
    NodeKind.ADD_TO_SEGMENT: _SEGMENT,
    NodeKind.REMOVE_FROM_SEGMENT: _SEGMENT,
    NodeKind.SCORE: {
        "points": {"type": "number", "required": True, "min": -1_000_000, "max": 1_000_000},
        "score": ID,
        "next": _EDGE,
    },
    NodeKind.WEBHOOK: {
        "url": {"type": "string", "required": True, "maxlength": 2_000, "regex": "https?://.+"},
        "method": {"type": "string", "allowed": ["POST", "PUT", "PATCH", "DELETE", "GET"]},
        "body": {"type": "dict"},
        "next": _EDGE,
        "failed": _EDGE,
    },
    NodeKind.APPROVAL: {
        "by": {**_NAME, "required": True},
        "approved": _MUST,
        "rejected": _EDGE,
        "timeout": _TIMEOUT,
    },
    NodeKind.ACTION: {
        "action": {**_ACTION, "required": True},
        "with": {"type": "dict"},
        "next": _EDGE,
    },
    NodeKind.JUMP: {"to": _MUST},
    NodeKind.EXIT: {"reason": _NAME},
}
#: A node's form by its type.
NODES: Final[Mapping[str, Form]] = {
    str(kind): Form({"type": {"type": "string", "required": True}, "visits": _VISITS, "compensate": _ACTION, **schema})
    for kind, schema in _NODES.items()
}
_TRIGGER: Final[Schema] = {
    "on": {"type": "string", "required": True, "allowed": [str(each) for each in TriggerKind]},
    "segment": {"type": ["string", "integer"]},
    "event": _EVENT,
    "field": _NAME,
    "journey": {"type": ["string", "integer"]},
    "every": {"type": "string", "allowed": ["year"]},
    "recurrence": _dict(
        {
            "cron": {**_NAME, "required": True},
            "time_zone": _ZONE,
            "until": _NAME,
            "count": {"type": "integer", "min": 1, "max": 10_000},
        }
    ),
    "ended": {"type": "list", "minlength": 1, "allowed": list(ENDS)},
    "score": ID,
    "threshold": {"type": ["number", "string"], "maxlength": 64},
    "direction": {"type": "string", "allowed": [UP, DOWN]},
    "trigger": {"type": "string", "regex": "[a-z][a-z0-9_]{0,39}"},
    "webhook": {"type": "boolean", "allowed": [True]},
    "where": _CONDITION,
    "offset": _OFFSET,
    "at": _CLOCK,
    "start": _EDGE,
}
#: Of ``entry``, and of the parts of a document that stand beside each other.
ENTRY: Final = Form(
    {
        "triggers": _list(_TRIGGER, minlength=1),
        "filter": _CONDITION,
        "reentry": _dict(
            {
                "policy": {
                    "type": "string",
                    "required": True,
                    "allowed": [str(each) for each in ReentryKind],
                },
                "interval": _TIME,
                "calendar_days": {"type": "integer", "min": 1, "max": 3_660},
                "zone": _ZONE,
            }
        ),
        "key": _NAME,
        "concurrency": _dict(
            {
                "policy": {
                    "type": "string",
                    "required": True,
                    "allowed": [str(each) for each in ConcurrencyKind],
                },
                "most": {"type": "integer", "min": 2, "max": 100},
            }
        ),
        "cap": _dict(
            {
                "count": {"type": "integer", "required": True, "min": 1},
                "per": {**_TIME, "required": True},
            }
        ),
        "cooldown": _TIME,
        "holdout": _PERCENT,
        "backfill": {"type": "string", "allowed": ["none", "all"]},
    }
)
EXIT: Final = Form({**_OCCASION, "reason": _NAME})
GOAL: Final = Form(
    {
        "id": {**ID, "required": True},
        **_OCCASION,
        "window": _TIME,
        "effect": {"type": ["string", "dict"]},
    }
)
JOURNEY: Final = Form(
    {
        "id": {**_CODE, "required": True},
        "name": _NAME,
        "description": {"type": "string"},
        "fields": {"type": "dict", "valuesrules": {"type": "string", "allowed": [str(each) for each in FieldType]}},
        "salt": {"type": "string", "maxlength": 64},
        "start": _EDGE,
        "entry": {"type": "dict"},
        "exit": {"type": "list", "maxlength": MAX_WAYS},
        "goals": {"type": "list", "maxlength": MAX_WAYS},
        "quiet_hours": {"type": "list"},
        "nodes": {"type": "dict", "required": True, "minlength": 1, "maxlength": MAX_NODES},
    }
)


def is_id(text: str) -> bool:
    """Whether a node may be called so."""
    return re.fullmatch(ID["regex"], text) is not None
