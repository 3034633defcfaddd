"""What ``doctor`` looks at of the work: sends, retries, timers, journeys and what else waits or failed."""

from nexus_marketing.cli.probes import SILENCE_SECONDS
from nexus_marketing.cli.session import OPERATOR
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.db.queries.audit_sinks import sinks_behind
from nexus_marketing.db.queries.backlog import (
    abandoned_chunks,
    crashed_chunks,
    overdue_retries,
    stopped_sends,
    waiting_chunks,
)
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.segments import failing_segments
from nexus_marketing.db.queries.timers import dead_timers
from nexus_marketing.db.queries.troubles import failed_runs, ill_actions, open_escalations, slow_compensations
from nexus_marketing.runtime import Runtime

#: A send that waits longer than this for somebody to take it up is told of.
_WAIT_SECONDS = 600.0
#: What helps a send that stopped itself, by how its reason begins.
_REMEDIES = {
    "sender_refused": "Sender refused: mend login, quota or policy with the provider, then resume the campaign.",
    "too_many_bounces": "Too many bounces: see where these addresses come from before you resume the campaign.",
    "too_many_errors": "Too many errors: see what the receiving servers answer (dead letters), then resume the campaign.",
    "cannot be sent: Its channel account": "Channel account off or gone: switch one on with the same sender (channels "
    "change), then resume the campaign.",
    "plugin_missing": "Plugin missing: name the channel's plugin in nexus.includes of every worker, or switch it on for the "
    "tenant (plugins enable), then resume.",
    "cannot be planned": "Cannot be planned: mend the segment's rule, then resume the campaign.",
}


def probe_ledger(runtime: Runtime) -> str:
    """Whether what must always hold of the send ledger holds."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        broken = broken_invariants(ctx.session)
    if broken:
        raise OSError(f"broken: {', '.join(broken)}; keep the database as it is and report this")
    return "every invariant holds"


def probe_queue(runtime: Runtime) -> str:
    """What waits to be sent, and for how long."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        found = waiting_chunks(ctx.session)
    if not found.chunks:
        apart = f" but {found.for_domains} chunks for the rates of domains" if found.for_domains else ""
        return f"nothing waits{apart}"
    said = f"{found.chunks} chunks of {found.sends} sends wait, the oldest send is {_span(found.seconds)} old"
    if found.seconds > _WAIT_SECONDS:
        raise OSError(f"{said}: start more workers, or raise the tenant's send_rates if they hold it")
    return said


def probe_retries(runtime: Runtime) -> str:
    """Recipients whose turn has come again and who were not taken up."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        found = overdue_retries(ctx.session)
    if not found.rows or found.seconds < SILENCE_SECONDS:
        return "none is overdue"
    raise OSError(f"{found.rows} are overdue, the first for {_span(found.seconds)}: start more workers")


def probe_leases(runtime: Runtime) -> str:
    """Chunks whose workers are gone."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        count = abandoned_chunks(ctx.session)
    if count:
        raise OSError(f"{count} chunks were left by workers that died and nobody took them up: start a worker")
    return "every chunk is held by a worker or free"


def probe_crashes(runtime: Runtime) -> str:
    """Messages over which workers end."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = crashed_chunks(ctx.session)
    if not rows:
        return "no worker ended over a message of late"
    named = [f"campaign {row.campaign_id} of tenant {row.tenant_id} ({row.crashes} workers)" for row in rows[:3]]
    raise OSError(
        f"workers ended while they made messages of {'; '.join(named)}: see their logs and the kernel's (no memory left?), mend "
        "the template, the data or the plugin. What was given up: campaigns dead-letters, then replay --reason crashed"
    )


def probe_stopped(runtime: Runtime) -> str:
    """Sends that stopped themselves, with what helps."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = stopped_sends(ctx.session)
    if not rows:
        return "none stopped by itself"
    named = [
        f"campaign {row.campaign_id} of tenant {row.tenant_id} by {row.channel} ({row.status}: {row.status_reason})"
        for row in rows[:3]
    ]
    remedies = dict.fromkeys(_remedy(row.status, row.status_reason) for row in rows)
    raise OSError(f"{len(rows)} stopped by themselves: {'; '.join(named)}. {' '.join(remedies)}")


def _remedy(status: str, reason: str) -> str:
    if status == SendStatus.MISSED:
        return "Missed: no worker began in time; resume the campaign if it is still wanted, cancel it if not."
    known = next((said for begins, said in _REMEDIES.items() if reason.startswith(begins)), None)
    return known or "Mend what the reason says, then resume the campaign."


def probe_timers(runtime: Runtime) -> str:
    """Timers that were given up."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        dead = dead_timers(ctx.session, 20)
    if not dead:
        return "none was given up"
    first = dead[0]
    said = f"the first is {first.type} {first.key} of tenant {first.tenant_id}: {first.error}"
    raise OSError(f"{len(dead)} were given up after many tries; {said}. Mend that; what they were for is not done")


def probe_segments(runtime: Runtime) -> str:
    """Segments whose rules fail."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = failing_segments(ctx.session, 20)
    if not rows:
        return "every rule can be computed"
    first = rows[0]
    said = f"{len(rows)} cannot be computed and keep the members they had; the first is {first.id} of tenant "
    raise OSError(f"{said}{first.tenant_id}: {first.error}")


def probe_actions(runtime: Runtime) -> str:
    """Actions that failed, or of which nobody knows."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = ill_actions(ctx.session)
    said = []
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        named = [f"{row.n} of {row.name} of {row.slug} (the last is {row.last_id}: {row.reason})" for row in failed[:3]]
        said.append(f"{sum(row.n for row in failed)} failed within a week: {'; '.join(named)}. Mend what they say")
        said.append("(actions list --tenant SLUG --state failed), then actions retry ID --tenant SLUG")
    paused = [row for row in rows if row.state == "paused"]
    if paused:
        named = [f"{row.n} of {row.name} of {row.slug}" for row in paused[:3]]
        said.append(
            f"{'; '.join(named)} wait for a plugin: name it in nexus.includes of every worker, or plugins enable"
        )
    if said:
        raise OSError(" ".join(said))
    return "none failed within a week, and none waits for a plugin"


def probe_taking_back(runtime: Runtime) -> str:
    """Campaigns that are taken back for long."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = slow_compensations(ctx.session)
    if not rows:
        return "no failed campaign waits for long"
    named = [
        f"campaign {row.campaign_id} of {row.slug} ({f'{row.actions} actions open' if row.actions else 'its sends are not at rest'})"
        for row in rows[:3]
    ]
    raise OSError(
        f"failed over an hour ago and not taken back whole: {'; '.join(named)}. Start a worker if there is none; see its actions "
        "(actions list --campaign ID) and its dead timers"
    )


def probe_escalations(runtime: Runtime) -> str:
    """Escalations that nobody has acknowledged."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = open_escalations(ctx.session)
    if not rows:
        return "none is open"
    first = rows[0]
    said = f"the oldest, {first.id} of campaign {first.campaign_id} of {first.slug}, for {_span(float(first.seconds))}"
    return f"{len(rows)} are open, {said}: whoever has seen one says campaigns acknowledge ID --tenant SLUG"


def probe_journeys(runtime: Runtime) -> str:
    """Runs of journeys that failed."""
    with runtime.work(None, OPERATOR, mode="read") as ctx:
        rows = failed_runs(ctx.session)
    if not rows:
        return "no run failed within a week"
    named = [f"{row.n} of journey {row.journey_id} of {row.slug} ({row.reason})" for row in rows[:3]]
    raise OSError(f"runs failed within a week: {'; '.join(named)}. See journeys runs ID --tenant SLUG --state failed")


def probe_audit_sinks(runtime: Runtime) -> str:
    """Whether every sink was told of what is recorded."""
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = sinks_behind(ctx.session, _WAIT_SECONDS)
    if not rows:
        return f"{len(runtime.plugins.audit_sinks)}; none is behind"
    named = "; ".join(f"{row.sink} of {row.slug} ({row.rows} records, {_span(float(row.seconds))})" for row in rows[:3])
    said = "what it refuses holds back what is behind it. See audit_sink_failed in the log of the workers"
    raise OSError(f"not told of the audit: {named}. Mend the sink, or switch its plugin off (plugins disable): {said}")


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
