"""``nexus-marketing campaigns`` and ``explain``: launch one, and say what became of a lead in it."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.core.errors import ConfigurationError, NotFound
from nexus_marketing.core.preflight import PreflightStatus
from nexus_marketing.core.promotion import LIMITS, KeptCampaign, read_kept
from nexus_marketing.core.values import email_norm, parse_json
from nexus_marketing.db.models import Campaign, Lead, Preflight
from nexus_marketing.db.queries.dead_letters import Chosen, dead_letters
from nexus_marketing.db.queries.leads import lead_by_address
from nexus_marketing.db.queries.resources.campaigns import CAMPAIGNS
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.forecast import advance_preflight
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.actions.compensation import fail_campaign
from nexus_marketing.services.actions.escalations import acknowledge, escalations_of
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.preflights import check_preflight, preflight_document, request_preflight
from nexus_marketing.services.campaigns.promotion import known_campaigns, promote_campaigns
from nexus_marketing.services.dead_letters import AT_ONCE, accept_unknown, replay_dead_letters
from nexus_marketing.services.explanations import explain_lead
from nexus_marketing.services.reactions import read_reactions
from nexus_marketing.services.segments.refresh import refresh

#: Campaigns of one transaction: a failure in the file keeps what came before it.
_PROMOTED_AT_ONCE = 100

app = typer.Typer(no_args_is_help=True, help="Campaigns.")


_CampaignId = Annotated[int, typer.Argument(help="The campaign's id.")]


@app.callback()
def campaigns() -> None:
    """Campaigns."""


@app.command("list")
def list_(
    context: typer.Context,
    tenant: TenantName,
    *,
    status: Annotated[CampaignStatus | None, typer.Option(help="Only in this status.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List campaigns, the newest first, with what they wait for."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, CAMPAIGNS, limit, "" if status is None else f"status == '{status}'")
    columns = ("id", "name", "status", "status_reason", "channel", "segment_id", "started_at")
    show_rows("Campaigns", columns, rows, as_json=as_json)


@app.command()
def launch(
    context: typer.Context,
    campaign: _CampaignId,
    tenant: TenantName,
    *,
    seen: Annotated[int | None, typer.Option("--preflight", help="Only as this pre-flight saw it.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="By how many percent the audience may have changed since then (5).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Launch a campaign; workers plan its audience and send."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        check_preflight(ctx, campaign, seen, tolerance)
        launched = move_campaign(ctx, campaign, "launch")
    document = {"id": str(launched.id), "status": launched.status, "version": launched.version}
    answer(document, f"Campaign {launched.id} is {launched.status}.", as_json=as_json)


@app.command()
def promote(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(help="module:name of objects with campaigns (a list, or a function), or a .jsonl file of them."),
    ],
    tenant: TenantName,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move campaigns that objects kept themselves into the database, with ids and history; again changes nothing."""
    counts = {"promoted": 0, "already": 0}
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        for piece in _pieces(kept_campaigns(source), _PROMOTED_AT_ONCE):
            with runtime.work(tenant_id, OPERATOR, mode="read" if dry_run else "write") as ctx:
                already = known_campaigns(ctx, piece) if dry_run else promote_campaigns(ctx, piece)["already"]
            counts["already"] += already
            counts["promoted"] += len(piece) - already
    would = "would be promoted" if dry_run else "promoted"
    text = f"{counts['promoted']} campaigns {would}, {counts['already']} were there already."
    answer({**counts, "dry_run": dry_run}, text, as_json=as_json)


def kept_campaigns(source: str) -> Iterator[KeptCampaign]:
    """What is to be promoted, one by one.

    Raises:
        ConfigurationError: there is no such module, name or file.
        ValidationError: a line of the file, or what an object keeps, is no campaign.
    """
    if source.endswith(".jsonl"):
        with Path(source).open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield read_kept(parse_json(line, f"line {number}", LIMITS), f"line {number}")
        return
    for each in _objects(source):
        marketing = getattr(each, "marketing", None)
        if marketing is None:
            raise ConfigurationError(f"{source} holds a {type(each).__name__}: give objects that are HasMarketing.")
        yield from marketing().kept()


def _objects(source: str) -> Iterable[Any]:
    module, _, name = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # the program's own modules, as python -m finds them
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{source} cannot be loaded ({error}): write module:name, or a .jsonl file."
        ) from error
    objects: Iterable[Any] = found() if callable(found) else found
    return objects


def _pieces(campaigns: Iterator[KeptCampaign], size: int) -> Iterator[list[KeptCampaign]]:
    while piece := list(islice(campaigns, size)):
        yield piece


@app.command("dead-letters")
def list_dead_letters(
    context: typer.Context,
    campaign: _CampaignId,
    tenant: TenantName,
    *,
    state: Annotated[str, typer.Option(help="failed, or unknown: nobody knows whether it arrived.")] = "failed",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List messages that could not be handed over, with the server's answer."""
    chosen = Chosen(campaign, _dead(state))
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        find(ctx.session, Campaign, campaign)
        rows = [dict(row) for row in dead_letters(ctx.session, chosen, (0, 0), limit)]
    columns = ("send_id", "seq", "lead_id", "reason", "attempts", "provider_code", "settled_at")
    shown = table("dead letters", columns, [[str(row[name] or "") for name in columns] for row in rows])
    answer({"dead_letters": rows}, shown, as_json=as_json)


@app.command()
def replay(
    context: typer.Context,
    campaign: _CampaignId,
    tenant: TenantName,
    *,
    state: Annotated[str, typer.Option(help="failed; or unknown, at the risk of a second copy.")] = "failed",
    reason: Annotated[str | None, typer.Option(help="Of failed ones: also permanent_recipient by its name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters once more, each through the whole gate."""
    chosen = _dead(state)
    moved = _until_done(context, tenant, lambda ctx: replay_dead_letters(ctx, campaign, chosen, reason=reason))
    answer({"replayed": moved}, f"{moved} messages are due again.", as_json=as_json)


@app.command("accept-unknown")
def accept(context: typer.Context, campaign: _CampaignId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Take it that messages of which nobody knows arrived."""
    moved = _until_done(context, tenant, lambda ctx: accept_unknown(ctx, campaign))
    answer({"accepted": moved}, f"{moved} messages count as accepted.", as_json=as_json)


@app.command("preflight")
def preflight(context: typer.Context, campaign: _CampaignId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Say what would become of a campaign if it were launched now; nobody is written to."""
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR) as ctx:
            asked = request_preflight(ctx, campaign)
            preflight_id, segment_id = asked.id, find(ctx.session, Campaign, campaign).segment_id
        if segment_id is not None:
            refresh(runtime, tenant_id, segment_id)
        found = _looked_through(runtime, tenant_id, preflight_id)
    answer(found, "\n".join(_forecast_lines(found)), as_json=as_json)


def _looked_through(runtime: Runtime, tenant_id: int, preflight_id: int) -> dict[str, Any]:
    while True:
        while advance_preflight(runtime, tenant_id, preflight_id):
            pass
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            found = preflight_document(ctx, find(ctx.session, Preflight, preflight_id))
        if found["status"] != PreflightStatus.WAITING:
            return found
        time.sleep(0.2)  # a worker has a piece of it


def _forecast_lines(found: dict[str, Any]) -> list[str]:
    if found["problems"] or found["error"]:
        return [f"It cannot be launched: {found['error'] or 'mend this first.'}"] + [
            f"  {each['path']}: {each['message']}" for each in found["problems"]
        ]
    lines = [f"Pre-flight {found['id']}: {found['audience']} people in the audience."]
    for name, about in found["channels"].items():
        lines.append(f"{name}: {about['sendable']} messages, the last by {about['expected_finish']:%Y-%m-%d %H:%M} UTC")
        lines += [f"  {count} skipped: {reason}" for reason, count in sorted(about["skipped"].items())]
        lines += [f"  {count} later: {reason}" for reason, count in sorted(about["held"].items())]
    return lines


@app.command()
def reactions(context: typer.Context, campaign: _CampaignId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Ask the networks now what people did about a campaign's posts; what leads did becomes their events."""
    with context.obj.runtime(sends=True) as runtime:
        found = read_reactions(runtime, tenant_id_of(runtime, tenant), OPERATOR, campaign)
    columns = ("channel", "code", "favourite", "repost", "reply", "recorded", "error")
    cells = [["" if row[name] is None else row[name] for name in columns] for row in found]
    answer({"posts": found}, table("posts of the last 30 days", columns, cells), as_json=as_json)


@app.command()
def escalations(context: typer.Context, campaign: _CampaignId, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Show which levels of a campaign acted, the newest last, and who has seen it."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = [
            {
                "id": str(each.id),
                "at": each.at.isoformat(),
                "level": each.level,
                "action": each.action,
                "reason": each.reason,
                "acknowledged_by": each.acknowledged_by,
            }
            for each in escalations_of(ctx, find(ctx.session, Campaign, campaign).id)
        ]
    columns = ("id", "at", "level", "action", "reason", "acknowledged_by")
    cells = [[each[column] or "" for column in columns] for each in rows]
    answer(
        {"escalations": rows}, table(f"Campaign {campaign}: {len(rows)} escalations", columns, cells), as_json=as_json
    )


@app.command(name="acknowledge")
def acknowledge_escalation(
    context: typer.Context,
    escalation: Annotated[int, typer.Argument(help="The escalation's id.")],
    tenant: TenantName,
    *,
    as_json: AsJson = False,
) -> None:
    """Say that an escalation was seen: higher levels keep quiet."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        line = acknowledge(ctx, escalation)
        seen = {"id": str(line.id), "acknowledged_by": line.acknowledged_by}
    answer(seen, f"Escalation {escalation} is acknowledged.", as_json=as_json)


@app.command()
def fail(
    context: typer.Context,
    campaign: _CampaignId,
    tenant: TenantName,
    reason: Annotated[str, typer.Option("--reason", help="Shown beside the status.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say that a campaign failed: workers take back what it did, where its definition says how."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = fail_campaign(ctx, campaign, reason)
        said = {"id": str(row.id), "status": row.status, "status_reason": row.status_reason}
    answer(said, f"Campaign {campaign} is {said['status']}: {reason}", as_json=as_json)


def _until_done(context: typer.Context, tenant: str, some: Callable[[Context], int]) -> int:
    total = 0
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        while True:
            with runtime.work(tenant_id, OPERATOR) as ctx:
                moved = some(ctx)
            total += moved
            if moved < AT_ONCE:
                return total


def _dead(state: str) -> DeliveryState:
    if state not in (DeliveryState.FAILED, DeliveryState.UNKNOWN):
        raise typer.BadParameter(f"{state!r} is neither failed nor unknown.", param_hint="--state")
    return DeliveryState(state)


def explain(
    context: typer.Context,
    tenant: TenantName,
    lead: Annotated[str, typer.Option("--lead", help="Id, e-mail address or external id.")],
    campaign: Annotated[int, typer.Option("--campaign", help="The campaign's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what became of a lead in a campaign, and why."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        find(ctx.session, Campaign, campaign)
        explained = explain_lead(ctx, _lead_id(ctx, lead), campaign)
    lines = [explained["sentence"], *map(_line, explained["deliveries"]), *map(_now_line, explained["now"])]
    answer(explained, "\n".join(lines), as_json=as_json)


def _now_line(about: dict[str, Any]) -> str:
    against = [f"{each['name']} ({each['reason']})" for each in about["checks"] if each["reason"] is not None]
    if not against:
        return f"  if it were launched now, by {about['channel']}: nothing stands in the way"
    when = f"; eligible at {about['eligible_at'].isoformat()}" if about["eligible_at"] else ""
    return f"  if it were launched now, by {about['channel']}: {', '.join(against)}{when}"


def _line(delivery: dict[str, Any]) -> str:
    facts = [f"send {delivery['send_id']} by {delivery['channel']}", delivery["state"], delivery["reason"]]
    facts += [delivery["provider_code"], delivery["settled_at"] and delivery["settled_at"].isoformat()]
    return "  " + ", ".join(str(fact) for fact in facts if fact)


def _lead_id(ctx: Context, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:
        return find(ctx.session, Lead, int(text)).id
    found = lead_by_address(ctx.session, text, email_norm(text))
    if found is None:
        raise NotFound("There is no lead with this id, e-mail address or external id.")
    return found
