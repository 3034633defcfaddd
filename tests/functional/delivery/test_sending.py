"""From launch to completion, on both databases: who gets it, who does not, and why."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from threading import Thread

import pytest
from sqlalchemy import select

from nexus_marketing.core.contracts import Content, OutcomeKind
from nexus_marketing.core.errors import TransitionRefused, ValidationError
from nexus_marketing.core.privacy import ConsentState
from nexus_marketing.db.models import AuditEntry, History, Lead
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.segments import add_members
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P2-004", "REL-001", "REL-002", "BR-012")

MakeScene = Callable[..., Scene]


def test_everybody_in_the_audience_gets_one_message(make_scene: MakeScene) -> None:
    scene = make_scene(25, chunk_size=10)
    scene.launch()
    scene.work()
    assert scene.states() == ["accepted"] * 25
    assert sorted(each.address for each in scene.channel.sent) == sorted(scene.address(n) for n in range(1, 26))
    assert scene.send().status == "completed"
    assert scene.campaign().status == "completed"


def test_message_ids_are_unique_and_derive_from_the_ledger_row(make_scene: MakeScene) -> None:
    scene = make_scene(5)
    scene.launch()
    scene.work()
    expected = {f"<r{n}.s{scene.send_id}.t{scene.tenant_id}@shop.example>" for n in range(1, 6)}
    assert {each.message_id for each in scene.channel.sent} == expected


def test_an_empty_audience_completes_at_once(make_scene: MakeScene) -> None:
    scene = make_scene(0)
    scene.launch()
    scene.work()
    assert scene.campaign().status == "completed"


def test_leads_without_an_address_are_settled_when_planned(make_scene: MakeScene) -> None:
    scene = make_scene(3, email=None)
    scene.launch()
    scene.work()
    assert scene.states() == ["skipped(no_address)"] * 3
    assert scene.channel.sent == []


@pytest.mark.req("BR-011", "US-026")
def test_eu_leads_need_consent_and_unknown_countries_count_as_eu(make_scene: MakeScene) -> None:
    scene = make_scene(4, country="DE")
    scene.consent(1, ConsentState.GRANTED)
    scene.consent(2, ConsentState.REVOKED)
    scene.launch()
    scene.work()
    assert scene.states() == ["accepted", "skipped(objected)", *["skipped(consent_missing)"] * 2]


@pytest.mark.req("BR-012")
def test_suppressed_addresses_get_nothing(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    scene.suppress(2)
    scene.launch()
    scene.work()
    assert scene.states() == ["accepted", "skipped(suppressed)", "accepted"]


def test_marketing_suppression_does_not_stop_transactional_mail(make_scene: MakeScene) -> None:
    scene = make_scene(2, country="DE")
    scene.suppress(1)
    scene.suppress(2, "all")
    scene.launch(message_class="transactional")
    scene.work()
    assert scene.states() == ["accepted", "skipped(suppressed)"]


@pytest.mark.req("BR-012")
def test_an_unsubscribe_between_two_windows_is_honoured(make_scene: MakeScene) -> None:
    scene = make_scene(20)
    seen: list[int] = []

    def unsubscribe_the_last_one(batch: object) -> None:
        if not seen:
            scene.suppress(20)
        seen.append(1)

    scene.channel.on_batch = unsubscribe_the_last_one
    scene.launch()
    scene.work()
    assert scene.states()[-1] == "skipped(suppressed)"
    assert len(scene.channel.sent) == 19


@pytest.mark.req("REL-005")
def test_transient_failures_are_tried_again_later_and_then_given_up(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(2, {"person1@example.org": [OutcomeKind.TRANSIENT] * 20})
    scene.launch()
    scene.work()
    assert scene.states() == ["planned", "accepted"]
    assert scene.send().status == "running"
    for _ in range(scene.runtime.settings.max_attempts):
        database_time.advance(hours=7)
        scene.work()
    assert scene.states() == ["failed(exhausted)", "accepted"]
    assert scene.rows()[0].attempts == scene.runtime.settings.max_attempts
    assert scene.campaign().status == "completed"


def test_throttling_consumes_no_attempt(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(1, {"person1@example.org": [OutcomeKind.THROTTLED] * 3})
    scene.launch()
    scene.work()
    for _ in range(3):
        database_time.advance(minutes=2)
        scene.work()
    assert scene.states() == ["accepted"]
    assert scene.rows()[0].attempts == 0


def test_a_refused_recipient_fails_alone(make_scene: MakeScene) -> None:
    scene = make_scene(3, {"person2@example.org": [OutcomeKind.PERMANENT_RECIPIENT]})
    scene.launch()
    scene.work()
    assert scene.states() == ["accepted", "failed(permanent_recipient)", "accepted"]


def test_a_refused_sender_stops_the_send_and_says_why(make_scene: MakeScene) -> None:
    scene = make_scene(30, {"person1@example.org": [OutcomeKind.PERMANENT_SENDER]})
    scene.launch()
    scene.work()
    assert scene.send().status == "paused"
    assert "sender_refused" in (scene.campaign().status_reason or "")
    assert scene.campaign().status == "paused"
    assert len(scene.channel.sent) < 30


def test_unanswered_marketing_mail_is_never_repeated(make_scene: MakeScene) -> None:
    scene = make_scene(2, {"person1@example.org": [OutcomeKind.UNKNOWN]})
    scene.launch()
    scene.work()
    assert scene.states() == ["unknown", "accepted"]
    assert scene.campaign().status == "completed"


def test_unanswered_transactional_mail_goes_out_once_more_under_the_same_id(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(1, {"person1@example.org": [OutcomeKind.UNKNOWN, OutcomeKind.UNKNOWN, OutcomeKind.ACCEPTED]})
    scene.launch(message_class="transactional")
    scene.work()
    assert scene.states() == ["planned(ambiguous)"]
    database_time.advance(minutes=5)
    scene.work()
    assert scene.states() == ["unknown(ambiguous)"]
    assert len({each.message_id for each in scene.channel.sent}) == 1
    assert len(scene.channel.sent) == 2


def test_pausing_stops_within_two_windows_and_resuming_finishes(make_scene: MakeScene) -> None:
    scene = make_scene(40)

    def pause(batch: object) -> None:
        scene.channel.on_batch = None
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "pause")

    scene.channel.on_batch = pause
    scene.launch()
    scene.work()
    sent_before = len(scene.channel.sent)
    assert 0 < sent_before <= 2 * scene.channel.max_in_flight
    assert scene.states().count("planned") == 40 - sent_before
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "resume")
    scene.work()
    assert scene.states() == ["accepted"] * 40
    assert len(scene.channel.sent) == 40


def test_cancelling_settles_everybody_who_was_not_reached(make_scene: MakeScene) -> None:
    scene = make_scene(40, {"person1@example.org": [OutcomeKind.TRANSIENT]}, chunk_size=10)

    def cancel(batch: object) -> None:
        scene.channel.on_batch = None
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "cancel")

    scene.channel.on_batch = cancel
    scene.launch()
    scene.work()
    states = scene.states()
    assert states.count("accepted") == len(scene.channel.sent)
    assert states.count("skipped(cancelled)") == 40 - len(scene.channel.sent)
    assert scene.campaign().status == "cancelled"


def test_a_send_planned_too_late_is_missed_and_waits_for_a_person(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    scene.launch()
    scene.runtime.clock.advance(hours=2)  # type: ignore[attr-defined]
    scene.work()
    assert scene.send().status == "missed"
    assert scene.campaign().status == "paused"
    assert "missed" in (scene.campaign().status_reason or "")
    assert scene.channel.sent == []


def test_a_missing_channel_pauses_with_its_reason(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    scene.launch()
    scene.runtime.channels.clear()  # type: ignore[attr-defined]
    scene.work()
    assert scene.send().status_reason == "plugin_missing"
    assert scene.states() == ["planned"] * 3


def test_a_second_launch_is_refused(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    scene.launch()
    said = "possible here: cancel, complete, pause"
    with pytest.raises(TransitionRefused, match=said), scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "launch")


def test_a_launch_without_audience_names_every_missing_thing(make_scene: MakeScene) -> None:
    scene = make_scene(0)
    with pytest.raises(ValidationError) as refused, scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, create_campaign(ctx, {"name": "empty"}).id, "launch")
    assert {problem.code for problem in refused.value.problems} == {"no_audience", "no_template", "no_sender"}


def test_the_numbers_add_up(make_scene: MakeScene) -> None:
    scene = make_scene(10, {"person1@example.org": [OutcomeKind.UNKNOWN]}, country="US")
    scene.suppress(2)
    scene.launch()
    scene.work()
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        numbers = campaign_analytics(ctx, scene.campaign_id)
        assert broken_invariants(ctx.session) == {}
    assert numbers["planned"] == 10
    assert (numbers["accepted"], numbers["unknown"], numbers["skipped"]) == (8, 1, {"suppressed": 1})
    total = numbers["open"] + numbers["accepted"] + numbers["failed"] + numbers["unknown"]
    assert total + sum(numbers["skipped"].values()) == numbers["planned"]


@pytest.mark.req("SR-005", "US-005")
def test_every_move_is_in_the_history_and_in_the_audit(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    scene.launch()
    scene.work()
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        events = list(ctx.session.scalars(select(History.event).order_by(History.id)))
        actions = set(ctx.session.scalars(select(AuditEntry.action)))
    assert events == ["created", "launch", "complete"]
    assert {"campaign.created", "campaign.launch", "campaign.complete", "template.created"} <= actions


def test_two_workers_share_a_send_without_doubling(make_scene: MakeScene) -> None:
    scene = make_scene(60, chunk_size=10)
    scene.launch()
    scene.work(turns=1)
    workers = [Thread(target=scene.work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    scene.work()
    assert scene.states() == ["accepted"] * 60
    assert len({each.address for each in scene.channel.sent}) == len(scene.channel.sent) == 60


def test_the_grace_is_an_hour_by_default(make_scene: MakeScene) -> None:
    assert make_scene(0).runtime.settings.grace == timedelta(hours=1)


def test_resuming_a_frozen_audience_adds_nobody(make_scene: MakeScene) -> None:
    scene = make_scene(5, chunk_size=4)

    def pause(batch: object) -> None:
        scene.channel.on_batch = None
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "pause")

    scene.channel.on_batch = pause
    scene.launch()
    scene.work()
    (newcomer,) = make_leads(scene.runtime, scene.tenant_id, 1, first=99)
    with scene.runtime.work(scene.tenant_id) as ctx:
        add_members(ctx.session, 1, [newcomer], 1)
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "resume")
    scene.work()
    assert scene.states() == ["accepted"] * 5
    assert scene.campaign().status == "completed"


def test_resuming_a_missed_send_is_a_persons_word_to_send_it(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    scene.launch()
    scene.runtime.clock.advance(hours=2)  # type: ignore[attr-defined]
    scene.work()
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "resume")
    scene.work()
    assert scene.states() == ["accepted"] * 3


def test_a_changed_address_is_checked_again_before_a_retry(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(1, {"person1@example.org": [OutcomeKind.TRANSIENT]})
    scene.launch()
    loop = WorkerLoop(scene.runtime, lambda: False)
    while loop.turn():
        assert scene.channel.sent == []
    scene.suppress(77)
    with scene.runtime.work(scene.tenant_id) as ctx:
        lead = ctx.session.scalars(select(Lead)).one()
        lead.email = lead.email_norm = scene.address(77)
    database_time.advance(hours=1)
    while loop.turn():
        assert scene.channel.sent == []
    loop.finish()
    assert scene.states() == ["skipped(suppressed)"]


def test_a_send_that_cannot_be_sent_stops_nobody_else(
    make_scene: MakeScene, other_tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = make_scene(2), make_scene(0)
    fine.tenant_id = other_tenant
    fine.lead_ids = make_leads(fine.runtime, other_tenant, 2)
    broken.launch()
    fine.launch()
    opened = broken.channel.open

    def refuse_the_first(settings: object, content: Content) -> object:
        if f".t{broken.tenant_id}." in content.list_id:
            raise ValidationError.at("subject", "control_character", "The subject holds a line break.")
        return opened({}, content)

    monkeypatch.setattr(
        type(broken.channel), "open", lambda _self, settings, content: refuse_the_first(settings, content)
    )
    broken.work()
    assert fine.states() == ["accepted"] * 2
    assert broken.states() == ["planned"] * 2
    assert "line break" in (broken.campaign().status_reason or "")


def test_a_retried_recipient_waits_its_time_and_is_in_one_chunk_only(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(8, {f"person{n}@example.org": [OutcomeKind.TRANSIENT] * 2 for n in range(1, 9)})
    scene.launch()
    scene.work()
    batches: list[int] = []
    scene.channel.on_batch = lambda batch: batches.append(1)
    scene.stopping = lambda: len(batches) >= 1
    database_time.advance(minutes=2)
    scene.work()  # gathers all eight, hands some over, which are deferred again, and stops
    scene.stopping = lambda: False
    scene.work()
    for _ in range(3):
        database_time.advance(minutes=10)
        scene.work()
    assert scene.states() == ["accepted"] * 8
    assert sorted(each.address for each in scene.channel.sent) == sorted({each.address for each in scene.channel.sent})


def test_messages_older_than_retries_are_worth_fail(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(1, {"person1@example.org": [OutcomeKind.NOT_SENT] * 9})
    scene.launch()
    scene.work()
    scene.runtime.clock.advance(days=4)  # type: ignore[attr-defined]
    database_time.advance(minutes=5)
    scene.work()
    assert scene.states() == ["failed(exhausted)"]


def test_a_send_with_too_many_bad_addresses_stops_itself_and_may_be_resumed(make_scene: MakeScene) -> None:
    bad = {f"person{number}@example.org": [OutcomeKind.PERMANENT_RECIPIENT] for number in range(1, 21)}
    scene = make_scene(600, script=bad, chunk_size=100)
    scene.launch()
    scene.work()
    reason = "too_many_bounces: 20 of the last 2"
    assert scene.send().status == "paused"
    assert str(scene.send().status_reason).startswith(reason)
    assert reason in str(scene.campaign().status_reason)
    states = scene.states()
    assert states.count("failed(permanent_recipient)") == 20
    assert states.count("planned") >= 250
    with scene.runtime.work(scene.tenant_id) as ctx:
        move_campaign(ctx, scene.campaign_id, "resume")
    scene.work()
    assert scene.states().count("accepted") == 580
    assert scene.send().status == "completed"


@pytest.mark.req("REL-007")
def test_a_channel_that_knows_repetitions_answers_what_became_of_a_message(
    make_scene: MakeScene, database_time: DatabaseTime
) -> None:
    scene = make_scene(3, {"person2@example.org": [OutcomeKind.UNKNOWN, OutcomeKind.UNKNOWN]})
    scene.channel.capabilities = replace(scene.channel.capabilities, supports_idempotency=True)
    scene.launch()
    scene.work()
    assert scene.states() == ["accepted", "planned(ambiguous)", "accepted"]
    for _ in range(3):
        database_time.advance(hours=5)
        scene.work()
    assert scene.states() == ["accepted"] * 3
    ids = [each.message_id for each in scene.channel.sent if each.address == scene.address(2)]
    assert len(ids) == 3
    assert len(set(ids)) == 1


@pytest.mark.req("REL-007", "BR-012")
@pytest.mark.parametrize("how", ["cancelled", "suppressed", "erased"])
def test_who_may_have_got_it_is_not_called_skipped(
    make_scene: MakeScene, database_time: DatabaseTime, how: str
) -> None:
    scene = make_scene(2, {"person2@example.org": [OutcomeKind.UNKNOWN]})
    scene.launch(message_class="transactional")
    scene.work()
    assert scene.states() == ["accepted", "planned(ambiguous)"]
    if how == "suppressed":
        scene.suppress(2, "all")
    else:
        with scene.runtime.work(scene.tenant_id) as ctx:
            if how == "cancelled":
                move_campaign(ctx, scene.campaign_id, "cancel")
            else:
                erase_lead(ctx, scene.lead_ids[1])
    database_time.advance(hours=1)
    scene.work()
    assert scene.states() == ["accepted", "unknown(ambiguous)"]
    assert len(scene.channel.sent) == 2
