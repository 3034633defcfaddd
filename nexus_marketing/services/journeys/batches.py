"""Many runs of a tenant in one transaction: each decides as it would alone, and a statement writes for all of them.

That is what a million people cost, so only what nearly all steps do is done so: a run's row, its history, its timer and
its messages. A run that does more, or waits for somebody, is left to a transaction of its own (``services.journeys.runs``).
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from nexus_marketing.core.engine.journeys import decide
from nexus_marketing.core.errors import ConditionUnavailable
from nexus_marketing.core.journeys import Journey, Outcome, Reported, RunState, Woken
from nexus_marketing.core.journeys.nodes import Approval, Message
from nexus_marketing.core.journeys.runs import LIVE, Occurrence, RunDecision, SendMessage
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.queries import journeys as queries
from nexus_marketing.db.queries.journey_steps import lock_runs, standing_of
from nexus_marketing.db.queries.timers import take_timers
from nexus_marketing.runtime import Context
from nexus_marketing.services.journeys.facts import facts_asked, facts_from
from nexus_marketing.services.journeys.hearing import tell_ends
from nexus_marketing.services.journeys.messages import OUTCOMES, send_messages
from nexus_marketing.services.journeys.rows import run_of, standing, write_decisions

#: Settled messages whose runs are told in one transaction, at most.
PIECE: Final = 100


class _Decided(NamedTuple):
    """A run that goes on: its row as it was, locked, and what becomes of it."""

    row: Any
    journey: Journey
    decision: RunDecision


def runs_due(ctx: Context, timers: Sequence[TimerFact]) -> AbstractSet[int]:
    """The timers of runs rang; answers the ids of those whose runs went on, which are taken."""
    decided = _decide(ctx, {int(each.key): Woken(int(each.payload["token"])) for each in timers})
    taken = take_timers(ctx.session, [each for each in timers if int(each.key) in decided])
    _write(ctx, [decided[int(each.key)] for each in timers if each.id in taken])
    return taken


def runs_told(ctx: Context, messages: Iterable[Any]) -> AbstractSet[tuple[int, int]]:
    """Messages were settled (rows of ``messages_to_tell``); answers send and seq of those whose runs know it now."""
    found: dict[int, Any] = {}
    occurrences: dict[int, Occurrence] = {}
    for row in messages:
        run_id, visit = divmod(row.occurrence, queries.VISITS)
        if run_id not in found:  # of several on one run the others are told later
            found[run_id] = row
            outcome = OUTCOMES.get(row.state, Outcome.FAILED)
            occurrences[run_id] = Reported(visit, row.channel, outcome, row.reason)
    decided = _decide(ctx, occurrences)
    taken = queries.take_outcomes(ctx.session, [found[run_id] for run_id in decided])
    _write(ctx, [each for run_id, each in decided.items() if (found[run_id].send_id, found[run_id].seq) in taken])
    return taken


def _decide(ctx: Context, occurrences: Mapping[int, Occurrence]) -> dict[int, _Decided]:
    """What becomes of runs that nobody else has locked, where it can be written for many at a time."""
    versions: dict[tuple[int, int], list[Any]] = {}
    for row in lock_runs(ctx.session, sorted(occurrences)):
        if row.state in LIVE:
            versions.setdefault((row.journey_id, row.version_number), []).append(row)
    questions = [
        [standing_of(*version), *facts_asked(ctx, sorted({row.lead_id for row in rows}))]
        for version, rows in versions.items()
    ]
    found = iter(answers(ctx.session, *(each for group in questions for each in group)) if questions else ())
    decided: dict[int, _Decided] = {}
    for (version, rows), asked in zip(versions.items(), questions, strict=True):
        stands, *told = [next(found) for _ in asked]
        journey, status = standing(ctx, version, stands)
        if status == JourneyStatus.PAUSED:
            continue
        facts = facts_from(ctx, journey, told)
        for row in rows:
            if row.lead_id in facts:
                run = run_of(row, journey)
                try:
                    decision = decide(journey, run, facts[row.lead_id], occurrences[row.id], ctx.now)
                except ConditionUnavailable:
                    continue  # it waits for a plugin; the others do not
                if _is_plain(journey, run.node, decision):
                    decided[row.id] = _Decided(row, journey, decision)
    return decided


def _is_plain(journey: Journey, node: str, decision: RunDecision) -> bool:
    """Whether a run goes on by nothing but what :func:`_write` writes."""
    if decision.is_ignored or decision.run.state is RunState.FAILED or isinstance(journey.nodes.get(node), Approval):
        return False
    return all(isinstance(each, SendMessage) for each in decision.effects)


def _write(ctx: Context, decided: Sequence[_Decided]) -> None:
    if not decided:
        return
    write_decisions(ctx, [(row.id, decision) for row, _, decision in decided])
    ended: dict[int, list[int]] = {}
    for row, _, decision in decided:
        if not decision.run.is_live:
            ended.setdefault(row.journey_id, []).append(row.id)
    tell_ends(ctx, ended)
    ctx.runtime.telemetry.point("journeys.step.written")
    send_messages(ctx, [(row, message) for _, row, message in sorted(_messages(decided), key=lambda each: each[0])])


def _messages(decided: Iterable[_Decided]) -> Iterable[tuple[tuple[Any, ...], Any, SendMessage]]:
    """The messages with what puts them in the order in which their sends were made."""
    for row, journey, decision in decided:
        for effect in decision.effects:
            assert isinstance(effect, SendMessage), "only such runs are written together"
            node = journey.nodes[effect.node]
            assert isinstance(node, Message), "only such nodes write messages"
            place = (list(journey.nodes).index(node.id), list(node.channels).index(effect.channel))
            yield (row.journey_id, row.version_number, *place), row, effect
