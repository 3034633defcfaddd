"""Posts on Mastodon and Bluesky, to servers that keep them, refuse, ask for patience, answer nonsense and hang up."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.builtins.channels.social.bluesky import Bluesky, key_of
from nexus_marketing.builtins.channels.social.channel import SocialChannel
from nexus_marketing.builtins.channels.social.mastodon import Mastodon
from nexus_marketing.builtins.channels.social.texts import facets, graphemes
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import (
    Channel,
    CompensatingChannel,
    Outcome,
    OutcomeKind,
    PostingChannel,
    ProbedChannel,
    ReactionKind,
    Retraction,
    WatchedChannel,
)
from nexus_marketing.core.errors import PermissionDenied, Unavailable, ValidationError
from nexus_marketing.core.messages import untracked
from tests.contract.channels.networks import (
    DID,
    PASSWORD,
    TOKEN,
    BlueskyServer,
    MastodonServer,
    query_of,
    told,
)
from tests.contract.channels.servers import Marks, Reply, content, submission

pytestmark = [
    pytest.mark.req("US-018", "FR-P2-009", "FR-EXT-001", "FR-P3-012", "S10"),
    # Servers that hang up leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

K = OutcomeKind
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TEXT = "Neu im Laden: täglich frisch https://shop.example/neu #angebot"
STATUSES = "/api/v1/statuses"
LOGIN, PUT = "/xrpc/com.atproto.server.createSession", "/xrpc/com.atproto.repo.putRecord"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def mastodon() -> Iterator[MastodonServer]:
    with MastodonServer() as server:
        yield server


@pytest.fixture
def bluesky() -> Iterator[BlueskyServer]:
    with BlueskyServer() as server:
        yield server


@pytest.fixture
def make_channel(make_client, clock):
    def make(server, origin="https://mail.example", total_seconds=15.0, **limits):
        client = make_client(server, total_seconds=total_seconds, **limits)
        network = Mastodon if isinstance(server, MastodonServer) else Bluesky
        return SocialChannel(network(client, clock), client, origin=origin)

    return make


def account_of(server) -> dict[str, str]:
    if isinstance(server, MastodonServer):
        return {"server": server.url, "handle": "@shop@social.example", "token": TOKEN}
    return {"server": server.url, "handle": "@Shop.bsky.social", "password": PASSWORD}


def post(channel, server, *refs: int, text=TEXT, marks=None, **settings) -> dict[int, Outcome]:
    session = channel.open({**account_of(server), **settings}, content_of(text))
    batch = [submission(ref, "") for ref in refs or (0,)]
    outcomes = {each.ref: each for each in session.submit(batch, marks or Marks()) if each}
    session.close()
    assert sorted(outcomes) == sorted(each.ref for each in batch)
    return outcomes


def content_of(text: str):
    found = content(text)
    return replace(found, message=untracked(found.message))


def test_they_are_channels_to_an_audience(make_channel, mastodon, bluesky):
    for server, name, secret, again in ((mastodon, "mastodon", "token", False), (bluesky, "bluesky", "password", True)):
        channel = make_channel(server)
        for contract in (Channel, ProbedChannel, PostingChannel, WatchedChannel, CompensatingChannel):
            assert isinstance(channel, contract)
        about = channel.capabilities
        assert (channel.name, about.address_kind, about.template_type) == (name, "audience", "text")
        assert (about.secret_settings, about.supports_idempotency) == ({secret}, again)
        # A login is never sent to another server by whoever may change settings, nor used for another account.
        assert about.secret_destinations == {secret: {"server"}}
        assert about.identity_settings == {"server", "handle"}


def take_back(channel, server, code: str, **settings) -> Outcome:
    return channel.compensate({**account_of(server), **settings}, Retraction(submission(0, "").message_id, "", code))


class TestTakingBack:
    @pytest.mark.req("FR-P3-004", "BR-004")
    def test_a_post_is_deleted_and_a_second_time_changes_nothing(self, make_channel, mastodon, bluesky):
        for server, posts in ((mastodon, mastodon.statuses), (bluesky, bluesky.records)):
            channel = make_channel(server)
            code = post(channel, server)[0].code
            post(channel, server, 7)
            assert len(posts) == 2
            for _ in range(2):
                assert take_back(channel, server, code).kind is K.ACCEPTED
                assert len(posts) == 1

    def test_one_of_which_nobody_knows_is_deleted_where_its_name_is_known(self, make_channel, mastodon, bluesky):
        channel = make_channel(bluesky)
        post(channel, bluesky)
        assert take_back(channel, bluesky, "").kind is K.ACCEPTED
        assert bluesky.records == {}
        outcome = take_back(make_channel(mastodon), mastodon, "")
        assert (outcome.kind, mastodon.heard) == (K.PERMANENT_RECIPIENT, [])
        assert "look at the profile" in outcome.detail

    def test_another_accounts_post_is_not_said_to_be_gone(self, make_channel, mastodon):
        channel = make_channel(mastodon)
        code = post(channel, mastodon)[0].code
        mastodon.others = {code}
        outcome = take_back(channel, mastodon, code)
        assert (outcome.kind, outcome.code) == (K.PERMANENT_SENDER, "403")
        assert "check handle and token" in outcome.detail

    @pytest.mark.parametrize(
        ("reply", "kind", "after"),
        [
            (told(429, {"error": "Too many requests"}, Retry_After="90"), K.THROTTLED, 90.0),
            (told(500, {"error": "Oh"}), K.TRANSIENT, None),
            (told(403, {"error": "This action is outside the authorized scopes"}), K.PERMANENT_SENDER, None),
            (told(200, {"id": "77"}), K.UNKNOWN, None),
            (Reply(hang_up="after"), K.UNKNOWN, None),
        ],
    )
    def test_what_a_server_answers_instead(self, make_channel, mastodon, reply, kind, after):
        mastodon.scripts[f"{STATUSES}/1"] = [reply]
        outcome = take_back(make_channel(mastodon), mastodon, "1")
        assert (outcome.kind, outcome.retry_after_seconds) == (kind, after)

    def test_a_login_that_is_over_is_made_anew_the_next_time(self, make_channel, bluesky):
        channel = make_channel(bluesky)
        code = post(channel, bluesky)[0].code
        bluesky.expires += 1  # another token is good by now
        assert take_back(channel, bluesky, code).kind is K.TRANSIENT
        assert take_back(channel, bluesky, code).kind is K.ACCEPTED
        assert take_back(channel, bluesky, code, password="wrong-word").kind is K.PERMANENT_SENDER

    def test_a_network_that_is_away(self, make_channel, mastodon, bluesky):
        for server in (mastodon, bluesky):
            channel = make_channel(server)
            server.__exit__(None, None, None)
            assert take_back(channel, server, "1").kind is K.TRANSIENT


class TestMastodon:
    def test_a_post_is_a_status_of_the_account(self, make_channel, mastodon):
        marks = Marks()
        outcome = post(make_channel(mastodon), mastodon, marks=marks, visibility="unlisted", language="de")[0]
        assert (outcome, marks.ended) == (Outcome(0, K.ACCEPTED, "1"), {0: K.ACCEPTED})
        (heard,) = mastodon.heard
        assert (heard.method, heard.path) == ("POST", STATUSES)
        assert json.loads(heard.body) == {"status": TEXT, "visibility": "unlisted", "language": "de"}

    def test_what_is_tried_again_is_one_post(self, make_channel, mastodon):
        for _ in range(2):
            assert post(make_channel(mastodon), mastodon)[0].code == "1"
        assert len(mastodon.statuses) == 1
        assert post(make_channel(mastodon), mastodon, 1)[1].code == "2"
        # Another installation numbers its messages alike.
        assert post(make_channel(mastodon, origin="https://staging.example"), mastodon)[0].code == "3"

    @pytest.mark.parametrize(
        ("reply", "kind", "after"),
        [
            (told(429, {"error": "Too many"}, X_RateLimit_Reset="2026-11-28T12:05:00.000000Z"), K.THROTTLED, 300.0),
            (told(429, {}, X_RateLimit_Reset="2026-11-28T11:00:00Z"), K.THROTTLED, 1.0),
            (told(429, {}, X_RateLimit_Reset="soon", X_RateLimit_Remaining="0"), K.THROTTLED, None),
            (told(429, {}, Retry_After="7", X_RateLimit_Reset="2026-11-28T12:05:00Z"), K.THROTTLED, 7.0),
            (told(503, {"error": "Remote data could not be fetched"}), K.THROTTLED, None),
            (told(422, {"error": "Validation failed: Text character limit of 500 exceeded"}), K.REFUSED, None),
            (told(401, {"error": "The access token was revoked"}), K.PERMANENT_SENDER, None),
            (told(403, {"error": "This action is outside the authorized scopes"}), K.PERMANENT_SENDER, None),
            (Reply(404, b"<html>not here</html>"), K.PERMANENT_SENDER, None),
            (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), K.PERMANENT_SENDER, None),
            # Whether it was posted before the fault, nobody knows.
            (Reply(500), K.UNKNOWN, None),
            (Reply(502, b"<html>bad gateway</html>"), K.UNKNOWN, None),
            (Reply(200, b"<html>welcome to the hotel</html>"), K.UNKNOWN, None),
            (Reply(200, b"[" * 60_000), K.UNKNOWN, None),
            (told(200, ["1"]), K.UNKNOWN, None),
            (told(200, {"id": ["1"]}), K.UNKNOWN, None),
            (Reply(raw=b"SSH-2.0-OpenSSH\r\n"), K.UNKNOWN, None),
            (Reply(hang_up="after"), K.UNKNOWN, None),
        ],
    )
    def test_what_an_answer_means(self, make_channel, mastodon, reply, kind, after):
        mastodon.scripts[STATUSES] = [reply]
        outcome = post(make_channel(mastodon), mastodon)[0]
        assert (outcome.kind, outcome.retry_after_seconds) == (kind, after)
        assert len(mastodon.heard) == 1

    def test_the_server_says_what_is_wrong(self, make_channel, mastodon):
        outcome = post(make_channel(mastodon), mastodon, token="revoked-token")[0]
        assert outcome == Outcome(0, K.PERMANENT_SENDER, "401", "The access token is invalid")

    def test_what_it_says_can_be_stored(self, make_channel, mastodon):
        mastodon.scripts[STATUSES] = [Reply(403, b'{"error": "no\\u0000 \\ud800"}')]
        assert post(make_channel(mastodon), mastodon)[0].detail == "no ?"

    def test_no_answer_in_time_is_unknown(self, make_channel, mastodon):
        mastodon.scripts[STATUSES] = [Reply(delay_seconds=20)]
        assert post(make_channel(mastodon, total_seconds=0.3), mastodon)[0].kind is K.UNKNOWN

    def test_links_and_people_elsewhere_count_as_the_server_counts_them(self, make_channel, mastodon):
        channel, account = make_channel(mastodon), account_of(mastodon)
        link = "https://shop.example/" + "a" * 600
        channel.check_text(account, "x" * 476 + " " + link)
        channel.check_text(account, "x" * 496 + " @ab@" + "long." * 20 + "example")
        with pytest.raises(ValidationError, match="501 characters: a post has at most 500 on this server"):
            channel.check_text(account, "x" * 477 + " " + link)
        channel.check_text({**account, "max_characters": 5_000}, "x" * 5_000)
        with pytest.raises(ValidationError, match="no text"):
            channel.check_text(account, " \n ")

    def test_a_look_says_whose_token_it_is(self, make_channel, mastodon):
        channel, account = make_channel(mastodon), account_of(mastodon)
        channel.probe(account)
        with pytest.raises(PermissionDenied, match="belongs to 'Shop', not to 'other'"):
            channel.probe({**account, "handle": "other@social.example"})
        with pytest.raises(PermissionDenied, match="401 The access token is invalid"):
            channel.probe({**account, "token": "wrong-token"})
        mastodon.scripts["/api/v1/accounts/verify_credentials"] = [Reply(200, b"hello"), Reply(503)]
        with pytest.raises(Unavailable, match="no Mastodon server"):
            channel.probe(account)
        with pytest.raises(Unavailable, match="503"):
            channel.probe(account)
        assert mastodon.statuses == {}

    def test_reactions_are_read_page_by_page(self, make_channel, mastodon):
        at = f"{STATUSES}/9"
        link = f'<{mastodon.url}{at}/favourited_by?limit=40&max_id=7>; rel="next", <x>; rel="prev"'
        mastodon.lists = {
            f"{at}/favourited_by?limit=40": ([{"id": "1", "acct": "ann"}], link),
            f"{at}/favourited_by?limit=40&max_id=7": [{"id": "2", "acct": "bo@far.example"}],
            f"{at}/reblogged_by": [{"id": "1", "acct": "ann"}, "nonsense"],
            f"{at}/context": {
                "descendants": [
                    {
                        "id": "10",
                        "in_reply_to_id": "9",
                        "created_at": "2026-11-28T12:01:00.000Z",
                        "account": {"acct": "cy"},
                        "content": "<p>Wann &amp; wo?<br>Danke</p>",
                    },
                    {"id": "11", "in_reply_to_id": "10", "account": {"acct": "ann"}, "content": "to cy"},
                ]
            },
        }
        channel = make_channel(mastodon)
        found = channel.reactions(account_of(mastodon), "9")
        assert [(each.kind, each.id, each.actor, each.text) for each in found] == [
            (ReactionKind.FAVOURITE, "favourite:9:1", "@ann@social.example", ""),
            (ReactionKind.FAVOURITE, "favourite:9:2", "@bo@far.example", ""),
            (ReactionKind.REPOST, "repost:9:1", "@ann@social.example", ""),
            (ReactionKind.REPLY, "reply:10", "@cy@social.example", "Wann & wo? Danke"),
        ]
        assert found[-1].at == datetime(2026, 11, 28, 12, 1, tzinfo=UTC)
        with pytest.raises(PermissionDenied, match="404 Record not found"):
            channel.reactions(account_of(mastodon), "8")

    def test_pages_of_a_server_that_leads_in_circles_end(self, make_channel, mastodon):
        link = '<http://169.254.169.254/latest?max_id=7>; rel="next"'
        mastodon.lists[f"{STATUSES}/9/favourited_by"] = ([{"id": "1", "acct": "ann"}], link)
        mastodon.lists[f"{STATUSES}/9/reblogged_by"] = []
        mastodon.lists[f"{STATUSES}/9/context"] = {"descendants": []}
        assert len(make_channel(mastodon).reactions(account_of(mastodon), "9")) == 10

    def test_every_wrong_setting_is_named(self, make_channel, mastodon):
        with pytest.raises(ValidationError) as caught:
            make_channel(mastodon).validate({})
        assert {each.path for each in caught.value.problems} == {"server", "handle", "token"}
        wrong = {
            "server": "https://10.0.0.1",
            "handle": "shop",
            "token": "a b",
            "visibility": "direct",
            "language": "German",
            "max_characters": 0,
            "password": "x",
        }
        with pytest.raises(ValidationError) as caught:
            make_channel(mastodon).validate(wrong)
        assert {each.path for each in caught.value.problems} == set(wrong)
        assert "a b" not in str(caught.value)
        with pytest.raises(ValidationError, match="Write the server alone"):
            make_channel(mastodon).validate({**account_of(mastodon), "server": f"{mastodon.url}/api"})


class TestBluesky:
    def test_a_post_is_a_record_with_its_links(self, make_channel, bluesky):
        marks = Marks()
        outcome = post(make_channel(bluesky), bluesky, marks=marks, language="de")[0]
        ((key, record),) = bluesky.records.items()
        assert (outcome, marks.wired) == (Outcome(0, K.ACCEPTED, key), [0])
        assert (record["text"], record["createdAt"], record["langs"]) == (TEXT, "2026-11-28T12:00:00.000Z", ["de"])
        told_of = {
            TEXT.encode()[each["index"]["byteStart"] : each["index"]["byteEnd"]].decode(): each["features"]
            for each in record["facets"]
        }
        assert told_of == {
            "https://shop.example/neu": [
                {"$type": "app.bsky.richtext.facet#link", "uri": "https://shop.example/neu"},
            ],
            "#angebot": [{"$type": "app.bsky.richtext.facet#tag", "tag": "angebot"}],
        }

    def test_what_is_tried_again_is_the_same_record(self, make_channel, bluesky, clock):
        bluesky.scripts[PUT] = [Reply(hang_up="after")]
        assert post(make_channel(bluesky), bluesky)[0].kind is K.UNKNOWN
        first = post(make_channel(bluesky), bluesky)[0]
        clock.advance(hours=30)
        again = post(make_channel(bluesky), bluesky)[0]
        assert (again.kind, again.code) == (K.ACCEPTED, first.code)
        assert list(bluesky.records) == [first.code]
        post(make_channel(bluesky), bluesky, 1)
        post(make_channel(bluesky, origin="https://staging.example"), bluesky)
        assert len(bluesky.records) == 3

    def test_one_login_is_used_until_it_ends(self, make_channel, bluesky, clock):
        channel = make_channel(bluesky)
        bluesky.expires = int(NOW.timestamp()) + 600
        post(channel, bluesky, 0, 1)
        assert bluesky.logins == 1
        clock.advance(minutes=9, seconds=30)
        post(channel, bluesky, 2)
        assert bluesky.logins == 2

    def test_a_login_that_ended_early_is_made_anew(self, make_channel, bluesky):
        channel = make_channel(bluesky)
        post(channel, bluesky, 0)
        bluesky.logins += 1  # the server has forgotten it
        outcome = post(channel, bluesky, 1)[1]
        assert (outcome.kind, outcome.code) == (K.TRANSIENT, "ExpiredToken")
        assert post(channel, bluesky, 1)[1].kind is K.ACCEPTED

    def test_another_password_is_not_helped_by_an_old_login(self, make_channel, bluesky):
        channel = make_channel(bluesky)
        post(channel, bluesky, 0)
        outcome = post(channel, bluesky, 1, password="wrong-pass-word")[1]
        assert (outcome.kind, outcome.code) == (K.PERMANENT_SENDER, "AuthenticationRequired")
        assert len(bluesky.records) == 1

    @pytest.mark.parametrize(
        ("reply", "kind", "after"),
        [
            (told(429, {"error": "RateLimitExceeded"}, ratelimit_reset="1795867800"), K.THROTTLED, 600.0),
            (told(429, {"error": "RateLimitExceeded"}), K.THROTTLED, None),
            (Reply(503, headers={"Retry-After": "9"}), K.THROTTLED, 9.0),
            (told(500, {"error": "InternalServerError"}), K.TRANSIENT, None),
            (told(401, {"error": "AuthMissing"}), K.PERMANENT_SENDER, None),
            (told(400, {"error": "AccountTakedown"}), K.PERMANENT_SENDER, None),
            (Reply(404, b"<html>"), K.PERMANENT_SENDER, None),
        ],
    )
    @pytest.mark.parametrize("of", [LOGIN, PUT])
    def test_what_an_answer_means(self, make_channel, bluesky, of, reply, kind, after):
        bluesky.scripts[of] = [reply]
        marks = Marks()
        outcome = post(make_channel(bluesky), bluesky, marks=marks)[0]
        assert (outcome.kind, outcome.retry_after_seconds) == (kind, after)
        assert marks.wired == ([0] if of == PUT else [])

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (told(400, {"error": "InvalidRequest", "message": "text must not be longer"}), K.REFUSED),
            (Reply(413), K.REFUSED),
            (Reply(200, b"<html>"), K.UNKNOWN),
            (told(200, {"uri": f"at://{DID}/app.bsky.feed.post/other"}), K.UNKNOWN),
            (told(200, {"uri": ["at://"]}), K.UNKNOWN),
            (Reply(hang_up="after"), K.UNKNOWN),
            (Reply(raw=b"nonsense\r\n"), K.UNKNOWN),
        ],
    )
    def test_what_an_answer_to_the_post_means(self, make_channel, bluesky, reply, kind):
        bluesky.scripts[PUT] = [reply]
        assert post(make_channel(bluesky), bluesky)[0].kind is kind

    @pytest.mark.parametrize("reply", [Reply(hang_up="after"), Reply(raw=b"nonsense\r\n"), Reply(200, b"<html>")])
    def test_a_login_that_fails_posts_nothing(self, make_channel, bluesky, reply):
        bluesky.scripts[LOGIN] = [reply, reply]
        marks = Marks()
        outcome = post(make_channel(bluesky), bluesky, marks=marks)[0]
        assert outcome.kind in (K.NOT_SENT, K.TRANSIENT)
        assert (marks.wired, bluesky.records) == ([], {})

    def test_length_is_what_people_see(self, make_channel, bluesky):
        channel, account = make_channel(bluesky), account_of(bluesky)
        family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
        channel.check_text(account, "e\u0301" * 300)
        channel.check_text(account, family * 160)
        for text, said in (("x" * 301, "301 characters"), (family * 290, "bytes: a post has at most 3000")):
            with pytest.raises(ValidationError, match=said):
                channel.check_text(account, text)

    def test_a_look_logs_in(self, make_channel, bluesky):
        channel, account = make_channel(bluesky), account_of(bluesky)
        channel.probe(account)
        channel.probe(account)
        assert bluesky.logins == 2
        with pytest.raises(PermissionDenied, match="401 AuthenticationRequired: Invalid identifier or password"):
            channel.probe({**account, "password": "wrong-pass-word"})
        bluesky.scripts[LOGIN] = [told(429, {}, ratelimit_reset="1795867260"), Reply(200, b"hello")]
        with pytest.raises(Unavailable) as caught:
            channel.probe(account)
        assert caught.value.retry_after_seconds == 60.0
        with pytest.raises(Unavailable, match="no server of the AT Protocol"):
            channel.probe(account)

    def test_reactions_are_read_page_by_page(self, make_channel, bluesky):
        bluesky.lists = {
            ("app.bsky.feed.getLikes", ""): {
                "likes": [
                    {"actor": {"did": "did:plc:a", "handle": "ann.example"}, "createdAt": "2026-11-28T12:01:00Z"}
                ],
                "cursor": "c1",
            },
            ("app.bsky.feed.getLikes", "c1"): {"likes": [{"actor": {"did": "did:plc:b", "handle": "bo.example"}}, 7]},
            ("app.bsky.feed.getRepostedBy", ""): {"repostedBy": [{"did": "did:plc:a", "handle": "ann.example"}]},
            ("app.bsky.feed.getPostThread", ""): {
                "thread": {
                    "replies": [
                        {"post": {"uri": "at://r/1", "author": {"handle": "cy.example"}, "record": {"text": "Wo?"}}},
                        {"notFound": True},
                    ]
                }
            },
        }
        found = make_channel(bluesky).reactions(account_of(bluesky), "3k")
        assert [(each.kind, each.id, each.actor, each.text) for each in found] == [
            (ReactionKind.FAVOURITE, "like:3k:did:plc:a", "ann.example", ""),
            (ReactionKind.FAVOURITE, "like:3k:did:plc:b", "bo.example", ""),
            (ReactionKind.REPOST, "repost:3k:did:plc:a", "ann.example", ""),
            (ReactionKind.REPLY, "reply:at://r/1", "cy.example", "Wo?"),
        ]
        assert query_of(bluesky.heard[1])["uri"] == f"at://{DID}/app.bsky.feed.post/3k"

    def test_every_wrong_setting_is_named(self, make_channel, bluesky):
        wrong = {"server": "http://bsky.social", "handle": "shop", "password": "x y", "language": "?", "token": "t"}
        with pytest.raises(ValidationError) as caught:
            make_channel(bluesky).validate(wrong)
        assert {each.path for each in caught.value.problems} == set(wrong)
        make_channel(bluesky).validate({"handle": "shop.example", "password": PASSWORD})


def test_nothing_of_a_lead_is_posted(make_channel, mastodon):
    channel, account = make_channel(mastodon), account_of(mastodon)
    for text, said in (
        ("Hello {{ first_name }}", "holds first_name"),
        ("Out: {{ unsubscribe_url }}", "holds unsubscribe_url"),
        ("See https://shop.example/a", "a tracked link"),
    ):
        with pytest.raises(ValidationError, match=said):
            channel.open(account, content(text))
    assert mastodon.heard == []


def test_a_text_that_is_too_long_stops_before_anything_leaves(make_channel, bluesky):
    with pytest.raises(ValidationError, match="301 characters"):
        make_channel(bluesky).open(account_of(bluesky), content_of("x" * 301))
    # What the product fills in is known with the message only.
    session = make_channel(bluesky).open(account_of(bluesky), content_of("x" * 290 + "{{ sender_name }}"))
    (outcome,) = session.submit([submission(0, "", sender_name="A long name")], Marks())
    assert (outcome.kind, outcome.code) == (K.REFUSED, "render_error")
    assert bluesky.heard == []


@given(st.binary(min_size=32, max_size=32))
def test_keys_are_those_of_posts(digest):
    key = key_of(digest)
    assert len(key) == 13
    assert key[0] in "234567abcdefghij"
    assert set(key) <= set("234567abcdefghijklmnopqrstuvwxyz")


@given(st.text(alphabet="aä😀\u0301\u200d🇩🇪👍🏽 \r\n#.,;", max_size=40), st.text(alphabet="ab1#/?=&", max_size=10))
def test_facets_are_where_they_say_they_are(before, path):
    text = f"{before} https://a.example/x{path} #tag"
    found = facets(text)
    places = [(each["index"]["byteStart"], each["index"]["byteEnd"]) for each in found]
    assert places == sorted(places)
    for each, (start, end) in zip(found, places, strict=True):
        said = text.encode()[start:end].decode()
        feature = each["features"][0]
        assert said in (feature.get("uri"), f"#{feature.get('tag')}")
    assert text.encode()[slice(*places[-1])] == b"#tag"
    assert graphemes(text) <= len(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\r\n", 1),
        ("🇩🇪🇫🇷", 2),
        ("🇩🇪🇫", 2),
        ("👍🏽", 1),
        ("👩‍💻x", 2),
        ("a\u200d😀", 2),
        ("\n\u0301", 2),
        ("🏴\U000e0067\U000e0062\U000e007f", 1),
    ],
)
def test_what_people_see_as_one_character(text, count):
    assert graphemes(text) == count
