"""Addresses of journeys that programs call to bring leads in: signed, closed or made anew at any time, once an occurrence.

An address names its tenant and journey and proves by a keyed hash that we made it. What the hash is of includes a secret of
the journey, so that a new address ends the old one.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import Conflict, NoSuchAddress, NotFound, Unavailable, ValidationError
from nexus_marketing.core.journeys import TriggerKind
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.schemas import Form
from nexus_marketing.core.values import email_norm, parse_json
from nexus_marketing.db.models import Journey
from nexus_marketing.db.queries.leads import lead_by_address
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.arrivals import Answer, Occasion, arrive
from nexus_marketing.services.journeys.plugins import Asked, ask, asked_by_program, let_in
from nexus_marketing.services.journeys.rows import journey_version
from nexus_marketing.services.versions import find_to_change
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

PATH: Final = "/entrances"
_PROGRAM: Final = Actor("program", frozenset())
_TOKEN: Final = re.compile(r"([1-9]\d{0,17})-([1-9]\d{0,17})-([0-9a-f]{32})")
_NAME: Final = {"type": "string", "minlength": 1, "maxlength": 320}
#: What a program says: which occurrence this is, whom it is about, and what else is to be known as ``event.metadata``.
_CALL: Final = Form(
    {
        "id": {"type": "string", "minlength": 1, "maxlength": 200},
        "lead": _NAME,
        "data": {"type": "dict"},
    }
)


@dataclass(frozen=True, slots=True)
class EntranceCall:
    """A request to an entrance; ``headers`` by names in lower case."""

    token: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def open_entrance(ctx: Context, journey_id: int, *, expected_version: int | None = None) -> str:
    """Make the address of a journey, which ends the one before; answers the whole of it.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: the newest version has no webhook trigger, or the journey was stopped.
    """
    row = find_to_change(ctx, Journey, journey_id, expected_version)
    if row.status == JourneyStatus.STOPPED or _trigger(ctx, row) is None:
        said = 'No program brings leads into this journey: give it a trigger {"on": "webhook"} and publish it.'
        raise Conflict(said, status=row.status)
    row.hook_secret = secrets.token_hex(16)
    _touch(ctx, row)
    record(ctx, "journey.entrance_opened", "journey", row.id)
    tag = ctx.runtime.keys.entrance_tag(_payload(row))
    return f"{ctx.runtime.settings.public_url}{PATH}/{row.tenant_id}-{row.id}-{tag}"


def close_entrance(ctx: Context, journey_id: int, *, expected_version: int | None = None) -> None:
    """End the address of a journey, if there is one.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
    """
    row = find_to_change(ctx, Journey, journey_id, expected_version)
    if row.hook_secret is not None:
        row.hook_secret = None
        _touch(ctx, row)
        record(ctx, "journey.entrance_closed", "journey", row.id)


def receive_entrance(runtime: Runtime, call: EntranceCall) -> Answer | list[Answer]:
    """Let in whom a program names, or whom a plugin names that is asked about the call: those are several, or none.

    Told again, the same occurrence changes nothing.

    Raises:
        NotFound: this is no address of ours, or no more; or there is no such lead.
        ValidationError: the body is not as it must be.
        Unavailable: the plugin did not answer: the program calls again.
    """
    match = _TOKEN.fullmatch(call.token)
    if match is None:
        raise NoSuchAddress
    with runtime.work(int(match[1]), _PROGRAM, role="app") as ctx:
        row = ctx.session.get(Journey, (ctx.tenant_id, int(match[2])))
        is_ours = row is not None and row.hook_secret is not None
        if row is None or not is_ours or not runtime.keys.is_entrance(_payload(row), match[3]):
            raise NoSuchAddress
        said = _said(call)
        trigger = _trigger(ctx, row)
        if trigger is None:
            raise NotFound("No program brings leads into this journey any more.")
        lead_id = _lead_id(ctx, said["lead"]) if "lead" in said else None
        if trigger.on is TriggerKind.WEBHOOK:
            if lead_id is None:
                raise ValidationError.at(
                    "lead", "required", "Say who comes: an id, an e-mail address or an external id."
                )
            event = {"type": "webhook", "id": said["id"], "metadata": said.get("data", {})}
            answer = arrive(ctx, row, lead_id, Occasion(trigger, f"hook:{said['id']}", event))
            ctx.ring("timers")
            return answer
        about = {} if lead_id is None else {"lead_id": lead_id}
        asked = asked_by_program(ctx, row, trigger, said["id"], {**said.get("data", {}), **about})
    if asked is None:
        raise NotFound("No program brings leads into this journey any more.")
    return _let_in(runtime, int(match[1]), asked)


def _let_in(runtime: Runtime, tenant_id: int, asked: Asked) -> list[Answer]:
    try:
        firings = ask(runtime, asked)
    except Exception as error:  # isolation boundary: a plugin's bug is no fault of the program that called
        log.warning("trigger_raised", tenant_id=tenant_id, trigger=asked.trigger.name, error=type(error).__name__)
        raise Unavailable("Who comes could not be found out: call again later, with the same id.") from error
    with runtime.work(tenant_id, _PROGRAM, role="app") as ctx:
        answers = let_in(ctx, asked, firings)
        ctx.ring("timers")
        return answers


def _said(call: EntranceCall) -> dict[str, Any]:
    document = parse_json(call.body)
    if not isinstance(document, dict):
        raise ValidationError.at(
            "", "wrong_type", 'The body is an object, such as {"id": "order-17", "lead": "a@x.org"}.'
        )
    _CALL.check(document)
    said: dict[str, Any] = dict(document)
    said.setdefault("id", call.headers.get("webhook-id") or call.headers.get("idempotency-key", "")[:200])
    if not said["id"]:
        text = "Say which occurrence this is, so that one that is told again counts once: id, or a header webhook-id."
        raise ValidationError.at("id", "required", text)
    return said


def _lead_id(ctx: Context, named: str) -> int:
    """By its id in digits, its address or its external id."""
    found = int(named) if named.isascii() and named.isdigit() and len(named) < 19 else None
    if found is None:
        found = lead_by_address(ctx.session, named, email_norm(named))
    if found is None:
        raise NotFound("There is no lead with this id, e-mail address or external id.")
    return found


def _trigger(ctx: Context, row: Journey) -> Trigger | None:
    if row.published is None:
        return None
    triggers = journey_version(ctx, row.id, row.published).entry.triggers
    return next((each for each in triggers if each.on is TriggerKind.WEBHOOK or each.is_hook), None)


def _payload(row: Journey) -> bytes:
    return f"{row.tenant_id}-{row.id}-{row.hook_secret}".encode()


def _touch(ctx: Context, row: Journey) -> None:
    row.version += 1
    row.updated_at = ctx.now
    ctx.session.flush()
