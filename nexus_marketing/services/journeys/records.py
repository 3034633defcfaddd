"""Journeys: worked on as a draft, published as versions that never change, held and ended (BEHAVIOUR.md 5.1)."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.campaigns import CampaignAction
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.errors import Conflict, Problem, TransitionRefused, ValidationError
from nexus_marketing.core.journeys import Journey, Surroundings, TriggerKind, canonical_text, digest_of, parse_journey
from nexus_marketing.core.journeys.statuses import MOVES, JourneyMove, JourneyStatus, Listens, ResumePolicy
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyListener, JourneyRun, JourneyVersion
from nexus_marketing.db.queries.journeys import DATES
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.checks import Findings, examine
from nexus_marketing.services.journeys.dates import begin_waiting
from nexus_marketing.services.journeys.entries import begin_backfill
from nexus_marketing.services.journeys.facts import reads_states
from nexus_marketing.services.journeys.hearing import ends_of
from nexus_marketing.services.journeys.messages import begin_messages, move_campaign_along
from nexus_marketing.services.journeys.moves import begin_resuming
from nexus_marketing.services.journeys.runs import STOP
from nexus_marketing.services.leads.fields import declared_fields
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.timers import set_timer
from nexus_marketing.services.versions import find_to_change

_STATUS_AFTER: Final = {
    JourneyMove.DRAIN: JourneyStatus.DRAINING,
    JourneyMove.PAUSE: JourneyStatus.PAUSED,
    JourneyMove.STOP: JourneyStatus.STOPPED,
}
_CAMPAIGN_MOVES: Final = {
    JourneyMove.PAUSE: CampaignAction.PAUSE,
    JourneyMove.STOP: CampaignAction.CANCEL,
}
_SEGMENT_TRIGGERS: Final = {
    TriggerKind.SEGMENT_ENTERED: Listens.ENTERED,
    TriggerKind.SEGMENT_LEFT: Listens.LEFT,
}


def create_journey(ctx: Context, data: Mapping[str, Any]) -> JourneyRow:
    """Write down a journey; nobody comes in before it is published.

    Args:
        data: ``name`` and ``draft``, a document as ``docs/howto/simulate-a-journey.md`` says; its faults are told when
            it is published.

    Raises:
        Conflict: the name is taken.
    """
    values = canonical(dict(data))
    row = JourneyRow(
        name=values["name"],
        draft=values["draft"],
        status=JourneyStatus.DRAFT,
        version=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(row)
    _flush_name(ctx, row.name)
    record(ctx, "journey.created", "journey", row.id, {"name": (None, row.name)})
    return row


def update_journey(
    ctx: Context, journey_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> JourneyRow:
    """Change the name or the draft; what is published goes on as it is.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: the name is taken, or the journey was stopped.
    """
    row = find_to_change(ctx, JourneyRow, journey_id, expected_version)
    if row.status == JourneyStatus.STOPPED:
        raise Conflict("The journey was stopped: create another one.", status=row.status)
    values = canonical(dict(data))
    changes = {name: (getattr(row, name), value) for name, value in values.items()}
    for name, value in values.items():
        setattr(row, name, value)
    touch(ctx, row)
    _flush_name(ctx, row.name)
    record(ctx, "journey.updated", "journey", row.id, changes)
    return row


def publish_journey(ctx: Context, journey_id: int, *, expected_version: int | None = None) -> JourneyRow:
    """Put the draft in force as a new version: whoever comes from now on is on it, those on their way stay on theirs.

    With ``"backfill": "all"`` in its entry the members that its segments have already come in too.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: every fault of the draft, and what the tenant lacks for it.
        Conflict: it is paused or was stopped.
    """
    row = find_to_change(ctx, JourneyRow, journey_id, expected_version)
    if row.status in (JourneyStatus.PAUSED, JourneyStatus.STOPPED):
        raise Conflict(f"The journey is {row.status}: {_remedy(row)}.", status=row.status)
    journey, found = understood(ctx, row)
    number = write_version(ctx, row, journey, found.pins)
    begin_messages(ctx, row, number, journey, found.pins)
    row.published, row.status = number, JourneyStatus.PUBLISHED
    _listen(ctx, row, journey)
    begin_waiting(ctx, row, journey)
    touch(ctx, row)
    record(ctx, "journey.published", "journey", row.id, {"version": (None, number)})
    if journey.entry.backfill:
        for trigger in journey.entry.triggers:
            if trigger.on is TriggerKind.SEGMENT_ENTERED:
                begin_backfill(ctx, row, int(trigger.name))
    return row


def move_journey(
    ctx: Context,
    journey_id: int,
    move: JourneyMove,
    *,
    expected_version: int | None = None,
    policy: ResumePolicy = ResumePolicy.CATCH_UP,
    compensate: bool = False,
) -> JourneyRow:
    """Drain (nobody comes in), pause, resume or stop a journey.

    A pause holds entries, steps and messages; timers keep their moments. What was due meanwhile is due when it goes on,
    or as ``policy`` says; where that takes a while the journey stays paused until it is done. Stopping ends every run, which
    workers do a piece at a time, and cancels what was not handed over; with ``compensate`` what those runs did is taken back
    where its nodes say how.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        TransitionRefused: not from where it stands.
    """
    row = find_to_change(ctx, JourneyRow, journey_id, expected_version)
    before = JourneyStatus(row.status)
    if before not in MOVES[move]:
        said = f"The journey is {before}: {move} is possible from {' or '.join(MOVES[move])}."
        raise TransitionRefused(said, status=before, action=str(move))
    if move is JourneyMove.RESUME:
        begin_resuming(ctx, row, policy)
    else:
        row.status, row.paused_at = _STATUS_AFTER[move], ctx.now if move is JourneyMove.PAUSE else None
        row.resumes_to = before if move is JourneyMove.PAUSE else None
    touch(ctx, row)
    if move in _CAMPAIGN_MOVES:
        move_campaign_along(ctx, row, _CAMPAIGN_MOVES[move])
    if move is JourneyMove.STOP:
        ctx.session.execute(delete(JourneyListener).where(JourneyListener.journey_id == row.id))
        set_timer(ctx, STOP, str(row.id), ctx.now, {"reason": "stopped", "compensate": compensate})
    ctx.ring("timers")
    changes = {"status": (str(before), str(row.status))}
    record(ctx, f"journey.{move}", "journey", row.id, changes | ({"compensate": (None, True)} if compensate else {}))
    return row


def versions_of(ctx: Context, journey_id: int) -> list[JourneyVersion]:
    """The published versions, newest first."""
    wanted = select(JourneyVersion).where(JourneyVersion.journey_id == journey_id)
    return list(ctx.session.scalars(wanted.order_by(JourneyVersion.number.desc()).limit(100)))


def run_counts(ctx: Context, journey_id: int) -> dict[str, int]:
    """How many runs there are in each state."""
    counted = select(JourneyRun.state, func.count()).where(JourneyRun.journey_id == journey_id)
    return dict(sorted(ctx.session.execute(counted.group_by(JourneyRun.state))))


def write_version(
    ctx: Context, row: JourneyRow, journey: Journey, pins: Mapping[str, Any], *, patches: int | None = None
) -> int:
    """Write down the next version of a journey, which never changes; answers its number."""
    number = (row.published or 0) + 1
    ctx.session.add(
        JourneyVersion(
            journey_id=row.id,
            number=number,
            document=canonical_text(journey.document),
            digest=digest_of(journey.document),
            pins=dict(pins),
            published_by=ctx.actor.label,
            published_at=ctx.now,
            patches=patches,
        )
    )
    ctx.session.flush()
    return number


def understood(ctx: Context, row: JourneyRow) -> tuple[Journey, Findings]:
    """The draft as it is published.

    Raises:
        ValidationError: every fault at once.
    """
    problems: list[Problem] = []
    document: Mapping[str, Any] = row.draft
    fields = declared_fields(ctx)
    try:
        read = read_journey(row.draft, fields, code=f"journey-{row.id}", conditions=conditions_of(ctx))
        document = read.document
    except ValidationError as error:
        problems += error.problems
    found = examine(ctx, document, row.id)
    problems += found.problems
    if problems:
        listed = sorted(dict.fromkeys(problems), key=lambda each: each.path)
        raise ValidationError(problems=listed).under("draft")
    return parse_journey(found.document, Surroundings(conditions=conditions_of(ctx))), found


def _listen(ctx: Context, row: JourneyRow, journey: Journey) -> None:
    """Write down what it wants to hear of; runs of earlier versions go on hearing what those wanted."""
    wanted = {(Listens.EVENT, name) for name in journey.listens}
    wanted |= {(kind, str(each)) for each in journey.reads.segments for kind in (Listens.ENTERED, Listens.LEFT)}
    if reads_states(journey):
        wanted.add((Listens.CHANGE, ""))
    for trigger in journey.entry.triggers:
        if trigger.on is TriggerKind.EVENT:
            wanted.add((Listens.EVENT, trigger.name))
        elif trigger.on is TriggerKind.JOURNEY:
            wanted.add((Listens.EVENT, ends_of(int(trigger.name))))
        elif trigger.on is TriggerKind.DATE:
            wanted.add((Listens.CHANGE, DATES))
        elif trigger.on is TriggerKind.SCORE:
            wanted.add((Listens.EVENT, trigger.crossing))
        elif trigger.on is TriggerKind.PLUGIN and trigger.event:
            wanted.add((Listens.EVENT, trigger.event))
        elif trigger.on in _SEGMENT_TRIGGERS:
            wanted.add((_SEGMENT_TRIGGERS[trigger.on], trigger.name))
    known = select(JourneyListener.kind, JourneyListener.name).where(JourneyListener.journey_id == row.id)
    there = {(Listens(kind), name) for kind, name in ctx.session.execute(known)}
    rows = [
        {"tenant_id": ctx.tenant_id, "journey_id": row.id, "kind": str(kind), "name": name}
        for kind, name in sorted(wanted - there)
    ]
    if rows:
        ctx.session.execute(insert(JourneyListener), rows)


def touch(ctx: Context, row: JourneyRow) -> None:
    """Count a change of a journey's own row."""
    row.version += 1
    row.updated_at = ctx.now
    ctx.session.flush()


def _remedy(row: JourneyRow) -> str:
    return "resume it first" if row.status == JourneyStatus.PAUSED else "create another one"


def _flush_name(ctx: Context, name: str) -> None:
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"name: there is a journey {name!r} already; choose another name.", field="name") from error
