"""Campaigns that post on social networks: one post for an audience, through the delivery engine, to servers that keep it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from nexus_marketing.builtins.channels import by_http
from nexus_marketing.config import rehearse
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.errors import Conflict, NexusError
from nexus_marketing.db.models import ChannelAccount, Delivery, Engagement, Lead, Send, TakenAction, Tenant, Timer
from nexus_marketing.db.queries.preflights import audience_piece
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.compensation import fail_campaign
from nexus_marketing.services.actions.requests import retry_action
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.channels.records import create_account
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.reactions import ask_again, read_reactions, seen_reactions
from nexus_marketing.services.sent_messages import sent_message
from nexus_marketing.services.templates import create_template
from nexus_marketing.settings import HttpSettings, SocialSettings
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.contract.channels.networks import PASSWORD, TOKEN, BlueskyServer, MastodonServer
from tests.contract.channels.servers import Reply
from tests.functional.delivery.conftest import SENDER, Stage
from tests.functional.delivery.journeys import Way, message

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-P2-004", "BR-011", "US-013"),
    # Servers that hang up leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

TEXT = "Neu: https://shop.example/neu #angebot"


@pytest.fixture
def mastodon() -> Iterator[MastodonServer]:
    with MastodonServer() as server:
        yield server


@pytest.fixture
def bluesky() -> Iterator[BlueskyServer]:
    with BlueskyServer() as server:
        yield server


@pytest.fixture
def stage(runtime, tenant, mastodon, bluesky) -> Iterator[Stage]:
    """Twenty leads, and an account on each network as people make it."""
    settings = replace(
        runtime.settings,
        social=SocialSettings(("mastodon", "bluesky")),
        http=HttpSettings(allow_hosts=(mastodon.allowed, bluesky.allowed)),
    )

    def process(config: Any) -> None:
        config.registry["nexus.runtime"] = SimpleNamespace(settings=settings, clock=SystemClock())

    networks = rehearse({}, process, by_http.mastodon, by_http.bluesky).channels
    staged = replace(runtime, settings=settings, channels={"email": RecordingChannel(), **networks})
    found = Stage(staged, tenant, make_leads(staged, tenant, 20))
    found.set_up({"email": SENDER})
    with staged.work(tenant) as ctx:
        account = {"server": mastodon.url, "handle": "@shop@social.example", "token": TOKEN}
        create_account(ctx, {"type": "mastodon", "name": "shop", "config": account})
        account = {"server": bluesky.url, "handle": "shop.bsky.social", "password": PASSWORD}
        create_account(ctx, {"type": "bluesky", "name": "shop", "config": account})
        found.templates["text"] = create_template(ctx, {"name": "p", "type": "text", "content": {"text": TEXT}}).id
    yield found
    for channel in networks.values():
        channel._client.close()


def test_a_campaign_posts_once_on_each_network(stage, mastodon, bluesky):
    stage.launch("mastodon", "bluesky", "email")
    stage.work()
    once = Counter({"accepted": 1, "skipped(duplicate_address)": 19})
    assert stage.states() == {"mastodon": once, "bluesky": once, "email": Counter({"accepted": 20})}
    assert stage.campaign().status == "completed"
    (status,) = mastodon.statuses.values()
    (record,) = bluesky.records.values()
    # As it was written: a click on a post is nobody's.
    assert status["status"] == record["text"] == TEXT
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        row = ctx.session.scalars(
            select(Delivery).where(Delivery.channel == "mastodon", Delivery.state == "accepted")
        ).one()
        assert (row.provider_code, row.address_hash, row.lead_id) == ("1", None, min(stage.lead_ids))
        assert sent_message(ctx, row.lead_id, row.send_id).rendered.content == TEXT.encode()


def test_nobodys_consent_cap_or_clock_stands_in_its_way(stage, mastodon):
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.execute(update(Lead).values(country="DE", time_zone="Pacific/Auckland"))
    with stage.runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, stage.tenant_id).settings = {
            "consent_policy": "strict",
            "frequency_caps": [{"max": 1, "window": "24 hours", "on_cap": "skip"}],
        }
    for _ in range(2):
        stage.launch("mastodon")
        stage.work()
    assert len(mastodon.statuses) == 2
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        assert not any(ctx.session.scalars(select(Send.counts_toward_caps)))


def test_an_audience_planned_in_pieces_has_one_post(stage, mastodon, database_time: DatabaseTime, monkeypatch):
    monkeypatch.setattr("nexus_marketing.delivery.planning.PIECE_ROWS", {"postgresql": 7, "sqlite": 7})
    stage.runtime = replace(stage.runtime, settings=replace(stage.runtime.settings, chunk_size=7))
    first, second = sorted(stage.lead_ids)[:2]
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.get_one(Lead, (stage.tenant_id, first)).gone_at = ctx.now
        data = {"name": "c", "segment_id": stage.segment_id, "channels": stage.channels("mastodon")}
        stage.campaign_id = create_campaign(ctx, data).id
        move_campaign(ctx, stage.campaign_id, "launch")
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        send_id = ctx.session.scalars(select(Send.id)).one()
        pieces = audience_piece(ctx.session, stage.segment_id, AddressKind.AUDIENCE, 0, 100, ("name",))
    assert [row.lead_id for excluded, row in pieces if excluded is None] == [second]
    assert plan_send(stage.runtime, SendRef(stage.tenant_id, send_id)) == 20
    assert stage.states() == {
        "mastodon": Counter({"planned": 1, "skipped(lead_erased)": 1, "skipped(duplicate_address)": 18})
    }
    stage.work()
    assert len(mastodon.statuses) == 1


def test_an_audience_that_was_planned_without_the_channel_has_one_post(stage, mastodon):
    stage.launch("mastodon")
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        send_id = ctx.session.scalars(select(Send.id)).one()
    elsewhere = replace(stage.runtime, channels={})
    assert plan_send(elsewhere, SendRef(stage.tenant_id, send_id)) == 20
    assert stage.states() == {"mastodon": Counter({"planned": 20})}
    stage.work()
    assert stage.states() == {"mastodon": Counter({"accepted": 1, "skipped(duplicate_address)": 19})}
    assert len(mastodon.statuses) == 1


def test_a_network_that_asks_for_patience_or_hangs_up(stage, mastodon, bluesky, database_time: DatabaseTime):
    mastodon.scripts["/api/v1/statuses"] = [Reply(429, headers={"Retry-After": "60"}), Reply(hang_up="after")]
    bluesky.scripts["/xrpc/com.atproto.repo.putRecord"] = [Reply(hang_up="after"), Reply(500)]
    stage.launch("mastodon", "bluesky")
    for _ in range(5):
        stage.work()
        database_time.advance(hours=2)
    states = stage.states()
    # Mastodon forgets keys after an hour, so that it may have been posted and is not posted again; a record is the same one.
    assert states["mastodon"] == Counter({"unknown": 1, "skipped(duplicate_address)": 19})
    assert states["bluesky"] == Counter({"accepted": 1, "skipped(duplicate_address)": 19})
    assert (len(mastodon.statuses), len(bluesky.records)) == (0, 1)


def test_a_login_that_is_refused_pauses_the_send_and_says_so(stage, mastodon):
    mastodon.scripts["/api/v1/statuses"] = [Reply(401, b'{"error": "The access token was revoked"}')]
    stage.launch("mastodon")
    stage.work()
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        send = ctx.session.scalars(select(Send)).one()
    assert send.status == "paused"
    assert "401" in send.status_reason
    assert mastodon.statuses == {}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("Hello {{ first_name }}", "not_public", "holds first_name: choose a template without"),
        ("Out: {{ unsubscribe_url }}", "not_public", "holds unsubscribe_url"),
        ("x" * 301, "not_a_post", "301 characters: a post has at most 300"),
    ],
)
def test_what_cannot_be_posted_is_not_launched(stage, text, code, said):
    with stage.runtime.work(stage.tenant_id) as ctx:
        stage.templates["text"] = create_template(ctx, {"name": "x", "type": "text", "content": {"text": text}}).id
    with pytest.raises(NexusError) as refused:
        stage.launch("bluesky")
    (problem,) = refused.value.problems
    assert (problem.path, problem.code) == ("channels.bluesky.template_id", code)
    assert said in problem.message


def test_what_leads_did_about_a_post_becomes_their_events(stage, mastodon, bluesky, database_time: DatabaseTime):
    ann, bo = stage.lead_ids[4], stage.lead_ids[5]
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.get_one(Lead, (stage.tenant_id, ann)).attributes = {"mastodon": "@Ann@social.example"}
        ctx.session.get_one(Lead, (stage.tenant_id, bo)).attributes = {"bluesky": "bo.example", "mastodon": None}
    stage.launch("mastodon", "bluesky")
    stage.work()
    (key,) = bluesky.records
    at = "/api/v1/statuses/1"
    mastodon.lists = {
        f"{at}/favourited_by": [{"id": "1", "acct": "ann"}, {"id": "2", "acct": "stranger"}],
        f"{at}/reblogged_by": [],
        f"{at}/context": {
            "descendants": [{"id": "5", "in_reply_to_id": "1", "account": {"acct": "ann"}, "content": "<p>Wo?</p>"}]
        },
    }
    bluesky.lists = {
        ("app.bsky.feed.getLikes", ""): {"likes": [{"actor": {"did": "did:b", "handle": "bo.example"}}]},
        ("app.bsky.feed.getRepostedBy", ""): {"repostedBy": [{"did": "did:s", "handle": "stranger.example"}]},
    }

    def read() -> dict[str, tuple[int, int, int, int, str | None]]:
        rows = read_reactions(stage.runtime, stage.tenant_id, SYSTEM, stage.campaign_id)
        names = ("favourite", "repost", "reply", "recorded", "error")
        return {row["channel"]: tuple(row[name] for name in names) for row in rows}

    assert read() == {
        "mastodon": (2, 0, 1, 2, None),
        "bluesky": (0, 0, 0, 0, "The network answers 400 NotFound: Post not found: check the account."),
    }
    bluesky.lists[("app.bsky.feed.getPostThread", "")] = {"thread": {}}
    assert read() == {"mastodon": (2, 0, 1, 0, None), "bluesky": (1, 1, 0, 1, None)}
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        found = ctx.session.scalars(select(Engagement).where(Engagement.type == "custom")).all()
        assert sorted((row.name, row.lead_id, row.channel, row.attributes["post"]) for row in found) == [
            ("post.favourite", ann, "mastodon", "1"),
            ("post.favourite", bo, "bluesky", key),
            ("post.reply", ann, "mastodon", "1"),
        ]
        assert {row.campaign_id for row in found} == {stage.campaign_id}
    mastodon.statuses.clear()
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.execute(update(Send).values(created_at=ctx.now - timedelta(days=31)))
    assert read() == {}


def go_on(stage: Stage, database_time: DatabaseTime, **delta: float) -> None:
    stage.runtime.clock.advance(**delta)  # type: ignore[attr-defined]
    database_time.advance(**delta)
    stage.work()


def launch_to_fail(stage: Stage, *channels: str) -> None:
    """A campaign that takes its posts back where it fails, and goes on after them."""
    steps = [{"action": "notify", "data": {"to": "boss", "reason": "posted"}, "delay": "9 hours"}]
    document = {
        "id": "launch",
        "channels": {name: {"compensate": True} for name in channels},
        "automation": {"steps": steps},
    }
    with stage.runtime.work(stage.tenant_id) as ctx:
        definition_id = create_definition(ctx, {"schema": document}).id
        publish_definition(ctx, definition_id)
        data = {"definition_id": str(definition_id), "name": "c", "segment_id": str(stage.segment_id)}
        stage.campaign_id = create_campaign(ctx, {**data, "channels": stage.channels(*channels)}).id
        move_campaign(ctx, stage.campaign_id, "launch")
    stage.work()


def fail(stage: Stage) -> None:
    with stage.runtime.work(stage.tenant_id) as ctx:
        fail_campaign(ctx, stage.campaign_id, "wrong prices")


def retractions(stage: Stage) -> list[tuple[str, str]]:
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        wanted = select(TakenAction).where(TakenAction.name == "retract_send").order_by(TakenAction.id)
        return [(row.state, row.detail) for row in ctx.session.scalars(wanted)]


def retraction_id(ctx: Context) -> int:
    return ctx.session.scalars(select(TakenAction.id).where(TakenAction.name == "retract_send")).one()


@pytest.mark.req("FR-P3-004", "BR-004", "US-023")
def test_a_campaign_that_failed_deletes_its_posts_with_the_accounts_logins(
    stage, mastodon, bluesky, database_time: DatabaseTime
):
    bluesky.scripts["/xrpc/com.atproto.repo.putRecord"] = [Reply(hang_up="before")]
    launch_to_fail(stage, "mastodon", "bluesky")
    go_on(stage, database_time, hours=1)
    assert (len(mastodon.statuses), len(bluesky.records)) == (1, 1)
    mastodon.scripts["/api/v1/statuses/1"] = [Reply(503), Reply(hang_up="after")]
    fail(stage)
    for _ in range(4):
        go_on(stage, database_time, hours=1)
    assert (mastodon.statuses, bluesky.records) == ({}, {})
    assert retractions(stage) == [("done", "took back 1 messages; 0 could not be")] * 2
    with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
        assert seen_reactions(ctx, stage.campaign_id) == []


@pytest.mark.req("FR-P3-004", "BR-004")
def test_what_cannot_be_deleted_is_told_and_tried_again_by_a_person(stage, mastodon, database_time: DatabaseTime):
    mastodon.scripts["/api/v1/statuses"] = [Reply(hang_up="after")]
    launch_to_fail(stage, "mastodon")
    fail(stage)
    go_on(stage, database_time, minutes=1)
    said = "nobody knows whether it was posted: look at the profile, and delete it there"
    assert retractions(stage) == [("failed", f"none of 1 messages could be taken back: {said}")]
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.execute(update(Delivery).where(Delivery.state == "unknown").values(provider_code="8"))
        ctx.session.execute(update(ChannelAccount).values(enabled=False))
        retry_action(ctx, retraction_id(ctx))
    go_on(stage, database_time, minutes=1)
    ((state, said),) = retractions(stage)
    assert (state, said[:38]) == ("failed", "Its channel account is off or gone: sw")
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.execute(update(ChannelAccount).values(enabled=True))
        retry_action(ctx, retraction_id(ctx))
    stage.runtime.accounts.forget(stage.tenant_id)
    go_on(stage, database_time, minutes=1)
    assert retractions(stage) == [("done", "took back 1 messages; 0 could not be")]


def test_reactions_are_read_back_by_a_timer_for_a_month(stage, mastodon, database_time: DatabaseTime):
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.get_one(Lead, (stage.tenant_id, stage.lead_ids[4])).attributes = {"mastodon": "ann@social.example"}
    stage.launch("mastodon")
    stage.work()
    at = "/api/v1/statuses/1"
    mastodon.lists = {f"{at}/favourited_by": [], f"{at}/reblogged_by": [], f"{at}/context": {"descendants": []}}

    def looks() -> int:
        return sum(each.path.endswith("/context") for each in mastodon.heard)

    def seen() -> dict[str, Any]:
        with stage.runtime.work(stage.tenant_id, mode="read") as ctx:
            (found,) = seen_reactions(ctx, stage.campaign_id)
        return found

    assert (looks(), seen()["favourite"], seen()["seen_at"]) == (0, None, None)
    go_on(stage, database_time, minutes=16)
    assert (looks(), seen()["favourite"], seen()["recorded"]) == (1, 0, 0)
    mastodon.lists[f"{at}/favourited_by"] = [{"id": "1", "acct": "Ann"}, {"id": "2", "acct": "stranger"}]
    mastodon.scripts[f"{at}/reblogged_by"] = [Reply(503)]
    go_on(stage, database_time, minutes=16)
    assert (looks(), seen()["favourite"]) == (1, 0)
    assert seen()["error"].startswith("The network answers 503")
    with stage.runtime.work(stage.tenant_id) as ctx:
        ask_again(ctx, stage.campaign_id)
        ask_again(ctx, stage.campaign_id)
    go_on(stage, database_time, seconds=61)
    assert (looks(), seen()["favourite"], seen()["recorded"], seen()["error"]) == (2, 2, 1, None)
    for _ in range(31):
        go_on(stage, database_time, days=1)
    assert (looks(), seen()["favourite"], seen()["recorded"]) == (31, 2, 1)
    with stage.runtime.work(stage.tenant_id) as ctx:
        assert ctx.session.scalars(select(Timer)).all() == []
        with pytest.raises(Conflict, match="nothing in the last 30 days"):
            ask_again(ctx, stage.campaign_id)


def test_a_journey_cannot_post(stage, clock, database_time: DatabaseTime):
    nodes = {"m": message("text", channel="mastodon")}
    with pytest.raises(NexusError, match="posts to everybody, a journey writes to one person: post with a campaign"):
        Way(stage, clock, database_time).publish(nodes)


def test_networks_are_there_where_the_operator_names_them(runtime):
    def process(config: Any) -> None:
        config.registry["nexus.runtime"] = SimpleNamespace(settings=runtime.settings, clock=SystemClock())

    assert dict(rehearse({}, process, by_http.mastodon, by_http.bluesky).channels) == {}
