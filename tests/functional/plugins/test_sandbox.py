"""A plugin that misbehaves in the middle of a campaign: everybody else gets the message, and the operator is told why."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from nexus_marketing.cli.app import app
from nexus_marketing.db.models import Delivery, Send, TakenAction
from nexus_marketing.plugin.circuits import FAILURES, Circuit
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.compensation import fail_campaign
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import NOW, DatabaseTime
from tests.common.factories import make_leads, make_segment
from tests.common.plugins import FaxChannel, fax_plugin, with_plugins
from tests.common.sandboxes import Start, needs_namespaces, sandboxes
from tests.contract.sandbox.test_malice import CHANNEL
from tests.contract.sandbox.test_taking_back import COMPENSATING
from tests.functional.delivery.conftest import work_off
from tests.functional.plugins.sending import launch, states

pytestmark = [pytest.mark.req("SR-004", "S17", "REL-002"), pytest.mark.parametrize("dialect", ["sqlite"])]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with sandboxes(tmp_path) as start:
        yield start


@needs_namespaces
def test_a_campaign_goes_on_beside_a_message_that_kills_the_plugin(start: Start, runtime: Runtime, tenant: int) -> None:
    source = CHANNEL.replace(
        "        leaving()\n",
        "        leaving()\n        if submission.values['var:first_name'] == 'First3': os._exit(1)\n",
    )
    registry = start(source)
    both = replace(runtime, plugins=registry, channels={**runtime.channels, **registry.channels})
    with both.work(tenant) as ctx:
        switch_on(ctx, "nexus-strange")
    launch(both, tenant, "strange", 6)
    for _ in range(3):
        work_off(both, 10)
        with both.work(tenant) as ctx:  # those who wait for another try: their time has come
            ctx.session.execute(update(Delivery).where(Delivery.state == "planned").values(due_at=NOW))
    assert states(both, tenant) == Counter(accepted=5, unknown=1)
    with both.work(tenant, mode="read") as ctx:
        send = ctx.session.scalars(select(Send)).one()
    assert (send.status, send.status_reason) != ("paused", None)


@needs_namespaces
@pytest.mark.req("FR-P3-004")
def test_a_failed_campaign_is_taken_back_by_a_plugin_that_dies_over_one_message(
    start: Start, runtime: Runtime, tenant: int, database_time: DatabaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "if retraction.message_id.startswith('<r3.'): os._exit(1)"
    registry = start(COMPENSATING.replace('exec(settings.get("undo", ""), names)', dying))
    both = replace(runtime, plugins=registry, channels={**runtime.channels, **registry.channels})
    segment = make_segment(runtime, tenant, make_leads(runtime, tenant, 6))
    with both.work(tenant) as ctx:
        switch_on(ctx, "nexus-strange")
        step = {"action": "change_priority", "data": {"priority": 1}, "delay": "9 days"}
        parts = {"channels": {"strange": {"compensate": True}}, "automation": {"steps": [step]}}
        definition = create_definition(ctx, {"schema": {"id": "c", **parts}})
        publish_definition(ctx, definition.id)
        template = create_template(ctx, {"name": "t", "type": "text", "content": {"text": "Hello"}})
        data = {"definition_id": str(definition.id), "name": "c", "segment_id": segment, "template_id": template.id}
        campaign = create_campaign(ctx, data).id
        move_campaign(ctx, campaign, "launch")
    work_off(both, 10)
    assert states(both, tenant) == Counter(accepted=6)
    with both.work(tenant) as ctx:
        fail_campaign(ctx, campaign, "wrong prices")
    circuit = registry.host.circuit("nexus-strange")
    for turn in range(1, 7):
        monkeypatch.setattr(circuit, "_now_seconds", lambda turn=turn: time.monotonic() + turn * 3600)
        runtime.clock.advance(minutes=61)  # type: ignore[attr-defined]
        database_time.advance(minutes=61)
        while fire_due(both, TIMERS):
            pass
    with both.work(tenant, mode="read") as ctx:
        (row,) = ctx.session.scalars(select(TakenAction).where(TakenAction.source == "compensation"))
        assert (row.state, row.detail) == ("done", "took back 5 messages; 1 could not be: nobody knows of it")


def test_a_trusted_plugin_that_raises_pauses_its_send_and_is_counted(
    runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = FaxChannel()
    monkeypatch.setattr(channel, "on_batch", lambda batch: 1 / 0)
    process = with_plugins(runtime, fax_plugin(channel))
    with process.work(tenant) as ctx:
        switch_on(ctx, "nexus-fax")
    launch(process, tenant, "fax", 3)
    work_off(process, 5)
    with process.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Send.status_reason)).one() == "cannot be sent: ZeroDivisionError"
    circuit = process.plugins.host.circuit("nexus-fax")
    assert circuit.failures == 1
    assert circuit._reason == "it raised ZeroDivisionError"


@pytest.fixture
def ini(runtime: Runtime, tmp_path: Path) -> Path:
    settings = runtime.settings
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path / "state"),
        "nexus.smtp.port": "1",
        "nexus.includes": "nexus_strange nexus_broken",
        "nexus.plugins.untrusted": "nexus_strange nexus_broken",
        "nexus.plugins.call_seconds": "0.3",
    }
    (tmp_path / "nexus_strange.py").write_text(CHANNEL)
    (tmp_path / "nexus_broken.py").write_text("import nowhere_at_all\n")
    path = tmp_path / "test.ini"
    path.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))
    return path


@needs_namespaces
def test_the_operator_sees_what_runs_what_does_not_and_what_fails(
    ini: Path, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def said(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["-c", str(ini), *arguments, "--json"])
        return json.loads(result.stdout)

    circuit = Circuit("nexus-strange", time.monotonic, lambda: NOW, tmp_path / "state" / "plugins")
    rows = {row["name"]: row for row in said("plugins", "list")["data"]}
    assert (rows["nexus-strange"]["active"], rows["nexus-strange"]["sandboxed"]) == (True, True)
    assert (rows["nexus-broken"]["active"], rows["nexus-broken"]["compatible"]) == (False, False)
    assert "ModuleNotFoundError: No module named 'nowhere_at_all'" in rows["nexus-broken"]["fault"]
    ini.write_text(ini.read_text().replace(" nexus_broken", ""))
    checks = {row["part"]: row for row in said("doctor")["checks"]}
    assert checks["sandbox"] == {"part": "sandbox", "status": "ok", "finding": "runs nexus-strange"}
    for _ in range(FAILURES):
        circuit.failed("it did not answer within 0.3 s")
    capsys.readouterr()
    checks = {row["part"]: row for row in said("doctor")["checks"]}
    assert checks["sandbox"]["status"] == "warning"
    assert "nexus-strange failed 3 times in a row" in checks["sandbox"]["finding"]
    assert "it did not answer within 0.3 s" in checks["sandbox"]["finding"]
    (row,) = [row for row in said("plugins", "list")["data"] if row["name"] == "nexus-strange"]
    assert row["trouble"] == "it did not answer within 0.3 s"
    (tmp_path / "state" / "plugins" / "nexus-strange.json").unlink()
    assert "ok" in {row["part"]: row for row in said("doctor")["checks"]}["sandbox"]["status"]


def test_where_the_kernel_refuses_the_plugin_is_not_started_and_doctor_names_the_remedy(
    ini: Path, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = tmp_path / "refusing.py"
    launcher.write_text(
        "import json, sys; sys.path[:0] = json.loads(sys.stdin.readline())['paths']\n"
        "import nexus_marketing.plugin.sandbox.confinement as c\n"
        "print(json.dumps(['refused', str(c.Refused('namespaces', OSError(1, 'x')))]), flush=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("nexus_marketing.plugin.sandbox.children._LAUNCH", launcher)
    checks = CliRunner().invoke(app, ["-c", str(ini), "doctor", "--json"])
    (row,) = [each for each in json.loads(checks.stdout)["checks"] if each["part"] == "sandbox"]
    assert row["status"] == "warning"
    assert "nexus_strange is not started: the kernel refuses a sandbox" in row["finding"]
    assert "sysctl user.max_user_namespaces" in row["finding"]
