"""What due timers do, by their types: the one list of them."""

from nexus_marketing.db.queries import journeys
from nexus_marketing.services.actions.compensation import COMPENSATION_DUE
from nexus_marketing.services.actions.compensation import TYPE as COMPENSATION
from nexus_marketing.services.actions.escalations import ESCALATION_DUE
from nexus_marketing.services.actions.escalations import TYPE as ESCALATION
from nexus_marketing.services.actions.requests import TYPE as ACTION
from nexus_marketing.services.actions.runs import ACTION_DUE
from nexus_marketing.services.campaigns.listening import SCORED
from nexus_marketing.services.campaigns.recurring import TYPE as RUN
from nexus_marketing.services.campaigns.runs import RUN_DUE
from nexus_marketing.services.campaigns.triggers import happened, scored
from nexus_marketing.services.journeys.batches import runs_due
from nexus_marketing.services.journeys.compensation import TAKE_BACK
from nexus_marketing.services.journeys.compensation import take_back_due as take_back_run_due
from nexus_marketing.services.journeys.dates import (
    DATE_DUE,
    DATES_DUE,
    SCHEDULE_DUE,
    date_due,
    dates_due,
    redate,
    schedule_due,
)
from nexus_marketing.services.journeys.entries import backfill_due, run_ended, score_crossed, segment_moved
from nexus_marketing.services.journeys.moves import HURRY, MIGRATE, RESUME, hurry_due, migrate_due, resume_due
from nexus_marketing.services.journeys.patching import PATCH, patch_due
from nexus_marketing.services.journeys.plugins import ASK_DUE
from nexus_marketing.services.journeys.reviving import REVIVE, revive_due
from nexus_marketing.services.journeys.runs import (
    HELD,
    STOP,
    TELL,
    TELL_DUE,
    event_held,
    lead_changed,
    run_dead,
    stop_due,
)
from nexus_marketing.services.journeys.runs import RUN_DUE as JOURNEY_RUN_DUE
from nexus_marketing.services.reactions import REACTIONS_DUE
from nexus_marketing.services.scores.scoring import score_due
from nexus_marketing.services.scores.storing import TIMER as SCORES_DUE
from nexus_marketing.services.segments import clock as segment_clock
from nexus_marketing.services.timers import TimerHandlers, Together
from nexus_marketing.services.watching import TYPE as REACTIONS

#: What due timers do.
TIMERS: TimerHandlers = {
    SCORES_DUE: score_due,
    ACTION: ACTION_DUE,
    ESCALATION: ESCALATION_DUE,
    COMPENSATION: COMPENSATION_DUE,
    segment_clock.TYPE: segment_clock.clock_moved,
    RUN: RUN_DUE,
    REACTIONS: REACTIONS_DUE,
    journeys.RUN_DUE: Together(JOURNEY_RUN_DUE, runs_due, run_dead),
    journeys.MOVED: segment_moved,
    journeys.HAPPENED: happened,
    SCORED: scored,
    journeys.CHANGED: lead_changed,
    journeys.ENDED: run_ended,
    journeys.SCORED: score_crossed,
    journeys.ASK: ASK_DUE,
    journeys.REDATE: redate,
    DATE_DUE: date_due,
    DATES_DUE: dates_due,
    SCHEDULE_DUE: schedule_due,
    HELD: event_held,
    TELL: TELL_DUE,
    journeys.BACKFILL: backfill_due,
    STOP: stop_due,
    MIGRATE: migrate_due,
    RESUME: resume_due,
    HURRY: hurry_due,
    PATCH: patch_due,
    REVIVE: revive_due,
    TAKE_BACK: take_back_run_due,
}
