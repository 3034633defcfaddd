"""The code of the quickstart and of the upgrade tutorial does what the pages say."""

import json
import re
import threading
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from nexus_marketing import use_storage
from nexus_marketing.cli.app import app as cli
from nexus_marketing.db.models import Campaign, ChannelAccount, Delivery
from nexus_marketing.db.queries.scoring import scoring_work
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.imports.work import ImportWork
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.loops import tend_scores
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import NOW
from tests.common.factories import make_campaign, make_leads, make_template
from tests.common.plugins import deeds_plugin, with_plugins
from tests.common.segments import settle
from tests.functional.delivery.conftest import CONTENT, SENDER, work_off

DOCS = Path(__file__).parents[2] / "docs"


def run(page: str, **names: object) -> int:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": "page", **names}
    restore = use_storage(None)
    try:
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"{page}, block {number}", "exec"), namespace)
    finally:
        restore()
    return len(blocks)


@pytest.mark.req("US-001", "US-003", "US-004", "US-005", "FR-P1-004", "FR-P1-005", "MAINT-005")
def test_the_quickstart(capsys):
    assert run("quickstart.md") > 5
    assert "Product Launch Campaign is active" in capsys.readouterr().out


@pytest.mark.req("US-010", "BR-006", "MAINT-005")
def test_the_upgrade_tutorial(runtime, tenant, tmp_path):
    settings = runtime.settings
    ini = tmp_path / "test.ini"
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.database_worker_url": settings.database_worker_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
    }
    ini.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))
    assert run("tutorials/upgrade.md", INI=str(ini)) > 4


@pytest.mark.req("FR-P2-009", "US-026", "MAINT-005")
def test_the_reference_of_leads(api):
    assert run("reference/leads.md", api=api) > 6


@pytest.fixture
def api(client):
    """Requests with a key that may do everything: the status and the document."""

    def ask(method, path, body=None):
        answer = client.send(method, path, body)
        return answer.status_int, answer.json if answer.body else None

    return ask


@pytest.mark.req("FR-P2-012", "US-012", "MAINT-005")
def test_the_reference_of_segments(api, runtime, tenant):
    assert run("reference/segments.md", api=api, work=lambda: settle(runtime)) > 3


@pytest.mark.req("FR-P3-001", "FR-P3-004", "MAINT-005")
def test_the_page_on_escalation(runtime, tenant, clock, database_time):
    page = (DOCS / "howto/escalate-and-take-back.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    spring, fair = map(json.loads, re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    names = {}
    exec(compile(code, "the page", "exec"), names)
    staged = with_plugins(runtime, deeds_plugin(*names["actions"]))
    with staged.work(tenant) as ctx:
        switch_on(ctx, "nexus-deeds")
        for schema in (spring, fair):
            definition = create_definition(ctx, {"schema": schema})
            publish_definition(ctx, definition.id)
            campaign = create_campaign(ctx, {"definition_id": str(definition.id), "name": schema["name"]}).id
            move_campaign(ctx, campaign, "launch")
    with staged.work(tenant) as ctx:
        ctx.session.scalars(select(Campaign).order_by(Campaign.id)).first().counters = {"email_sent": 100}
    for _ in range(30):
        clock.advance(hours=1)
        database_time.advance(hours=1)
        while fire_due(staged, TIMERS):
            pass
    board = names["board"]
    assert list(board.values())[:2] == ["open_ticket: stand", "open_ticket: flyers"]
    assert [said.partition(":")[0] for said in list(board.values())[2:]] == [
        "close_ticket",
        "close_ticket",
        "reassign_to_manager",
    ]
    assert "data.engagement_rate < 0.1" in list(board.values())[-1]
    with staged.work(tenant, mode="read") as ctx:
        status = ctx.session.scalars(select(Campaign.status).order_by(Campaign.id)).all()
    assert status == ["active", "cancelled"]


@pytest.mark.req("FR-P2-010", "MAINT-005")
def test_the_page_on_scores(api, runtime, clock):
    def work():
        for _ in range(1_000):
            if not tend_scores(runtime) + fire_due(runtime, TIMERS) and not is_waiting():
                return

    def is_waiting():
        with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
            return bool(scoring_work(session))

    def wait(days):
        for _ in range(days):
            clock.advance(days=1)
            work()

    assert run("howto/score-leads.md", api=api, work=work, wait=wait) > 5


@pytest.mark.req("FR-P3-011", "MAINT-005")
def test_the_page_on_simulations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def simulate(*arguments):
        result = CliRunner().invoke(cli, ["simulate", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert run("howto/simulate-a-journey.md", simulate=simulate) == 3


@pytest.mark.req("US-020", "FR-P3-011", "MAINT-005")
def test_the_tutorial_of_the_welcome_drip(api, runtime, tenant, clock, database_time, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database_time.set_to(NOW)
    monkeypatch.setitem(runtime.channels, "email", RecordingChannel({}))
    make_template(runtime, tenant, name="Welcome", content=CONTENT)
    with runtime.work(tenant) as ctx:
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        ctx.session.add(ChannelAccount(type="email", name="main", config=SENDER, enabled=True, **times))

    def simulate(*arguments):
        result = CliRunner().invoke(cli, ["simulate", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def wait(**delta):
        clock.advance(**delta)
        database_time.advance(**delta)
        work_off(runtime, 50)
        with runtime.work(tenant, mode="read") as ctx:
            rows = ctx.session.execute(
                select(Delivery.lead_id, Delivery.settled_at).where(Delivery.state == "accepted")
            )
            return [{"to": str(lead), "at": at.isoformat()} for lead, at in rows]

    assert run("tutorials/welcome-drip.md", api=api, simulate=simulate, wait=wait) == 6


@pytest.fixture
def served(app):
    """The application on a port of this machine."""
    with make_server("127.0.0.1", 0, app.app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_arguments):
        pass


@pytest.mark.req("US-016", "FR-P2-007", "MAINT-005")
def test_the_page_on_events(runtime, tenant, make_client, served):
    (lead,) = make_leads(runtime, tenant, email="ann@example.org")
    names = {
        "URL": served,
        "KEY": make_client(tenant, ["engagements:write", "engagements:read", "campaigns:read"]).key,
        "PUBLIC": make_client(tenant, ["events:write_public"]).key,
        "LEAD": str(lead),
        "CAMPAIGN": str(make_campaign(runtime, tenant)),
    }
    assert run("howto/record-events.md", **names) > 5


@pytest.mark.req("FR-P2-009", "US-012", "MAINT-005")
def test_the_page_on_imports(runtime, tenant, make_client, served):
    def work():
        worker = ImportWork(runtime)
        while worker.turn():
            pass

    key = make_client(tenant, ["leads:read", "leads:write", "consents:write"]).key
    assert run("howto/import-leads.md", URL=served, KEY=key, work=work) > 6
