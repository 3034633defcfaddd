"""Words put right for those on their way: a version that differs in its content only, and takes over whoever is on the one
before, with the messages that nobody has in hand (BEHAVIOUR.md 5.1, Editing).

Versions stay as they are, and so do sends: what was sent was sent as its send says. What was not is settled there, and
written into the send of the new version under the same visit, in the transaction that moves its run.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select

from nexus_marketing.core.engine.journey_moves import patch
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys import Journey, RunState
from nexus_marketing.core.journeys.nodes import Message
from nexus_marketing.core.journeys.patches import differences
from nexus_marketing.core.journeys.runs import LIVE, SendMessage
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyRun, JourneyVersion
from nexus_marketing.db.queries.journey_steps import withdraw_to_patch
from nexus_marketing.db.queries.journeys import occurrence_of
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.messages import begin_messages, send_messages
from nexus_marketing.services.journeys.moves import write_move
from nexus_marketing.services.journeys.records import touch, understood, write_version
from nexus_marketing.services.journeys.rows import journey_version, newest_version, run_of
from nexus_marketing.services.timers import set_timer
from nexus_marketing.services.versions import find_to_change

PATCH: Final = "journey.patch"
_PIECE: Final = 200
Pins = Mapping[str, Mapping[str, Mapping[str, Any]]]


def patch_journey(
    ctx: Context, journey_id: int, *, expected_version: int | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Put the draft in force for those on their way too, where it differs from the newest version in its words only.

    Args:
        ctx: the unit of work.
        journey_id: which journey.
        expected_version: the journey's, where the caller has seen one.
        dry_run: only say what would change, and for whom.

    Returns:
        The ``version`` that it becomes, the ``changes`` (``path``, ``before``, ``after``; of a template also where only
        its version is another), and how many ``runs`` there are on their way, by node.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: every fault of the draft, and every change that is more than words.
        Conflict: there is no version to patch, it was stopped, or nothing differs.
    """
    row = find_to_change(ctx, JourneyRow, journey_id, expected_version)
    if row.published is None or row.status == JourneyStatus.STOPPED:
        raise Conflict("There is no version to patch: publish one first.", status=row.status)
    journey, found = understood(ctx, row)
    pins, before = _pins(ctx, row, found.pins), newest_version(ctx, row)
    changes = _changes(before, journey, pins, _version(ctx, row.id, row.published).pins)
    number, runs = row.published + 1, _standing(ctx, row.id, row.published)
    if not dry_run:
        write_version(ctx, row, journey, pins, patches=row.published)
        begin_messages(ctx, row, number, journey, pins)
        set_timer(ctx, PATCH, f"{row.id}:{number}", ctx.now, {"after": 0})
        changed = {"version": (row.published, number), "runs": (None, sum(runs.values()))}
        row.published = number
        touch(ctx, row)
        ctx.ring("timers")
        record(ctx, "journey.patched", "journey", row.id, changed)
    return {"version": number, "dry_run": dry_run, "changes": changes, "runs": runs}


def patch_due(ctx: Context, timer: TimerFact) -> None:
    """Take the next runs to the version that puts their words right."""
    journey_id, number = map(int, timer.key.split(":"))
    row = find(ctx.session, JourneyRow, journey_id)
    patched = _version(ctx, row.id, number).patches
    if row.status == JourneyStatus.STOPPED or patched is None:
        return
    after = (*_on_their_way(row.id, patched), JourneyRun.id > timer.payload["after"])
    wanted = select(JourneyRun).where(*after).order_by(JourneyRun.id).limit(_PIECE).with_for_update()
    found = list(ctx.session.scalars(wanted))
    journey = journey_version(ctx, row.id, number)
    unsent = [each for row in found for each in _take_over(ctx, row, journey, number)]
    # Sends are locked in the order in which they were made, as everybody does it.
    places = {(node.id, channel): place for place, (node, channel) in enumerate(_channels(journey))}
    send_messages(ctx, sorted(unsent, key=lambda each: places[each[1].node, each[1].channel]))
    if len(found) == _PIECE:
        set_timer(ctx, PATCH, timer.key, ctx.now, {"after": found[-1].id})
    ctx.ring("timers")


def _take_over(ctx: Context, row: JourneyRun, journey: Journey, number: int) -> list[tuple[JourneyRun, SendMessage]]:
    """Move a run; answers what it wrote and nobody has in hand, which is settled and to be written anew."""
    run = run_of(row, journey)
    row.version_number = number
    write_move(ctx, row, patch(run, number, ctx.now))
    node = journey.nodes.get(run.node)
    if run.state is not RunState.SENDING or not isinstance(node, Message):
        return []
    pacing = (node.message_class, node.priority, node.obeys_caps, node.counts_toward_caps, node.obeys_quiet_hours)
    return [
        (row, SendMessage(node.id, run.visit, channel, node.channels[channel], *pacing))
        for channel in withdraw_to_patch(ctx.session, row.lead_id, occurrence_of(row.id, run.visit))
    ]


def _channels(journey: Journey) -> Iterator[tuple[Message, str]]:
    for node in journey.nodes.values():
        if isinstance(node, Message):
            yield from ((node, channel) for channel in node.channels)


def _changes(before: Journey, after: Journey, pins: Pins, old: Pins) -> list[dict[str, Any]]:
    """What differs, in words only.

    Raises:
        ValidationError: something else does.
        Conflict: nothing does.
    """
    found = list(differences(before.document, after.document))
    problems = [each.problem() for each in found if not each.is_content]
    if problems:
        raise ValidationError(problems=problems).under("draft")
    changes = [{"path": each.path, "before": each.before, "after": each.after} for each in found]
    for node, by_channel in pins.items():
        for channel, pin in by_channel.items():
            was = old[node][channel]
            if pin != was:
                changes.append({"path": f"nodes.{node}.{channel}", "before": _template(was), "after": _template(pin)})
    if not changes:
        said = "Nothing differs from the version in force: change a text of the draft, or publish a template anew."
        raise Conflict(said, digest=before.digest)
    return changes


def _template(pin: Mapping[str, Any]) -> str:
    return f"template {pin['template_id']}, version {pin['version']}"


def _pins(ctx: Context, row: JourneyRow, found: Pins) -> dict[str, dict[str, dict[str, Any]]]:
    """The templates as they are now, with the senders of the version that is patched: these are no words."""
    assert row.published is not None
    old = _version(ctx, row.id, row.published).pins
    return {
        node: {
            channel: {**pin, "sender": old.get(node, {}).get(channel, pin)["sender"]}
            for channel, pin in by_channel.items()
        }
        for node, by_channel in found.items()
    }


def _standing(ctx: Context, journey_id: int, number: int) -> dict[str, int]:
    counted = select(JourneyRun.node, func.count()).where(*_on_their_way(journey_id, number))
    return dict(ctx.session.execute(counted.group_by(JourneyRun.node).order_by(JourneyRun.node)).all())


def _on_their_way(journey_id: int, number: int) -> tuple[ColumnElement[bool], ...]:
    mine = (JourneyRun.journey_id == journey_id, JourneyRun.version_number == number)
    return (*mine, JourneyRun.state.in_(sorted(LIVE)))


def _version(ctx: Context, journey_id: int, number: int) -> JourneyVersion:
    return ctx.session.get_one(JourneyVersion, (ctx.tenant_id, journey_id, number))
