"""The command line on both databases: what it answers, how it fails, and its exit codes."""

import csv
import io
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select, update
from typer.testing import CliRunner

from nexus_marketing.cli.app import app, main
from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.api_keys import parse_key
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.deliveries import DeliveryState, SkipReason
from nexus_marketing.db.models import (
    Campaign,
    ChannelAccount,
    Delivery,
    DeliveryChunk,
    Escalation,
    JourneyRun,
    Lead,
    Send,
    TakenAction,
    Timer,
)
from nexus_marketing.db.queries.clock import database_now
from nexus_marketing.plugin.circuits import write_down
from nexus_marketing.security.visitors import FLOODS, Flood
from nexus_marketing.services.actions.requests import ActionRequest, request_action
from nexus_marketing.services.journeys.entries import enter_leads
from nexus_marketing.services.journeys.records import create_journey, publish_journey, update_journey
from nexus_marketing.services.scores.records import create_score, publish_score
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from nexus_marketing.telemetry import get_logger, log_discreetly
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template

pytestmark = pytest.mark.req("US-001", "MAINT-004")
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def cli(runtime, tmp_path, monkeypatch):
    """Run a command against the test's database; answers exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    settings = runtime.settings
    ini = tmp_path / "test.ini"
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.database_worker_url": settings.database_worker_url,
        "nexus.database_owner_url": settings.database_owner_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
        "nexus.smtp.port": "1",
    }
    ini.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))

    def run(*arguments: str, config: bool = True) -> tuple[int, str, str]:
        options = ["-c", str(ini)] if config else []
        result = CliRunner().invoke(app, [*options, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def ask(cli):
    """Run a command that must succeed with ``--json``; answers its document."""

    def run(*arguments: str):
        code, out, err = cli(*arguments, "--json")
        assert code == 0, out + err
        return json.loads(out)

    return run


def commands() -> list[list[str]]:
    found = [[], ["explain"], ["serve"], ["worker"], ["demo"], ["doctor"]]
    groups = {
        "db": ["upgrade", "check", "partitions"],
        "tenants": ["create", "list", "suspend", "warm-up", "apply"],
        "keys": ["create", "list", "revoke", "rotate"],
        "members": ["add", "list", "change"],
        "channels": ["types", "list", "add", "change", "remove", "health", "test"],
        "leads": ["import", "export"],
        "segments": ["list", "recalculate"],
        "actions": ["list", "retry"],
        "approvals": ["list", "answer"],
        "plugins": ["list", "check", "enable", "disable", "new"],
        "journeys": [
            "list",
            "runs",
            "publish",
            "drain",
            "pause",
            "resume",
            "stop",
            "enter",
            "migrate",
            "patch",
            "revive",
        ],
        "campaigns": [
            "list",
            "launch",
            "preflight",
            "promote",
            "reactions",
            "escalations",
            "acknowledge",
            "fail",
            "dead-letters",
            "replay",
            "accept-unknown",
        ],
    }
    return found + [[group, name] for group, names in groups.items() for name in names]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tenants", "suspend", "nobody"], "There is no tenant 'nobody'"),
        (["keys", "create", "-t", "nobody", "--scopes", "*"], "There is no tenant 'nobody'"),
        (["keys", "create", "-t", "acme", "--scopes", "leads:everything"], "'leads:everything' is no scope"),
        (["leads", "import", "nowhere.csv", "-t", "acme"], "There is no file 'nowhere.csv'"),
        (["leads", "export", "-t", "acme", "--format", "xlsx"], "use csv or jsonl"),
        (["segments", "recalculate", "-t", "acme", "99"], "There is no segment 99"),
        (["campaigns", "launch", "99", "-t", "acme"], "There is no campaign 99"),
        (["journeys", "publish", "99", "-t", "acme"], "There is no journey 99"),
        (["explain", "-t", "acme", "--lead", "1", "--campaign", "99"], "There is no campaign 99"),
        (["tenants", "apply", "nowhere"], "no <name>/tenant.toml"),
        (["plugins", "check", "nix"], "No plugin 'nix' is installed"),
        (["plugins", "enable", "nix", "-t", "acme"], "There is no plugin 'nix' here"),
        (["plugins", "enable", "email", "-t", "acme"], "email is built in"),
        (["plugins", "disable", "nix", "-t", "acme"], "There is no plugin 'nix' here"),
        (["plugins", "new", "Nix"], "'Nix' is no name"),
        (["plugins", "new", "nix", "--kind", "storage"], "There is no beginning for 'storage'"),
    ],
)
def test_a_refusal_is_one_clear_line_and_exit_code_1(cli, tenant, arguments, said):
    code, out, err = cli(*arguments)
    assert code == 1
    assert err.strip().startswith("error: ")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    code, out, _ = cli(*arguments, "--json")
    assert code == 1
    assert said in json.loads(out)["error"]["message"]


def test_a_command_written_wrongly_is_exit_code_2(cli):
    assert cli("tenants", "frobnicate")[0] == 2
    assert cli("keys", "create")[0] == 2


def test_a_configuration_that_is_missing_or_empty_is_named(cli, tmp_path):
    assert "no file 'nix.ini'" in cli("-c", "nix.ini", "tenants", "list", config=False)[2]
    (tmp_path / "empty.ini").write_text("[server:main]\nuse = egg:waitress\n")
    assert "app:main" in cli("-c", "empty.ini", "tenants", "list", config=False)[2]


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_without_a_file_everything_lies_below_var(cli, tmp_path):
    assert cli("tenants", "list", config=False)[0] == 1
    assert "db upgrade" in cli("tenants", "list", config=False)[2]
    assert cli("db", "upgrade", config=False)[0] == 0
    assert cli("db", "check", config=False)[0] == 0
    assert cli("tenants", "create", "acme", config=False)[0] == 0
    assert (tmp_path / "var" / "nexus.db").is_file()


def test_the_database_is_checked_and_partitioned(ask, dialect):
    assert ask("db", "upgrade")["before"] == ask("db", "check")["revision"]
    assert ask("db", "partitions")["made"] == ask("db", "partitions")["made"] == [] or dialect == "postgresql"


def test_tenants_and_keys_from_nothing_to_revocation(ask, cli):
    made = ask("tenants", "create", "north", "--name", "North Sea")
    assert ask("tenants", "list")["data"][0]["name"] == "North Sea"
    key = ask("keys", "create", "-t", "north", "--scopes", "leads:read, leads:write", "--expires-days", "30")
    assert parse_key(key["key"]).key_id == key["key_id"]
    listed = ask("keys", "list", "-t", "north")["data"]
    assert [(row["key_id"], row["revoked_at"]) for row in listed] == [(key["key_id"], None)]
    assert key["key"] not in json.dumps(listed)
    assert ask("keys", "revoke", key["key_id"], "-t", "north")["revoked_at"]
    assert ask("tenants", "suspend", "north") == {"slug": "north", "suspended": True}
    assert ask("tenants", "suspend", "north", "--resume")["suspended"] is False
    assert made["id"].isdigit()
    assert "North Sea" in cli("tenants", "list")[1]


def test_declarations_are_applied_twice_without_change(ask):
    folder = str(REPOSITORY / "tenants")
    assert [row["outcome"] for row in ask("tenants", "apply", folder)["data"]] == ["created"]
    assert [row["outcome"] for row in ask("tenants", "apply", folder)["data"]] == ["unchanged"]


def test_warming_up_is_shown_for_each_sender(ask, cli, tmp_path):
    (tmp_path / "south").mkdir()
    plan = '[[settings.warm_up]]\nsender = "news@south.example"\ndaily = [50, 100]\n'
    (tmp_path / "south" / "tenant.toml").write_text(f'name = "South"\n{plan}')
    ask("tenants", "apply", str(tmp_path))
    (row,) = ask("tenants", "warm-up", "south")["data"]
    assert row == {
        "sender": "news@south.example",
        "day": 1,
        "of": 2,
        "allowed": 50,
        "left": 0,
        "bounced": 0,
        "complained": 0,
    }
    assert "news@south.example" in cli("tenants", "warm-up", "south")[1]


def test_leads_come_in_and_go_out(ask, cli, tenant, tmp_path):
    (tmp_path / "in.csv").write_text("email,name,Note\na@example.org,Ann,=HYPERLINK(1)\nbroken,B,\nA@example.org,C,\n")
    rehearsal = ask("leads", "import", "in.csv", "-t", "acme", "--dry-run")
    report = ask("leads", "import", "in.csv", "-t", "acme", "--errors", "errors.csv")
    for found in (rehearsal, report):
        assert (found["rows"], found["created"], found["duplicate"], found["rejected"]) == (3, 1, 1, 1)
    errors = list(csv.DictReader((tmp_path / "errors.csv").read_text().splitlines()))
    assert [(row["row"], row["column"], row["code"]) for row in errors] == [("3", "email", "not_an_email")]
    code, out, _ = cli("leads", "import", "in.csv", "-t", "acme")
    assert code == 0
    assert "0 were created, 0 updated, 1 unchanged" in out
    assert "row 3, email:" in out
    lines = cli("leads", "export", "-t", "acme", "--format", "jsonl")[1].splitlines()
    assert json.loads(lines[0])["metadata"] == {"note": "=HYPERLINK(1)"}
    assert ask("leads", "export", "-t", "acme", "-o", "out.csv") == {"leads": 1, "file": "out.csv"}


@pytest.mark.req("SR-008")
def test_no_cell_of_an_export_is_a_live_formula(cli, runtime, tenant):
    hostile = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "|x", "%0A=1", "\uff1d1"]
    for number, text in enumerate(hostile):
        make_leads(runtime, tenant, 1, first=number, name=text, last_name=text, external_id=f"{text}{number}")
    make_leads(runtime, tenant, 1, first=99, phone="+4930123456", name="-5", email="=cmd@example.org")
    code, out, _ = cli("leads", "export", "-t", "acme")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == len(hostile) + 1
    cells = [row[name] for row in rows[:-1] for name in ("name", "last_name", "external_id")]
    assert all(cell.startswith("'") for cell in cells)
    assert (rows[-1]["phone"], rows[-1]["name"], rows[-1]["email"]) == ("+4930123456", "-5", "'=cmd@example.org")


def test_an_export_of_a_segment_has_its_members_only(cli, ask, runtime, tenant):
    ids = make_leads(runtime, tenant, 5)
    segment_id = make_segment(runtime, tenant, ids[:2])
    out = cli("leads", "export", "-t", "acme", "--segment", str(segment_id), "--format", "jsonl")[1]
    assert [json.loads(line)["id"] for line in out.splitlines()] == [str(each) for each in ids[:2]]


def test_an_export_never_shows_another_tenant(cli, runtime, tenant, other_tenant):
    make_leads(runtime, other_tenant, 3)
    assert cli("leads", "export", "-t", "acme", "--format", "jsonl")[1] == ""


def test_segments_are_recalculated_now(ask, runtime, tenant):
    from nexus_marketing.services.segments.records import create_segment

    make_leads(runtime, tenant, 10)
    with runtime.work(tenant) as ctx:
        create_segment(ctx, {"name": "high", "conditions": "score > 5"})
    row = ask("segments", "recalculate", "-t", "acme")["data"][0]
    assert (row["name"], row["lead_count"], row["generation"]) == ("high", 5, 1)


@pytest.mark.req("FR-P2-010")
def test_scores_are_listed_recomputed_and_explained(ask, cli, runtime, tenant):
    (lead,) = make_leads(runtime, tenant, country="US", score=3.0)
    with runtime.work(tenant) as ctx:
        draft = {"rules": [{"key": "us", "when": "country == 'US'", "points": 7}]}
        publish_score(ctx, create_score(ctx, {"name": "score", "draft": draft}).id)
    done = ask("scores", "recompute", "--tenant", "acme")
    assert done == {"score": "score", "version": 1, "status": "finished", "leads": 1, "changed": 1}
    (row,) = ask("scores", "list", "--tenant", "acme")["data"]
    assert (row["name"], row["published"], row["recomputed"], row["changed"]) == ("score", 1, "finished", 1)
    found = ask("scores", "explain", "--tenant", "acme", str(lead))
    assert found["value"] == 10.0
    assert [(each["kind"], each["present"]) for each in found["contributions"]] == [
        ("carried", 3.0),
        ("attribute", 7.0),
    ]
    assert cli("scores", "recompute", "--tenant", "acme", "fit")[0] == 1


@pytest.mark.req("FR-P2-004", "REL-005")
def test_dead_letters_are_listed_and_taken_up(ask, cli, runtime, tenant):
    leads = make_leads(runtime, tenant, 4)
    campaign = make_campaign(runtime, tenant, status="completed")
    send = make_send(runtime, tenant, campaign, make_template(runtime, tenant), leads)
    with runtime.work(tenant) as ctx:
        values = {"failed": "exhausted", "unknown": None}
        for seq, (state, reason) in enumerate(values.items(), start=1):
            row = update(Delivery).where(Delivery.seq == seq)
            ctx.session.execute(row.values(state=state, reason=reason, provider_code="451", settled_at=ctx.now))
        ctx.session.execute(update(Send).values(status="completed", finished_at=ctx.now))
    here = [str(campaign), "-t", "acme"]
    (row,) = ask("campaigns", "dead-letters", *here)["dead_letters"]
    assert (row["send_id"], row["lead_id"], row["reason"], row["provider_code"]) == (send, leads[0], "exhausted", "451")
    assert "451" in cli("campaigns", "dead-letters", *here, "--state", "unknown")[1]
    assert ask("campaigns", "replay", *here) == {"replayed": 1}
    assert ask("campaigns", "accept-unknown", *here) == {"accepted": 1}
    assert ask("campaigns", "dead-letters", *here)["dead_letters"] == []
    assert cli("campaigns", "replay", *here, "--state", "accepted")[0] == 2
    assert ask("campaigns", "reactions", *here) == {"posts": []}


@pytest.mark.req("US-020", "US-023")
def test_escalations_are_shown_and_acknowledged_and_a_campaign_fails(ask, cli, runtime, tenant):
    campaign = make_campaign(runtime, tenant, status="active")
    here = [str(campaign), "-t", "acme"]
    assert ask("campaigns", "escalations", *here) == {"escalations": []}
    with runtime.work(tenant) as ctx:
        action = request_action(ctx, ActionRequest("notify", "k", ActionSource.ESCALATION, campaign))
        about = {"entity_type": "campaign", "entity_id": campaign, "level": 2, "rule": 0, "reason": "nobody reads it"}
        ctx.session.add(Escalation(action="notify", action_id=action, at=ctx.now, **about))
    (line,) = ask("campaigns", "escalations", *here)["escalations"]
    assert (line["level"], line["reason"], line["acknowledged_by"]) == (2, "nobody reads it", None)
    seen = ask("campaigns", "acknowledge", line["id"], "-t", "acme")
    assert ask("campaigns", "escalations", *here)["escalations"][0]["acknowledged_by"] == seen["acknowledged_by"]
    assert "nobody reads it" in cli("campaigns", "escalations", *here)[1]
    assert ask("campaigns", "fail", *here, "--reason", "wrong prices")["status"] == "cancelled"
    assert cli("campaigns", "fail", *here, "--reason", "again")[0] == 1


@pytest.mark.req("US-013")
def test_a_preflight_is_shown_and_held_to(ask, cli, runtime, tenant):
    leads = make_leads(runtime, tenant, 3)
    with runtime.work(tenant) as ctx:
        ctx.session.execute(
            update(Lead).where(Lead.id == leads[0]).values(email=None, email_norm=None, phone="+49301234567")
        )
        config = {"from_email": "a@b.example", "postal_address": "1 Street"}
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        ctx.session.add(ChannelAccount(type="email", name="main", config=config, enabled=True, **times))
        text = "Hi {{ unsubscribe_url }} {{ postal_address }}"
        content = {"subject": "Hi", "text": text}
        template = create_template(ctx, {"name": "t", "type": "email", "content": content}).id
    refers = {"segment_id": make_segment(runtime, tenant, leads), "template_id": template}
    here = [str(make_campaign(runtime, tenant, **refers)), "-t", "acme"]
    found = ask("campaigns", "preflight", *here)
    assert (found["status"], found["audience"]) == ("done", 3)
    assert (found["channels"]["email"]["sendable"], found["channels"]["email"]["skipped"]) == (2, {"no_address": 1})
    said = cli("campaigns", "preflight", *here)[1]
    assert "3 people in the audience" in said
    assert "1 skipped: no_address" in said
    about = ("explain", "-t", "acme", "--campaign", here[0], "--lead")
    assert "by email: address (no_address)" in cli(*about, str(leads[0]))[1]
    assert "by email: nothing stands in the way" in cli(*about, str(leads[1]))[1]
    assert cli("campaigns", "launch", *here, "--preflight", "999")[0] == 1
    assert ask("campaigns", "launch", *here, "--preflight", found["id"])["status"] == "active"
    broken = [str(make_campaign(runtime, tenant, "broken")), "-t", "acme"]
    assert "cannot be launched" in cli("campaigns", "preflight", *broken)[1]


@pytest.mark.req("FR-P2-007")
def test_counters_are_reconciled(ask, cli, runtime, tenant):
    from nexus_marketing.db.queries.event_batches import append_deltas

    assert ask("engagements", "reconcile", "-t", "acme")["data"] == []
    wrong = {
        "campaign_id": 0,
        "day": "2026-03-02",
        "type": "conversion",
        "verdict": "human",
        "hits": 2,
        "recipients": 0,
    }
    with runtime.work(tenant) as ctx:
        append_deltas(ctx.session, [wrong])
    code, out, _ = cli("engagements", "reconcile", "-t", "acme", "--json")
    assert (code, json.loads(out)["data"][0]["hits"]) == (1, -2)
    assert ask("engagements", "reconcile", "-t", "acme", "--repair")["repaired"]
    assert ask("engagements", "reconcile", "-t", "acme")["data"] == []


def test_explain_says_what_became_of_a_lead_and_why(ask, cli, runtime, tenant):
    ids = make_leads(runtime, tenant, 3)
    segment_id = make_segment(runtime, tenant, ids[:2])
    campaign_id = make_campaign(runtime, tenant, segment_id=segment_id)
    asked = ("explain", "-t", "acme", "--campaign", str(campaign_id), "--lead")
    assert ask(*asked, str(ids[0]))["sentence"] == "The campaign has not been launched."
    send_id = make_send(runtime, tenant, campaign_id, make_template(runtime, tenant), ids[:2], segment_id=segment_id)
    with runtime.work(tenant) as ctx:
        rows = ctx.session.scalars(select(Delivery).where(Delivery.send_id == send_id).order_by(Delivery.seq)).all()
        rows[0].state = DeliveryState.ACCEPTED
        rows[1].state, rows[1].reason = DeliveryState.SKIPPED, SkipReason.CONSENT_MISSING
        ctx.session.get(Send, (tenant, send_id)).planned = 2
        address = ctx.session.get(Lead, (tenant, ids[0])).email
    assert "accepted" in ask(*asked, address)["sentence"]
    skipped = ask(*asked, str(ids[1]))
    assert "needs consent and there is none" in skipped["sentence"]
    assert skipped["deliveries"][0]["reason"] == "consent_missing"
    assert "not in the campaign's segment" in ask(*asked, str(ids[2]))["sentence"]
    assert "consent_missing" in cli(*asked, str(ids[1]))[1]
    assert cli(*asked, "who@example.org")[0] == 1


def test_doctor_finds_what_is_missing(ask, tenant):
    checks = {row["part"]: (row["status"], row["finding"]) for row in ask("doctor")["checks"]}
    assert {part for part, (status, _) in checks.items() if status == "ok"} >= {"versions", "database", "revision"}
    assert checks["workers"][0] == checks["mail"][0] == "warning"
    assert checks["send ledger"] == ("ok", "every invariant holds")
    assert "start `nexus-marketing worker`" in checks["workers"][1]


def test_doctor_tells_of_visitors_who_were_turned_away(ask, runtime):
    def visitors():
        return next((row["status"], row["finding"]) for row in ask("doctor")["checks"] if row["part"] == "visitors")

    def note(process, days=0, **values):
        moment = (SystemClock().now() - timedelta(days=days)).isoformat()
        write_down(runtime.settings.state_dir / FLOODS / f"{process}.json", Flood(moment, moment, **values))

    assert visitors() == ("ok", "nobody asked for too much within a day")
    write_down(runtime.settings.state_dir / FLOODS / "0.json", Flood("", "of another version"))
    note(1, days=2, turned_away={"engagements": 10_000}, unnamed_proxy=True)
    note(2, turned_away={"pages": 7, "engagements": 60})
    assert visitors() == ("ok", "too many from one address, within a day: engagements: 60, pages: 7")
    note(3, turned_away={"engagements": 60})
    status, finding = visitors()
    assert (status, finding.split(" of a day")[0]) == ("warning", "120 opens and clicks")
    assert "nexus.visitors.engagements_per_minute" in finding
    note(4, unnamed_proxy=True)
    assert "trusted_proxies of [server:main]" in visitors()[1]


def test_doctor_explains_what_stands_still(ask, runtime, tenant):
    quiet = {row["part"]: (row["status"], row["finding"]) for row in ask("doctor")["checks"]}
    parts = ("queue", "retries", "leases", "crashes", "sends", "timers")
    assert {quiet[part][0] for part in parts} == {"ok"}
    campaign, template = make_campaign(runtime, tenant), make_template(runtime, tenant)
    leads = make_leads(runtime, tenant, 3)
    old = datetime(2026, 1, 1, tzinfo=UTC)
    late = make_send(runtime, tenant, campaign, template, leads, created_at=old)
    left = make_send(runtime, tenant, campaign, template, leads, campaign_version=2, created_at=old)
    said = "sender_refused: 535 authentication failed"
    make_send(runtime, tenant, campaign, template, campaign_version=3, status="paused", status_reason=said)
    make_send(
        runtime, tenant, campaign, template, campaign_version=4, status="missed", status_reason="planned_too_late"
    )
    with runtime.work(tenant, role="owner") as ctx:
        ctx.session.execute(update(Delivery).where(Delivery.send_id == late, Delivery.seq == 1).values(due_at=old))
        ctx.session.execute(
            update(DeliveryChunk).where(DeliveryChunk.send_id == left).values(lease_until=old, crashes=2)
        )
        dead = {
            "status": "dead",
            "type": "campaign.run",
            "key": "7",
            "trigger_at": old,
            "payload": {},
            "error": "broken",
        }
        ctx.session.add(Timer(**dead, created_at=old))
    found = {row["part"]: (row["status"], row["finding"]) for row in ask("doctor")["checks"]}
    assert {found[part][0] for part in parts} == {"warning"}
    assert "start more workers" in found["queue"][1]
    assert "1 are overdue" in found["retries"][1]
    assert "start a worker" in found["leases"][1]
    assert f"campaign {campaign} of tenant {tenant} (2 workers)" in found["crashes"][1]
    assert all(word in found["sends"][1] for word in ("sender_refused: 535", "mend login", "no worker began in time"))
    assert "campaign.run 7" in found["timers"][1]


def test_a_worker_turns_once(ask, runtime, tenant):
    from nexus_marketing.services.segments.records import create_segment

    make_leads(runtime, tenant, 4)
    with runtime.work(tenant) as ctx:
        segment_id = create_segment(ctx, {"name": "all", "conditions": "score >= 0"}).id
    assert ask("worker", "--once") == {"done": True}
    with runtime.work(tenant, mode="read") as ctx:
        from nexus_marketing.db.models import Segment

        assert ctx.session.get(Segment, (tenant, segment_id)).lead_count == 4


SHOP = """
from nexus_marketing import HasMarketing

class Shop(HasMarketing):
    marketing_config = {"campaigns": {"spring": {"name": "Spring"}}}

    def __init__(self, number):
        self.id = number

def everything():
    for number in range(3):
        shop = Shop(number)
        shop.marketing().launch_campaign()
        yield shop
"""


def test_campaigns_of_a_programs_objects_are_promoted_once(ask, tenant, tmp_path, monkeypatch):
    (tmp_path / "shop_objects.py").write_text(SHOP)
    monkeypatch.setattr("sys.path", list(sys.path))
    arguments = ("campaigns", "promote", "shop_objects:everything", "--tenant", "acme")
    assert ask(*arguments, "--dry-run") == {"promoted": 3, "already": 0, "dry_run": True}
    assert ask(*arguments) == {"promoted": 3, "already": 0, "dry_run": False}
    assert ask(*arguments) == {"promoted": 0, "already": 3, "dry_run": False}


def run_script(folder, script, **environment):
    (folder / "shop_objects.py").write_text(SHOP)
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.req("US-010", "BR-006")
def test_a_program_is_connected_by_its_environment_alone(cli, tenant, runtime, tmp_path):
    script = "from shop_objects import Shop; print(Shop(1).marketing().launch_campaign().status)"
    ini = str(tmp_path / "test.ini")
    environment = {"NEXUS_MARKETING_INI": ini, "NEXUS_MARKETING_TENANT": "acme"}
    assert run_script(tmp_path, script) == "active"
    assert run_script(tmp_path, script, **environment) == "active"
    again = "from shop_objects import Shop; print(Shop(1).marketing().campaign().status)"
    assert run_script(tmp_path, again) == "draft"
    assert run_script(tmp_path, again, **environment) == "active"


@pytest.mark.req("US-010", "BR-006")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)  # the databases were told apart above
def test_a_program_is_connected_by_one_line(cli, tenant, runtime, tmp_path):
    script = (
        "import nexus_marketing; end = nexus_marketing.connect('test.ini', tenant='acme')\n"
        "from shop_objects import Shop; print(Shop(2).marketing().launch_campaign().status)\n"
        "end(); print(Shop(2).marketing().campaign().status)"
    )
    assert run_script(tmp_path, script).split() == ["active", "draft"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)  # the databases were told apart above
def test_a_connection_to_nowhere_names_what_is_missing(cli, tenant, tmp_path):
    script = (
        "import nexus_marketing\nfrom nexus_marketing.plugin import NexusError\nfrom shop_objects import Shop\n"
        "for ini, tenant in (('none.ini', 'acme'), ('test.ini', 'nobody')):\n"
        "    nexus_marketing.connect(ini, tenant=tenant)\n"
        "    try: Shop(1).marketing().campaign()\n"
        "    except NexusError as error: print(error)\n"
    )
    said = run_script(tmp_path, script)
    assert "none.ini cannot be read" in said
    assert "There is no tenant 'nobody'" in said


@pytest.mark.req("FR-P2-009")
def test_fields_are_declared_checked_and_removed(ask, cli, runtime, tenant):
    make_leads(runtime, tenant, 1, attributes={"seats": "five"})
    declared = ask("leads", "fields", "declare", "seats", "number", "--tenant", "acme", "--min", "1", "--required")
    assert (declared["checked"], declared["misfits"]) == (1, 1)
    (listed,) = ask("leads", "fields", "list", "--tenant", "acme")["data"]
    assert (listed["type"], listed["required"], listed["bounds"]) == ("number", True, {"min": 1})
    assert ask("leads", "fields", "check", "seats", "--tenant", "acme")["misfits"] == 1
    code, _, err = cli("leads", "fields", "declare", "plan", "txet", "--tenant", "acme")
    assert (code, "type" in err) == (1, True)
    assert ask("leads", "fields", "remove", "seats", "--tenant", "acme")["removed"] is True
    assert ask("leads", "fields", "list", "--tenant", "acme")["data"] == []


@pytest.mark.req("FR-P3-008")
def test_a_lead_is_erased_with_what_is_still_to_be_sent(ask, cli, runtime, tenant):
    (lead,) = make_leads(runtime, tenant)
    make_send(runtime, tenant, make_campaign(runtime, tenant), make_template(runtime, tenant), [lead])
    erased = ask("leads", "erase", str(lead), "--tenant", "acme")
    assert (erased["status"], erased["counts"]["marketing_deliveries"]) == ("finished", 1)
    code, _, err = cli("leads", "erase", "999", "--tenant", "acme")
    assert (code, "no lead 999" in err) == (1, True)


def test_an_operator_runs_a_journey(cli, ask, runtime, tenant):
    (lead,) = make_leads(runtime, tenant, 1)
    draft = {"id": "way", "nodes": {"wait": {"type": "delay", "for": "1 day"}}}
    with runtime.work(tenant) as ctx:
        journey = create_journey(ctx, {"name": "Way", "draft": draft}).id
    one = [str(journey), "-t", "acme"]
    assert ask("journeys", "publish", *one)["published"] == 1
    (entry,) = ask("journeys", "enter", str(journey), str(lead), "-t", "acme")["data"]
    assert entry["outcome"] == "entered"
    (again,) = ask("journeys", "enter", str(journey), str(lead), "-t", "acme")["data"]
    assert (again["outcome"], again["run_id"]) == ("reentry", None)
    assert ask("journeys", "pause", *one)["status"] == "paused"
    assert ask("journeys", "resume", *one, "--policy", "shift_all_by_pause_length")["status"] == "published"
    (run,) = ask("journeys", "runs", *one, "--state", "ready")["data"]
    assert (run["lead_id"], run["node"]) == (str(lead), "wait")
    draft["nodes"] = {"later": {"type": "delay", "for": "2 days"}}
    with runtime.work(tenant) as ctx:
        update_journey(ctx, journey, {"draft": draft})
    ask("journeys", "publish", *one)
    (plan,) = ask("journeys", "migrate", *one, "--map", "wait=later", "--dry-run")["nodes"]
    assert (plan["what"], plan["to"], plan["runs"]) == ("moves", "later", 1)
    code, _, err = cli("journeys", "migrate", *one, "--map", "wait")
    assert (code, "'wait' is no pair: write OLD=NEW" in err) == (2, True)
    draft["name"] = "The way"
    with runtime.work(tenant) as ctx:
        update_journey(ctx, journey, {"draft": draft})
    (change,) = ask("journeys", "patch", *one, "--dry-run")["changes"]
    assert (change["path"], change["after"]) == ("name", "The way")
    assert ask("journeys", "patch", *one)["version"] == 3
    assert ask("journeys", "revive", *one, "--dry-run", "--node", "wait") == {"dry_run": True, "nodes": []}
    code, _, err = cli("journeys", "revive", *one)
    assert (code, "Say why" in err) == (1, True)
    assert ask("journeys", "drain", *one)["status"] == "draining"
    assert ask("journeys", "stop", *one, "--compensate")["status"] == "stopped"
    assert [each["status"] for each in ask("journeys", "list", "-t", "acme")["data"]] == ["stopped"]


@pytest.mark.req("US-023", "FR-P3-004")
def test_what_failed_is_explained_listed_and_tried_again(ask, cli, runtime, tenant):
    quiet = {row["part"]: row["status"] for row in ask("doctor")["checks"]}
    parts = ("actions", "taking back", "escalations", "journeys")
    assert {quiet[part] for part in parts} == {"ok"}
    now, campaign = database_now(runtime.engines.worker), make_campaign(runtime, tenant)
    with runtime.work(tenant) as ctx:
        action = request_action(ctx, ActionRequest("notify", "k", ActionSource.ESCALATION, campaign))
        about = {"entity_type": "campaign", "entity_id": campaign, "level": 2, "rule": 0, "reason": "nobody reads it"}
        ctx.session.add(Escalation(action="notify", action_id=action, at=now - timedelta(hours=5), **about))
        undoing = request_action(ctx, ActionRequest("close_ticket", "u", ActionSource.COMPENSATION, campaign))
        failed = {"state": "failed", "reason": "refused", "detail": "no such board", "settled_at": now}
        ctx.session.execute(update(TakenAction).where(TakenAction.id == action).values(**failed))
        away = {"state": "paused", "reason": "plugin_missing"}
        ctx.session.execute(update(TakenAction).where(TakenAction.id == undoing).values(**away))
        ended = {"status": "cancelled", "failed_at": now - timedelta(hours=2)}
        ctx.session.execute(update(Campaign).where(Campaign.id == campaign).values(**ended))
    found = {row["part"]: (row["status"], row["finding"]) for row in ask("doctor")["checks"]}
    assert [found[part][0] for part in parts] == ["warning", "warning", "ok", "ok"]
    assert "1 failed within a week: 1 of notify of acme" in found["actions"][1]
    assert "1 of close_ticket of acme wait for a plugin" in found["actions"][1]
    assert f"campaign {campaign} of acme (1 actions open)" in found["taking back"][1]
    assert "1 are open" in found["escalations"][1]
    assert "for 5 h" in found["escalations"][1]
    (row,) = ask("actions", "list", "-t", "acme", "--state", "failed")["data"]
    assert (row["id"], row["detail"]) == (str(action), "no such board")
    assert len(ask("actions", "list", "-t", "acme", "--campaign", str(campaign))["data"]) == 2
    assert cli("actions", "retry", str(action), "-t", "acme")[0] == 1  # the campaign failed
    with runtime.work(tenant) as ctx:
        ctx.session.execute(update(Campaign).where(Campaign.id == campaign).values(failed_at=None))
    assert ask("actions", "retry", str(action), "-t", "acme")["state"] == "waiting"
    assert ask("actions", "list", "-t", "acme", "--state", "failed")["data"] == []
    assert ask("campaigns", "list", "-t", "acme", "--status", "cancelled")["data"][0]["id"] == str(campaign)


@pytest.mark.req("US-020", "FR-P3-011")
def test_an_operator_answers_for_whoever_is_asked_and_sees_which_runs_failed(ask, cli, runtime, tenant):
    (lead,) = make_leads(runtime, tenant, 1)
    ask_all = {
        "type": "approval",
        "by": "approver",
        "timeout": {"after": "9 days", "to": "end"},
        "approved": "end",
        "rejected": "end",
    }
    draft = {"id": "way", "entry": {"triggers": [{"on": "api"}]}, "nodes": {"ask": ask_all}}
    with runtime.work(tenant) as ctx:
        journey = create_journey(ctx, {"name": "Way", "draft": draft}).id
        publish_journey(ctx, journey)
        enter_leads(ctx, journey, [lead])
    fire_due(runtime, TIMERS)
    (question,) = ask("approvals", "list", "-t", "acme")["data"]
    assert (question["asked"], question["journey_id"]) == ("approver", str(journey))
    assert cli("approvals", "answer", question["id"], "-t", "acme")[0] == 2
    said = ask("approvals", "answer", question["id"], "-t", "acme", "--reject")
    assert (said["answer"], said["answered_by"]) == ("rejected", "cli")
    assert ask("approvals", "list", "-t", "acme")["data"] == []
    assert len(ask("approvals", "list", "-t", "acme", "--closed")["data"]) == 1
    with runtime.work(tenant) as ctx:
        failed = {"state": "failed", "reason": "timer_dead: boom", "ended_at": database_now(runtime.engines.worker)}
        ctx.session.execute(update(JourneyRun).values(**failed))
    found = {row["part"]: row["finding"] for row in ask("doctor")["checks"]}
    assert f"1 of journey {journey} of acme (timer_dead: boom)" in found["journeys"]
    segment = make_segment(runtime, tenant, [lead])
    assert [row["id"] for row in ask("segments", "list", "-t", "acme")["data"]] == [str(segment)]


@pytest.mark.req("SR-007")
def test_what_is_logged_is_not_mixed_with_answers_and_shows_nobodys_data(monkeypatch, capsys):
    handlers = logging.getLogger().handlers[:]

    def failing() -> None:
        password = "hunter2"  # noqa: F841 - in the traceback's frame
        try:
            int("ann@example.org")
        except ValueError:
            get_logger("cli").exception("import_failed")

    monkeypatch.setattr("nexus_marketing.cli.app.app", failing)
    try:
        main()
    finally:
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
        log_discreetly()
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err)["event"] == "import_failed"
    assert "hunter2" not in said.err
    assert "ann@" not in said.err
