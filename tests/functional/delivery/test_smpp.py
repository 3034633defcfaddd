"""A campaign by SMPP from launch to receipt: the worker, its kept lines, the database, and a centre on a socket."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.builtins.channels import by_http
from nexus_marketing.config import rehearse
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import IN_USE, AddressKind, LineState
from nexus_marketing.core.errors import ConfigurationError, ValidationError
from nexus_marketing.db.models import ChannelAccount, Lead, ProviderReport, Send, Suppression
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.listening import Listening
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.channels.records import create_account, update_account
from nexus_marketing.services.channels.trials import probe_account, send_test
from nexus_marketing.services.provider_reports import take_in_reports
from nexus_marketing.settings import Settings, SmppSettings, SmsSettings
from nexus_marketing.tasks.listening import listening, start
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads, make_tenant
from tests.common.smsc import ALREADY_BOUND, INVALID_TO, Reply, Smsc
from tests.functional.delivery.conftest import Stage

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-P2-004", "BR-012", "R21"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


@pytest.fixture
def centre() -> Iterator[Smsc]:
    with Smsc() as running:
        yield running


@pytest.fixture
def staged(runtime: Runtime, centre: Smsc) -> Runtime:
    """The runtime with the channel as the settings of an operator make it."""
    smpp = SmppSettings(enabled=True, allow_hosts=(centre.allowed,))
    settings = replace(runtime.settings, sms=SmsSettings(price_minor=8), smpp=smpp)
    return replace(runtime, settings=settings, channels=channels_of(settings))


def channels_of(settings: Settings) -> dict[str, Any]:
    def process(config: Any) -> None:
        config.registry["nexus.runtime"] = SimpleNamespace(settings=settings, clock=SystemClock())

    return dict(rehearse({}, process, by_http.sms).channels)


@pytest.fixture
def stage(staged: Runtime, tenant: int, centre: Smsc) -> Stage:
    """Twenty leads with a telephone each, and an account at the centre."""
    stage = Stage(staged, tenant, make_leads(staged, tenant, 20))
    stage.set_up({})
    with staged.work(tenant) as ctx:
        for number, lead in enumerate(ctx.session.scalars(select(Lead).order_by(Lead.id))):
            lead.phone = f"+49301234{number:04}"
        create_account(ctx, {"type": "sms", "name": "carrier", "config": centre.settings})
    return stage


@pytest.fixture
def lines(staged: Runtime, stage: Stage) -> Iterator[Listening]:
    """What a worker process keeps open."""
    lines = listening(staged)
    lines.tend()
    yield lines
    lines.close()


def account(runtime: Runtime, tenant: int) -> ChannelAccount:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalars(select(ChannelAccount)).one()


def hear(runtime: Runtime, tenant: int) -> None:
    while take_in_reports(runtime, tenant):
        pass


def test_a_campaign_goes_out_and_its_receipts_come_in(
    staged: Runtime, tenant: int, stage: Stage, lines: Listening, centre: Smsc, database_time: DatabaseTime
) -> None:
    centre.replies["493012340001"] = [Reply(INVALID_TO)]
    centre.replies["493012340002"] = [Reply(0x08)]
    centre.replies["493012340003"] = [Reply(hang_up=True)]
    with staged.work(tenant) as ctx:
        update_account(ctx, account(staged, tenant).id, {"config": {"window": 1}})
    lines.tend()
    stage.launch("sms")
    stage.work()
    for _ in range(3):
        database_time.advance(hours=2)
        stage.work()
    assert stage.states() == {"sms": Counter({"accepted": 18, "failed(permanent_recipient)": 1, "unknown": 1})}
    asked = Counter(each.to for each in centre.submitted)
    # Refused for now and taken later; nobody else was asked twice, the one without an answer neither.
    assert asked == Counter({f"49301234{number:04}": 2 if number == 2 else 1 for number in range(20)})
    assert account(staged, tenant).health == "ok"

    centre.wait_bound()
    last = {each.to: each for each in centre.submitted}
    assert centre.receipt(last["493012340002"], "DELIVRD") == 0
    assert centre.receipt(last["493012340019"], "UNDELIV") == 0
    hear(staged, tenant)
    assert (stage.states()["sms"]["delivered"], stage.states()["sms"]["bounced_soft"]) == (1, 1)


@on_sqlite
def test_a_receipt_may_come_before_the_worker_has_written_anything_down(
    staged: Runtime, tenant: int, stage: Stage, lines: Listening, centre: Smsc, database_time: DatabaseTime
) -> None:
    stage.launch("sms")
    centre.wait_bound()
    assert centre.receipt(SimpleNamespace(to="493012340000", id="m1"), "DELIVRD") == 0  # type: ignore[arg-type]
    hear(staged, tenant)
    centre.usual = Reply()
    stage.work()
    mine = next(each.to for each in centre.submitted if each.id == "m1")
    assert mine == "493012340000"
    database_time.advance(seconds=5)
    hear(staged, tenant)
    assert stage.states()["sms"] == Counter(accepted=19, delivered=1)


@on_sqlite
def test_an_id_that_nobody_knows_counts_for_the_number_after_a_while(
    staged: Runtime, tenant: int, stage: Stage, lines: Listening, centre: Smsc, database_time: DatabaseTime
) -> None:
    centre.wait_bound()
    assert centre.receipt(SimpleNamespace(to="493012340000", id="theirs"), "DELIVRD") == 0  # type: ignore[arg-type]
    for _ in range(5):
        hear(staged, tenant)
        database_time.advance(seconds=61)
    with staged.work(tenant, mode="read") as ctx:
        assert list(ctx.session.scalars(select(ProviderReport))) == []


@on_sqlite
def test_stop_is_heard_when_nothing_is_sent(
    staged: Runtime, tenant: int, stage: Stage, lines: Listening, centre: Smsc
) -> None:
    centre.wait_bound()
    assert centre.deliver("493012340004", b"Stop, please!") == 0
    hear(staged, tenant)
    with staged.work(tenant, mode="read") as ctx:
        found = ctx.session.scalars(select(Suppression)).one()
        assert (found.channel, found.type, found.source) == ("sms", "marketing", "keyword:stop")
    stage.launch("sms")
    stage.work()
    assert stage.states()["sms"] == Counter({"accepted": 19, "skipped(suppressed)": 1})
    assert "493012340004" not in {each.to for each in centre.submitted}


@on_sqlite
def test_accounts_are_heard_as_they_are_now(
    staged: Runtime, tenant: int, stage: Stage, lines: Listening, centre: Smsc
) -> None:
    centre.wait_bound()
    centre.until_read()
    assert lines.tend() == 1
    number = account(staged, tenant).id
    with staged.work(tenant) as ctx:
        update_account(ctx, number, {"enabled": False})
    assert lines.tend() == 0
    assert centre.parted.wait(5)
    with staged.work(tenant) as ctx:
        update_account(ctx, number, {"enabled": True, "config": {"system_type": "vas"}})
    lines.tend()
    centre.wait_bound()
    assert centre.bound[0].strings == ["shop", "s3cret", "vas"]


@on_sqlite
def test_a_bind_that_is_refused_is_told_of_and_one_that_others_have_is_not(
    staged: Runtime, tenant: int, stage: Stage, centre: Smsc
) -> None:
    for statuses, health in (([ALREADY_BOUND] * 3, "unknown"), ([0x0E] * 3, "refused")):
        centre.bind_statuses, lines, tried = list(statuses), listening(staged), centre.tried
        for _ in range(500):
            lines.tend()
            if (centre.tried > tried and health == "unknown") or account(staged, tenant).health == health != "unknown":
                break
        assert account(staged, tenant).health == health
        lines.close()
    assert account(staged, tenant).health_reason.endswith("ESME_RINVPASWD")  # type: ignore[union-attr]


@on_sqlite
def test_a_send_pauses_where_the_bind_is_refused(staged: Runtime, tenant: int, stage: Stage, centre: Smsc) -> None:
    centre.password = "changed"
    stage.launch("sms")
    stage.work()
    with staged.work(tenant, mode="read") as ctx:
        send = ctx.session.scalars(select(Send)).one()
        assert send.status == "paused"
        assert "ESME_RINVPASWD" in str(send.status_reason)
    assert (account(staged, tenant).health, stage.states()) == ("refused", {"sms": Counter(planned=20)})
    assert centre.submitted == []


@on_sqlite
def test_what_another_worker_has_the_only_bind_for_waits_and_nobody_is_told(
    staged: Runtime, tenant: int, stage: Stage, centre: Smsc, database_time: DatabaseTime
) -> None:
    centre.most_binds = 0
    stage.launch("sms")
    for _ in range(3):
        stage.work()
        database_time.advance(minutes=1)
    assert stage.states() == {"sms": Counter(planned=20)}
    assert account(staged, tenant).health == "unknown"
    centre.most_binds = 1
    stage.work()
    assert stage.states() == {"sms": Counter(accepted=20)}


@on_sqlite
def test_stop_to_a_number_that_tenants_share_stops_all_of_them(
    staged: Runtime, tenant: int, stage: Stage, centre: Smsc
) -> None:
    other = make_tenant(staged, "other")
    with staged.work(other) as ctx:
        create_account(ctx, {"type": "sms", "name": "carrier", "config": centre.settings})
    lines = listening(staged)
    lines.tend()
    centre.wait_bound()
    assert centre.deliver("493012340004", b"STOP") == 0
    assert centre.tried == 1
    for each in (tenant, other):
        hear(staged, each)
        with staged.work(each, mode="read") as ctx:
            assert ctx.session.scalars(select(Suppression)).one().source == "keyword:stop"
    lines.close()


@on_sqlite
def test_a_test_message_and_a_look(staged: Runtime, tenant: int, stage: Stage, centre: Smsc) -> None:
    number = account(staged, tenant).id
    looked = probe_account(staged, tenant, SYSTEM, number)
    assert (looked.ok, looked.outcome, looked.health) == (True, "reached", "ok")
    with staged.work(tenant) as ctx:
        find(ctx.session, ChannelAccount, number).health_at = None
    tried = send_test(staged, tenant, SYSTEM, number, "+491701234567")
    assert (tried.ok, tried.code, tried.health) == (True, "m1", "ok")
    assert centre.submitted[0].to == "491701234567"
    with staged.work(tenant) as ctx:
        find(ctx.session, ChannelAccount, number).health_at = None
    centre.most_binds = 0
    busy = send_test(staged, tenant, SYSTEM, number, "+491701234567")
    assert (busy.ok, busy.outcome, busy.code, busy.health) == (False, "not_sent", "in_use", "ok")


@on_sqlite
def test_a_password_is_sealed_and_not_sent_elsewhere(staged: Runtime, tenant: int, stage: Stage) -> None:
    row = account(staged, tenant)
    assert (row.secrets_set, "password" in row.config, row.config["provider"]) == (["password"], False, "smpp")
    with staged.work(tenant) as ctx, pytest.raises(ValidationError) as refused:
        update_account(ctx, row.id, {"config": {"host": "smsc.evil.example", "tls": True, "port": 3550}})
    assert ("config.password", "required_again") in {(each.path, each.code) for each in refused.value.problems}


@on_sqlite
def test_a_worker_that_ends_parts(staged: Runtime, tenant: int, stage: Stage, centre: Smsc) -> None:
    finish = start(staged)
    centre.wait_bound()
    finish()
    assert centre.parted.wait(5)
    assert start(replace(staged, channels={}))() is None  # type: ignore[func-returns-value]


def test_without_the_extra_the_setting_says_what_to_install(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(runtime.settings, smpp=SmppSettings(enabled=True))
    import sys

    for name in [
        each
        for each in sys.modules
        if each.startswith(("nexus_marketing.smpp", "nexus_marketing.builtins.channels.smpp"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "smpp34", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nexus-marketing\[smpp\]'"):
        channels_of(settings)


class ScriptedLines(RecordingChannel):
    """A stranger's channel that listens: its lines stand as the test says."""

    state = LineState(is_open=False)
    fails = False
    closed = 0

    def listen(self, settings: Any, hear: Any) -> "ScriptedLines | None":
        if self.fails:
            raise RuntimeError(settings)
        return self

    def close(self) -> None:
        self.closed += 1


@on_sqlite
def test_what_people_are_told_of_lines(runtime: Runtime, tenant: int) -> None:
    channel = ScriptedLines(name="pager", address_kind=AddressKind.NONE)
    staged = replace(runtime, channels={"pager": channel})
    with staged.work(tenant) as ctx:
        create_account(ctx, {"type": "pager", "name": "p", "config": {"code": "c0de"}})
    lines, away = listening(staged), LineState(False, said="no route")
    states = [
        (LineState(False), "unknown"),  # on its way
        (away, "unknown"),  # it may be starting anew
        (away, "unreachable"),
        (LineState(is_open=True), "ok"),
        (LineState(False, code=IN_USE, said="others have it"), "ok"),
        (LineState(False, is_refused=True, said="who are you"), "refused"),
        (LineState(is_open=True), "ok"),
    ]
    for state, health in states:
        channel.state = lambda state=state: state  # type: ignore[method-assign, assignment, misc]
        lines.tend()
        assert account(staged, tenant).health == health
    # What a send found out is not disproved by a line.
    with staged.work(tenant) as ctx:
        find(ctx.session, ChannelAccount, account(staged, tenant).id).health = "refused"
    assert lines.tend() == 1
    assert account(staged, tenant).health == "refused"
    channel.fails = True
    with staged.work(tenant) as ctx:
        update_account(ctx, account(staged, tenant).id, {"name": "renamed"})
    assert (lines.tend(), channel.closed) == (0, 1)
    lines.close()
