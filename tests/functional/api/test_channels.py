"""Channel accounts over REST: kept, changed, tried; their secrets go in and come out nowhere."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

from nexus_marketing.builtins.channels.email import ALLOW_SETTING, PORTS, EmailChannel
from nexus_marketing.config import rehearse
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import PermissionDenied, ValidationError
from nexus_marketing.db.models import AuditEntry, AuditValue, ChannelAccount
from nexus_marketing.keys import Keys
from nexus_marketing.plugin import API_VERSION, Capability, Manifest
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.channels import trials as channel_tests
from nexus_marketing.services.channels.records import create_account
from nexus_marketing.services.privacy import suppress_once
from nexus_marketing.services.secret_rotation import rotate_secrets, stale_secrets
from nexus_marketing.smtp.accounts import SCHEMA
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings, TlsPolicy
from tests.common.servers import free_port
from tests.functional.conftest import Client

# Their SQL is the ORM's; what differs between the databases is tried with migrations, listings and dispatch.
pytestmark = [
    pytest.mark.req("US-018", "SR-004", "SR-001"),
    pytest.mark.parametrize("dialect", ["sqlite"], indirect=True),
]

PATH = "/api/v1/channels"
CANARY = "c4n4rybird-0815"
MAIL: dict[str, Any] = {"from_email": "news@shop.example", "postal_address": "1 High Street"}
SERVER = {"host": "mail.example.org", "port": 587, "username": "shop", "password": CANARY}


@pytest.fixture(scope="module")
def catcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catcher]:
    with Catcher(tmp_path_factory.mktemp("mail")) as server:
        yield server


@pytest.fixture
def runtime(runtime: Runtime, catcher: Catcher) -> Runtime:
    relay = PoolSettings(host="127.0.0.1", port=catcher.port, connections=2, tls=TlsPolicy.NONE, give_up_seconds=1.0)
    dialer = Dialer(ALLOW_SETTING, [f"localhost:{catcher.port}"], PORTS)
    channel = EmailChannel(relay, runtime.clock, {}, dialer)

    def include(config: Any) -> None:
        config.add_marketing_plugin(
            Manifest("mail", "1", API_VERSION, frozenset({Capability.CHANNEL}), settings=SCHEMA)
        )
        config.add_marketing_channel(channel)

    registry = rehearse({}, include)
    registry._owners.clear()
    registry._owners["channel", "email"] = replace(next(iter(registry.plugins.values())), is_builtin=True)
    return replace(runtime, channels={"email": channel}, plugins=registry)


def create(client: Client, status: int = 201, **fields: Any) -> dict[str, Any]:
    body = {"type": "email", "name": "main", "config": {**MAIL, **SERVER}, **fields}
    found: dict[str, Any] = client.post(PATH, body, status=status).json
    return found


def codes(answer: dict[str, Any]) -> dict[str, str]:
    return {each["path"]: each["code"] for each in answer["errors"]}


class TestSecrets:
    def test_they_come_out_nowhere(self, client: Client, runtime: Runtime, tenant: int, caplog: Any) -> None:
        account = create(client, rates=[{"count": 5, "per": "1 minute"}])
        one = f"{PATH}/{account['id']}"
        seen = [
            json.dumps(account),
            client.get(one).text,
            client.get(PATH).text,
            client.get(f"{PATH}/types").text,
            client.patch(one, {"config": {"password": f"{CANARY}-2"}}).text,
            client.send("PATCH", one, {"config": {"from_name": "x\r\ny"}}).text,
            client.send("POST", PATH, {"type": "email", "name": "main", "config": {"password": CANARY}}).text,
        ]
        with runtime.work(tenant, mode="read") as ctx:
            row = ctx.session.scalars(select(ChannelAccount)).one()
            seen += [repr(row), str(row.config), str([*ctx.session.scalars(select(AuditEntry.body))])]
            seen += [str([*ctx.session.scalars(select(AuditValue.values))]), caplog.text]
            stored = bytes(row.secrets or b"")
            assert runtime.account_settings(tenant, row)["password"] == f"{CANARY}-2"  # type: ignore[arg-type]
        assert [each for each in seen if CANARY in each] == []
        assert CANARY.encode() not in stored
        assert account["secrets_set"] == ["password"]
        assert account["config"] == {**MAIL, "host": "mail.example.org", "port": 587, "username": "shop"}

    def test_what_is_read_and_written_back_keeps_them(self, client: Client, runtime: Runtime, tenant: int) -> None:
        account = create(client)
        again = client.patch(f"{PATH}/{account['id']}", {"name": "second", "config": account["config"]}).json
        assert (again["secrets_set"], again["version"], again["name"]) == (["password"], 2, "second")

    def test_a_change_of_one_is_written_down_without_it(self, client: Client, runtime: Runtime, tenant: int) -> None:
        one = f"{PATH}/{create(client)['id']}"
        client.patch(one, {"config": {"password": "another-0816"}})
        client.patch(one, {"config": {"password": None, "username": None}})
        with runtime.work(tenant, mode="read") as ctx:
            wanted = select(AuditEntry).where(AuditEntry.subject_type == "channel").order_by(AuditEntry.id)
            said = [entry.body.get("secrets.password") for entry in ctx.session.scalars(wanted)]
        changed = {"before": "set", "after": "set anew"}
        assert said == [{"before": None, "after": "set anew"}, changed, {"before": "set", "after": None}]
        assert client.get(one).json["secrets_set"] == []

    def test_a_stored_password_is_not_sent_to_another_server(self, client: Client) -> None:
        one = f"{PATH}/{create(client)['id']}"
        for moved in ({"host": "evil.example.net"}, {"port": 25}, {"security": "tls"}):
            assert codes(client.patch(one, {"config": moved}, status=422).json) == {"config.password": "required_again"}
            assert client.patch(one, {"config": {**moved, "password": "known-0817"}}).json["secrets_set"] == [
                "password"
            ]

    def test_a_channel_that_repeats_what_it_was_given_is_not_heard(
        self, client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = f"{PATH}/{create(client)['id']}"

        def validate(settings: Any) -> None:
            raise ValidationError.at("password", "weak", f"{settings['password'][:8]}… is weak")

        monkeypatch.setattr(runtime.channels["email"], "validate", validate)
        answer = client.patch(one, {"config": {"from_name": "Eve"}}, status=422).json
        assert codes(answer) == {"config.password": "weak"}
        assert "c4n4ry" not in json.dumps(answer)

    def test_a_new_key_takes_over_from_an_old_one(self, client: Client, runtime: Runtime, tenant: int) -> None:
        create(client)
        (old,) = runtime.settings.secret_keys
        both = replace(runtime, keys=Keys((b"n" * 40, old)))
        assert stale_secrets(both) == (1, 1, 0)
        assert rotate_secrets(both, Actor("test")) == (1, 1, 0)
        assert rotate_secrets(both, Actor("test")) == (1, 0, 0)
        alone = replace(runtime, keys=Keys((b"n" * 40,)))
        with alone.work(tenant, mode="read") as ctx:
            row = ctx.session.scalars(select(ChannelAccount)).one()
            assert alone.account_settings(tenant, row)["password"] == CANARY  # type: ignore[arg-type]
        assert stale_secrets(runtime) == (1, 1, 1)
        assert rotate_secrets(runtime, Actor("test")) == (1, 0, 1)

    def test_a_row_that_was_altered_keeps_no_other_under_an_old_key(
        self, client: Client, runtime: Runtime, tenant: int
    ) -> None:
        first, _ = create(client), create(client, name="second")
        with runtime.work(tenant) as ctx:
            row = ctx.session.get_one(ChannelAccount, (tenant, int(first["id"])))
            assert row.secrets is not None
            row.secrets = row.secrets[:-1] + bytes([row.secrets[-1] ^ 1])
        (old,) = runtime.settings.secret_keys
        both = replace(runtime, keys=Keys((b"n" * 40, old)))
        assert rotate_secrets(both, Actor("test")) == (2, 1, 1)
        assert stale_secrets(both) == (2, 1, 1)

    def test_without_the_key_the_account_can_be_set_anew(self, client: Client, runtime: Runtime, tenant: int) -> None:
        account = create(client)
        with runtime.work(tenant) as ctx:
            forgotten = replace(runtime, keys=Keys((b"z" * 40,))).keys.vault.seal({"password": "x"}, "x")
            statement = text("UPDATE marketing_channels SET secrets = :secrets WHERE tenant_id = :tenant_id")
            ctx.session.connection().execute(statement, {"secrets": forgotten, "tenant_id": tenant})
            row = ctx.session.scalars(select(ChannelAccount)).one()
            row.updated_at = ctx.now
        one = f"{PATH}/{account['id']}"
        answer = client.patch(one, {"config": {"from_name": "Shop"}}, status=409).json
        assert answer["code"] == "secrets_unreadable"
        assert client.patch(one, {"enabled": False}).json["enabled"] is False
        client.delete(one, status=204)


class TestKeeping:
    def test_a_stale_version_is_refused(self, client: Client) -> None:
        one = f"{PATH}/{create(client)['id']}"
        client.patch(one, {"weight": 5}, headers={"If-Match": '"1"'})
        client.patch(one, {"weight": 6}, headers={"If-Match": '"1"'}, status=412)
        client.patch(one, {"weight": 6, "version": 1}, status=409)
        client.delete(one, headers={"If-Match": '"1"'}, status=412)
        client.delete(one, status=204)
        client.get(one, status=404)

    def test_a_name_is_taken_once_a_channel(self, client: Client) -> None:
        create(client)
        assert "another name" in create(client, status=409)["detail"]

    def test_settings_that_cannot_work_are_named(self, client: Client) -> None:
        cases: list[tuple[dict[str, Any], str, str]] = [
            ({"host": "127.0.0.1", "port": 6379}, "config.host", "host_refused"),
            ({"host": "127.0.0.1", "port": 25}, "config.host", "host_refused"),
            ({"host": "169.254.169.254", "port": 25}, "config.host", "host_refused"),
            ({"host": "2130706433", "port": 25}, "config.host", "host_refused"),
            ({"host": "[::1]", "port": 25}, "config.host", "host_refused"),
            ({"host": "mail.example.org", "port": 6379}, "config.host", "host_refused"),
            ({"host": "mail.example.org/@localhost", "port": 25}, "config.host", "host_refused"),
            ({"host": "mail.example.org\r\n", "port": 25}, "config.host", "host_refused"),
            ({"colour": "red"}, "config.colour", "unknown_field"),
            ({"port": "x"}, "config.port", "wrong_type"),
            ({"port": 25}, "config.port", "needs_host"),
            ({"password": CANARY}, "config.password", "needs_host"),
            ({"host": "mail.example.org", "username": "shop"}, "config.password", "required"),
            ({**SERVER, "security": "none"}, "config.security", "password_in_the_clear"),
            ({"from_email": "news@shop.example\r\nBcc: x@y.example"}, "config.from_email", "invalid_address"),
            ({"bounce_domain": "shop.example> RET=HDRS"}, "config.bounce_domain", "invalid_address"),
            ({"bounce_domain": "shop.example\r\nRSET"}, "config.bounce_domain", "header_injection"),
            ({"dkim_domain": "shop.example"}, "config.dkim_key", "required"),
            (
                {"dkim_domain": "evil.example", "dkim_selector": "s", "dkim_key": CANARY},
                "config.dkim_domain",
                "not_aligned",
            ),
            ({"dkim_domain": "shop.example", "dkim_selector": "s", "dkim_key": CANARY}, "config.dkim_key", "not_a_key"),
        ]
        for config, path, code in cases:
            answer = create(client, status=422, config={**MAIL, **config})
            assert (config, codes(answer)[path]) == (config, code)
            assert CANARY not in json.dumps(answer)

    def test_other_faults_are_named(self, client: Client) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"type": "pigeon"}, "type"),
            ({"weight": 1001}, "weight"),
            ({"rates": [{"count": 0, "per": "1 day"}]}, "rates[0].count"),
            ({"rates": [{"count": 1, "per": "1 day", "sender": "a@b.example"}]}, "rates[0].sender"),
            ({"health": "ok"}, "health"),
        ]
        for fields, path in cases:
            assert path in codes(create(client, status=422, **fields))

    def test_the_types_say_what_can_be_set(self, client: Client) -> None:
        (found,) = client.get(f"{PATH}/types").json["data"]
        settings = {each["name"]: each for each in found["settings"]}
        assert (found["type"], found["address"]) == ("email", "email")
        assert settings["password"] == {"name": "password", "secret": True, "required": False, "type": "string"}
        assert settings["from_email"]["required"]


class TestTrying:
    def own(self, catcher: Catcher, **changes: Any) -> dict[str, Any]:
        return {**MAIL, "host": "localhost", "port": catcher.port, "security": "none", **changes}

    def test_one_message_is_sent_and_counts_nowhere(self, client: Client, catcher: Catcher) -> None:
        account = create(client, config=self.own(catcher))
        before = catcher.accepted
        tried = client.post(f"{PATH}/{account['id']}/test", {"to": "Me@Example.org"}, status=200).json
        assert (tried["ok"], tried["outcome"], tried["health"]) == (True, "accepted", "ok")
        assert catcher.accepted == before + 1
        assert client.get(f"{PATH}/{account['id']}").json["health"] == "ok"
        client.post(f"{PATH}/{account['id']}/test", {"to": "me@example.org"}, status=429)

    def test_of_whom_it_was_sent_to_nothing_is_kept_that_an_erasure_would_miss(
        self, client: Client, runtime: Runtime, tenant: int, catcher: Catcher
    ) -> None:
        account = create(client, config=self.own(catcher))
        client.post(f"{PATH}/{account['id']}/test", {"to": "ann.canary@example.org"}, status=200)
        with runtime.work(tenant, mode="read") as ctx:
            kept = str([*ctx.session.scalars(select(AuditEntry.body)), *ctx.session.scalars(select(AuditValue.values))])
            hashed = runtime.keys.address_hash(tenant, "ann.canary@example.org").hex()
        assert "canary" not in kept
        assert hashed in kept

    def test_only_so_many_are_sent_an_hour_whoever_pays(
        self, client: Client, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel_tests, "_MOST_TESTS", 2)
        statuses = []
        for name in ("a", "b", "c"):
            account = create(client, name=name, config=self.own(catcher))
            answer = client.send("POST", f"{PATH}/{account['id']}/test", {"to": "me@example.org"})
            statuses.append(answer.status_int)
        assert statuses == [200, 200, 429]
        assert int(answer.headers["Retry-After"]) > 60

    def test_a_tenant_waits_for_one_server_at_a_time(
        self, client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Servers that take their time would hold every thread that answers requests, whoever these are of."""
        accounts = [create(client, name=name, config=MAIL) for name in ("a", "b")]
        inner: list[int] = []

        def slow(settings: Any) -> None:
            del settings
            for each in (accounts[0], accounts[1]):
                for action in ("check", "test"):
                    answer = client.send("POST", f"{PATH}/{each['id']}/{action}", {"to": "me@example.org"})
                    inner.append(answer.status_int)

        monkeypatch.setattr(runtime.channels["email"], "probe", slow, raising=False)
        client.post(f"{PATH}/{accounts[0]['id']}/check", status=200)
        assert inner == [429] * 4
        with contextlib.ExitStack() as others:
            for number in range(4):
                others.enter_context(runtime.trials.one(-number - 1))
            client.post(f"{PATH}/{accounts[1]['id']}/check", status=429)
        client.post(f"{PATH}/{accounts[1]['id']}/check", status=200)

    def test_what_a_server_says_of_a_recipient_is_not_kept(
        self, client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = create(client, config=MAIL)

        def refuse(settings: Any) -> None:
            raise PermissionDenied("550 5.7.1 <ann.canary@example.org>:\x00 not from you")

        monkeypatch.setattr(runtime.channels["email"], "probe", refuse, raising=False)
        client.post(f"{PATH}/{account['id']}/check", status=200)
        assert client.get(f"{PATH}/{account['id']}").json["health_reason"] == "550 5.7.1 <[redacted]>:  not from you"

    def test_nobody_who_is_suppressed_gets_one(self, client: Client, runtime: Runtime, tenant: int) -> None:
        account = create(client, config=MAIL)
        with runtime.work(tenant) as ctx:
            suppress_once(ctx, "me@example.org", "email", "test")
        answer = client.post(f"{PATH}/{account['id']}/test", {"to": "me@example.org"}, status=409).json
        assert "suppressed" in answer["detail"]
        client.post(f"{PATH}/{account['id']}/test", {"to": "nobody"}, status=422)
        client.post(f"{PATH}/{account['id']}/test", {}, status=422)

    def test_a_look_says_whether_it_can_be_reached(self, client: Client, catcher: Catcher) -> None:
        good = create(client, config=self.own(catcher))
        tried = client.post(f"{PATH}/{good['id']}/check", status=200).json
        assert (tried["ok"], tried["outcome"]) == (True, "reached")
        bad = create(client, name="tls", config=self.own(catcher, security="starttls"))
        tried = client.post(f"{PATH}/{bad['id']}/check", status=200).json
        assert (tried["ok"], tried["health"]) == (False, "refused")
        assert "STARTTLS" in tried["detail"]
        shown = client.get(f"{PATH}/{bad['id']}").json
        assert (shown["health"], shown["health_reason"]) == ("refused", tried["detail"])

    def test_a_name_that_leads_inside_is_not_connected_to(
        self, client: Client, runtime: Runtime, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = create(client, config={**MAIL, "host": "rebound.example.org", "port": 25, "security": "none"})
        inside = [(2, 1, 6, "", ("127.0.0.1", 25))]
        monkeypatch.setattr(
            runtime.channels["email"], "_dialer", Dialer(ALLOW_SETTING, [], PORTS, resolver=lambda *_: inside)
        )
        tried = client.post(f"{PATH}/{account['id']}/check", status=200).json
        assert (tried["ok"], tried["health"]) == (False, "refused")
        assert "nexus.smtp.allow_hosts" in tried["detail"]

    def test_a_server_that_is_away_is_unreachable(
        self, client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = free_port()
        monkeypatch.setattr(runtime.channels["email"], "_dialer", Dialer(ALLOW_SETTING, [f"localhost:{port}"], PORTS))
        account = create(client, config={**MAIL, "host": "localhost", "port": port, "security": "none"})
        tried = client.post(f"{PATH}/{account['id']}/check", status=200).json
        assert (tried["ok"], tried["health"]) == (False, "unreachable")

    def test_accounts_of_others_are_not_there(self, client: Client, stranger: Client) -> None:
        account = create(client)
        for action in ("check", "test"):
            stranger.post(f"{PATH}/{account['id']}/{action}", {"to": "a@b.example"}, status=404)


def test_a_key_that_signs_is_kept_like_a_password(client: Client, runtime: Runtime, tenant: int) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = Ed25519PrivateKey.generate().private_bytes(*form).decode()
    signing = {"dkim_domain": "shop.example", "dkim_selector": "s1", "dkim_key": key}
    account = create(client, config={**MAIL, **signing})
    assert account["secrets_set"] == ["dkim_key"]
    assert key.split()[3] not in client.get(f"{PATH}/{account['id']}").text


def test_a_tenant_has_only_so_many(runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_marketing.services.channels.records.MOST_ACCOUNTS", 1)
    with runtime.work(tenant) as ctx:
        create_account(ctx, {"type": "email", "name": "one", "config": MAIL})
        with pytest.raises(Exception, match="remove one first"):
            create_account(ctx, {"type": "email", "name": "two", "config": MAIL})
