"""A plugin's channel works for the tenants that have it on: asked at launch, and again whenever messages leave."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select
from webtest import TestApp

from nexus_marketing.config import build
from nexus_marketing.core.errors import Conflict, NexusError, NotFound, ValidationError
from nexus_marketing.db.models import AuditEntry, Delivery, Lead, LeadRemoval, Send, TenantPlugin
from nexus_marketing.db.queries.workers import say_alive
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.declarations import apply_declarations
from nexus_marketing.services.leads.erasure import certificate, erase_lead, find_erasure
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from nexus_marketing.services.templates import create_template
from tests.common.factories import make_leads, make_segment
from tests.common.plugins import FaxChannel, Pulse, Shredder, fax_plugin, with_plugins
from tests.functional.delivery.conftest import work_off

pytestmark = pytest.mark.req("US-018", "FR-EXT-001", "REL-002")

FAX = "nexus-fax"


@dataclass
class Fax:
    """A process with the plugin."""

    runtime: Runtime
    channel: FaxChannel

    def switch(self, tenant: int, *, on: bool = True, **settings: Any) -> None:
        with self.runtime.work(tenant) as ctx:
            _ = switch_on(ctx, FAX, settings) if on else switch_off(ctx, FAX)

    def draft(self, tenant: int, leads: int = 20, text: str = "Hello {{ first_name }}") -> int:
        segment = make_segment(self.runtime, tenant, make_leads(self.runtime, tenant, leads))
        with self.runtime.work(tenant) as ctx:
            template = create_template(ctx, {"name": "t", "type": "text", "content": {"text": text}})
            data = {"name": "c", "channel": "fax", "segment_id": segment, "template_id": template.id}
            return create_campaign(ctx, data).id

    def move(self, tenant: int, campaign: int, action: str = "launch") -> None:
        with self.runtime.work(tenant) as ctx:
            move_campaign(ctx, campaign, action)

    def refusal(self, tenant: int, campaign: int) -> dict[str, str]:
        with pytest.raises(NexusError) as caught:
            self.move(tenant, campaign)
        return {problem.code: problem.message for problem in caught.value.problems}

    def send(self, tenant: int) -> tuple[str, str | None]:
        with self.runtime.work(tenant, mode="read") as ctx:
            found = ctx.session.scalars(select(Send)).one()
            return found.status, found.status_reason

    def states(self, tenant: int) -> Counter[str]:
        with self.runtime.work(tenant, mode="read") as ctx:
            return Counter(ctx.session.scalars(select(Delivery.state)))


@pytest.fixture
def fax(runtime: Runtime) -> Fax:
    channel = FaxChannel()
    settings = replace(runtime.settings, chunk_size=5)
    return Fax(with_plugins(replace(runtime, settings=settings), fax_plugin(channel)), channel)


class TestLaunching:
    def test_who_has_it_on_sends_and_who_has_not_is_told_how(self, fax: Fax, tenant: int, other_tenant: int) -> None:
        fax.switch(tenant)
        fax.move(tenant, fax.draft(tenant))
        work_off(fax.runtime, 20)
        assert fax.states(tenant) == Counter(accepted=20)
        assert len({each.message_id for each in fax.channel.sent}) == 20
        refused = fax.refusal(other_tenant, fax.draft(other_tenant))
        assert "nexus-marketing plugins enable nexus-fax --tenant globex" in refused["plugin_off"]
        assert "no_sender" not in refused
        assert fax.states(other_tenant) == Counter()

    def test_who_had_it_on_is_refused_when_it_is_off(self, fax: Fax, tenant: int) -> None:
        fax.switch(tenant)
        campaign = fax.draft(tenant)
        fax.switch(tenant, on=False)
        assert "plugin_off" in fax.refusal(tenant, campaign)

    def test_the_channel_looks_at_the_settings_first(self, fax: Fax, tenant: int) -> None:
        campaign = fax.draft(tenant)
        fax.switch(tenant, station="closed")
        assert "name another" in fax.refusal(tenant, campaign)["closed"]
        fax.switch(tenant, station="broken")
        assert "RuntimeError" in fax.refusal(tenant, campaign)["plugin_failed"]

    def test_without_the_plugin_there_is_no_such_channel(self, fax: Fax, runtime: Runtime, tenant: int) -> None:
        fax.switch(tenant)
        campaign = fax.draft(tenant)
        gone = replace(fax, runtime=runtime)
        assert "unknown_channel" in gone.refusal(tenant, campaign)


class TestSending:
    def test_what_is_switched_off_meanwhile_is_paused_and_goes_on_later(self, fax: Fax, tenant: int) -> None:
        fax.switch(tenant)
        campaign = fax.draft(tenant)
        fax.channel.on_batch = lambda _batch: fax.switch(tenant, on=False)
        fax.move(tenant, campaign)
        work_off(fax.runtime, 20)
        assert fax.send(tenant) == ("paused", "plugin_missing")
        assert fax.states(tenant) == Counter(accepted=5, planned=15)
        fax.channel.on_batch = None
        fax.switch(tenant)
        fax.move(tenant, campaign, "resume")
        work_off(fax.runtime, 20)
        assert fax.states(tenant) == Counter(accepted=20)
        assert len(fax.channel.sent) == len({each.message_id for each in fax.channel.sent}) == 20

    def test_what_is_uninstalled_meanwhile_is_paused_and_goes_on_later(
        self, fax: Fax, runtime: Runtime, tenant: int
    ) -> None:
        fax.switch(tenant)
        campaign = fax.draft(tenant)
        fax.move(tenant, campaign)
        work_off(runtime, 20)
        assert fax.send(tenant) == ("paused", "plugin_missing")
        fax.move(tenant, campaign, "resume")
        work_off(fax.runtime, 20)
        assert fax.states(tenant) == Counter(accepted=20)

    def test_the_settings_are_those_of_the_tenant_at_the_time(self, fax: Fax, tenant: int, other_tenant: int) -> None:
        for each, station in ((tenant, "north"), (other_tenant, "south")):
            fax.switch(each, station=station)
        fax.channel.on_batch = lambda _batch: fax.switch(tenant, station="west")
        fax.move(tenant, fax.draft(tenant, 10))
        work_off(fax.runtime, 20)
        assert [each["station"] for each in fax.channel.opened] == ["north", "west"]
        fax.channel.on_batch, fax.channel.opened = None, []
        fax.move(other_tenant, fax.draft(other_tenant, 10))
        work_off(fax.runtime, 20)
        assert [each["station"] for each in fax.channel.opened] == ["south"]


class TestSwitching:
    def test_settings_are_held_against_the_schema(self, fax: Fax, tenant: int) -> None:
        for settings, code in (({"pages": "many"}, "wrong_type"), ({"colour": "red"}, "unknown_field")):
            with pytest.raises(ValidationError) as caught:
                fax.switch(tenant, **settings)
            assert [problem.code for problem in caught.value.problems] == [code]

    def test_what_the_channel_keeps_secret_is_stored_sealed(self, fax: Fax, tenant: int) -> None:
        about = replace(fax.channel.capabilities, secret_settings=frozenset({"station"}))
        fax.channel.capabilities = about
        fax.switch(tenant, station="c4n4ry", pages=2)
        fax.switch(tenant, pages=3)
        fax.move(tenant, fax.draft(tenant, leads=1))
        work_off(fax.runtime, 20)
        assert fax.channel.opened == [{"station": "c4n4ry", "pages": 3}]
        with fax.runtime.work(tenant, mode="read") as ctx:
            rows = [*ctx.session.execute(select(TenantPlugin.settings, TenantPlugin.secrets))]
            sent, said = (
                ctx.session.scalars(select(Send.sender)).one(),
                list(ctx.session.scalars(select(AuditEntry.body))),
            )
        assert (rows[0].settings, sent) == ({"pages": 3}, {"pages": 3})
        assert b"c4n4ry" not in bytes(rows[0].secrets)
        assert "c4n4ry" not in str(said)
        assert "station" in str(said)

    def test_what_was_set_stays_while_it_is_off(self, fax: Fax, tenant: int) -> None:
        fax.switch(tenant, station="north")
        fax.switch(tenant, on=False)
        fax.switch(tenant, pages=2)
        with fax.runtime.work(tenant, mode="read") as ctx:
            assert fax.runtime.channel_settings(ctx.session, "fax") == {"station": "north", "pages": 2}

    def test_who_switched_is_written_down_once(self, fax: Fax, tenant: int) -> None:
        for on in (True, True, False, False):
            fax.switch(tenant, on=on)
        with fax.runtime.work(tenant, mode="read") as ctx:
            wanted = select(AuditEntry.action).where(AuditEntry.subject_type == "plugin").order_by(AuditEntry.id)
            assert list(ctx.session.scalars(wanted)) == ["plugin.enabled", "plugin.disabled"]

    def test_what_is_not_active_or_built_in_is_not_switched(self, runtime: Runtime, fax: Fax, tenant: int) -> None:
        with fax.runtime.work(tenant) as ctx, pytest.raises(NotFound, match="active are nexus-fax"):
            switch_on(ctx, "nix")
        with runtime.work(tenant) as ctx, pytest.raises(NotFound, match="none is active"):
            switch_off(ctx, FAX)

    def test_what_is_uninstalled_can_still_be_switched_off(self, runtime: Runtime, fax: Fax, tenant: int) -> None:
        fax.switch(tenant)
        with runtime.work(tenant) as ctx:
            assert switch_off(ctx, FAX)

    def test_a_declaration_switches(self, fax: Fax, tmp_path: Any) -> None:
        folder = tmp_path / "north"
        folder.mkdir()

        def apply(table: str) -> str:
            (folder / "tenant.toml").write_text(f"[plugins]\n{table}\n")
            return apply_declarations(fax.runtime, tmp_path)[0].outcome

        assert apply("nexus-fax = {station = 'north'}") == "created"
        assert apply("nexus-fax = {station = 'north'}") == "unchanged"
        assert apply("nexus-fax = {pages = 3}") == "changed"
        assert apply("nexus-fax = false") == "changed"
        assert apply("nexus-fax = true") == "changed"

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ("nexus-fax = 3", "says nothing of a plugin"),
            ("nexus-fax = {pages = 'x'}", "north/tenant.toml: plugins.nexus-fax.pages"),
            ("nix = true", "north/tenant.toml: plugins.nix"),
        ],
    )
    def test_a_declaration_that_cannot_be_changes_nothing(self, fax: Fax, tmp_path: Any, table: str, said: str) -> None:
        (tmp_path / "north").mkdir()
        (tmp_path / "north" / "tenant.toml").write_text(f"[plugins]\n{table}\n")
        with pytest.raises(ValidationError, match=said):
            apply_declarations(fax.runtime, tmp_path)


class TestErasing:
    def test_an_erasure_is_finished_when_every_plugin_cleared_its_own(
        self, runtime: Runtime, tenant: int, other_tenant: int
    ) -> None:
        shredder = Shredder(failures=1)
        here = with_plugins(runtime, fax_plugin(FaxChannel(), shredder))
        (lead,) = make_leads(runtime, tenant, 1)
        make_leads(runtime, other_tenant, 1)
        with here.work(tenant) as ctx:
            erase_lead(ctx, lead)
        assert self.certificate(here, tenant, lead)["status"] == "running"
        finish_removals(here)
        assert self.certificate(here, tenant, lead)["status"] == "running"
        finish_removals(here)
        found = self.certificate(here, tenant, lead)
        assert found["status"] == "finished"
        assert found["counts"]["plugin:fax_papers"] == 3
        assert [(each.tenant_id, each.lead_ids) for each in shredder.asked] == [(tenant, (lead,))] * 2
        finish_removals(here)
        assert len(shredder.asked) == 2

    def test_a_plugin_is_asked_after_the_last_message(self, fax: Fax, runtime: Runtime, tenant: int) -> None:
        shredder = Shredder()
        here = with_plugins(fax.runtime, fax_plugin(fax.channel, shredder))
        fax.switch(tenant)
        fax.move(tenant, fax.draft(tenant, 3))
        asked: list[int] = []

        def erase(_batch: Any) -> None:
            fax.channel.on_batch = None
            with here.work(tenant) as ctx:
                erase_lead(ctx, ctx.session.scalars(select(Lead.id).limit(1)).one())
            finish_removals(here)
            asked.append(len(shredder.asked))

        fax.channel.on_batch = erase
        work_off(here, 20)
        assert asked == [0]
        assert len(shredder.asked) == 1
        with runtime.work(tenant, mode="read") as ctx:
            assert ctx.session.scalars(select(LeadRemoval)).one().finished_at is not None

    @staticmethod
    def certificate(runtime: Runtime, tenant: int, lead: int) -> dict[str, Any]:
        with runtime.work(tenant, mode="read") as ctx:
            removal = find_erasure(ctx, lead)
            assert removal is not None
            return certificate(removal)


@pytest.mark.req("SR-007")
def test_a_heartbeat_of_a_plugin_is_part_of_ours(runtime: Runtime) -> None:
    pulse = Pulse()
    app = TestApp(build({}, runtime=with_plugins(runtime, fax_plugin(FaxChannel(), pulse))).make_wsgi_app())
    say_alive(runtime.engines.worker, "w1", "here", 1)
    assert app.get("/__heartbeat__", status=200).json["fax_line"] is True
    for state in (False, RuntimeError("no line")):
        pulse.state = state
        assert app.get("/__heartbeat__", status=503).json["fax_line"] is False


def test_a_built_in_plugin_cannot_be_switched(runtime: Runtime, tenant: int) -> None:
    from nexus_marketing.config import make_runtime

    built = make_runtime({"nexus.database_url": "sqlite:///never.db", "nexus.secret_key": "x" * 40})
    here = replace(runtime, plugins=built.plugins)
    with here.work(tenant) as ctx, pytest.raises(Conflict, match="on for every tenant"):
        switch_on(ctx, "email")
    built.close()
