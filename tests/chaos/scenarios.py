"""The faults by name: each plays campaigns to their end while something breaks, and asks the judge."""

from collections.abc import Callable, Mapping

from tests.chaos import (
    clocks,
    compensations,
    database_clocks,
    disks,
    doorbell,
    drops,
    due,
    fairness,
    full_servers,
    imports,
    journeys,
    kills,
    outages,
    poisoned,
    schedules,
    segments,
    shortages,
    unsubscribing,
)
from tests.chaos.verdicts import Plan, Servers, Verdict

FAULTS: Mapping[str, Callable[[Servers, Plan], Verdict]] = {
    "worker_kill": kills.worker_kill,
    "worker_kill_transactional": kills.worker_kill_transactional,
    "worker_kill_embedded": kills.worker_kill_embedded,
    "pserve_kill": kills.pserve_kill,
    "database_restart": outages.database_restart,
    "backends_terminated": outages.backends_terminated,
    "redis_flush": doorbell.redis_flush,
    "redis_stopped": doorbell.redis_stopped,
    "poison": doorbell.poison,
    "poison_actor": poisoned.poison_actor,
    "fairness": fairness.fairness,
    "smtp_network": drops.smtp_network,
    "unsubscribe_race": unsubscribing.unsubscribe_race,
    "two_schedulers": schedules.two_schedulers,
    "due_timers": due.due_timers,
    "clock_jumps": clocks.clock_jumps,
    "database_clock": database_clocks.database_clock,
    "out_of_files": shortages.out_of_files,
    "disk_full": disks.disk_full,
    "database_disk_full": full_servers.database_disk_full,
    "probes": kills.probes,
    "import_kill": imports.import_kill,
    "journey_kill": journeys.journey_kill,
    "compensation_kill": compensations.compensation_kill,
    "segment_rebuild": segments.segment_rebuild,
}
