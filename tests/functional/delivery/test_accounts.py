"""A send leaves by its tenant's accounts: in turn by weight, by others where one fails, and never twice."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.builtins.channels.email import ALLOW_SETTING, PORTS, EmailChannel
from nexus_marketing.core.contracts import Content, Journal, Outcome, OutcomeKind, Submission
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.models import Campaign, ChannelAccount, DeliveryChunk, SendGrant
from nexus_marketing.delivery.recovery import recover_expired
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.channels.records import create_account, delete_account, update_account
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.database_fixtures import DatabaseTime
from tests.common.servers import free_port
from tests.functional.delivery.conftest import SENDER, Scene

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "REL-002")

#: Where no statement is that is another on PostgreSQL.
on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


class Killed(BaseException):
    """The worker is gone in the middle of its work."""


def killed(batch: Sequence[Submission]) -> None:
    raise Killed(len(batch))


@dataclass(slots=True)
class Relays(RecordingChannel):
    """A channel whose accounts name a relay; ``kinds`` says how a relay answers where it does not accept."""

    kinds: dict[str, OutcomeKind] = field(default_factory=dict)
    by: dict[str, list[str]] = field(default_factory=dict)
    opened: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        RecordingChannel.__post_init__(self)
        secret = {"secret_settings": frozenset({"password"}), "secret_destinations": {"password": frozenset({"host"})}}
        self.capabilities = replace(self.capabilities, identity_settings=frozenset({"from_email"}), **secret)

    def open(self, settings: Mapping[str, Any], content: Content) -> Any:
        self.opened.append(dict(settings))
        return _Relay(self, str(settings.get("host", "ours")))


@dataclass(slots=True)
class _Relay:
    relays: Relays
    host: str

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        if self.relays.on_batch is not None:
            self.relays.on_batch(batch)
        for each in batch:
            script = self.relays.script.get(each.address)
            kind = script.pop(0) if script else self.relays.kinds.get(self.host, OutcomeKind.ACCEPTED)
            if kind in (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN):
                self.relays.by.setdefault(self.host, []).append(each.address)
            yield Outcome(each.ref, kind, "said", f"by {self.host}")

    def withdraw(self) -> None:
        """Everything was handed over at once."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def relays_for(make_scene: Callable[..., Scene]) -> Callable[..., tuple[Scene, Relays]]:
    """A scene whose tenant has these accounts beside its sender: name → fields."""

    def build(accounts: dict[str, dict[str, Any]], leads: int = 12, chunk_size: int = 2) -> tuple[Scene, Relays]:
        scene, relays = make_scene(leads, chunk_size=chunk_size), Relays()
        scene.runtime = replace(scene.runtime, channels={"email": relays})
        with scene.runtime.work(scene.tenant_id) as ctx:
            for name, fields in accounts.items():
                config = {**SENDER, "host": name, "password": f"secret of {name}"}
                create_account(ctx, {"type": "email", "name": name, "config": config, **fields})
        return scene, relays

    return build


def launch(scene: Scene, **options: Any) -> None:
    """As the scene does, with the accounts that there are."""
    scene.launch(**options)
    with scene.runtime.work(scene.tenant_id) as ctx:
        ctx.session.delete(ctx.session.scalars(select(ChannelAccount).where(ChannelAccount.name == "main")).one())
    scene.runtime.accounts.forget(scene.tenant_id)


def counts(relays: Relays) -> dict[str, int]:
    return {name: len(addresses) for name, addresses in relays.by.items()}


def health(scene: Scene) -> dict[str, str]:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        return {row.name: row.health for row in ctx.session.scalars(select(ChannelAccount))}


def once(relays: Relays) -> bool:
    """Whether nobody got two."""
    return max(Counter(each for got in relays.by.values() for each in got).values()) == 1


@on_sqlite
def test_chunks_leave_in_turn_by_weight(relays_for: Any) -> None:
    scene, relays = relays_for({"a": {"weight": 2}, "b": {}, "spare": {"weight": 0}, "off": {"enabled": False}})
    launch(scene)
    scene.work()
    assert scene.states() == ["accepted"] * 12
    assert counts(relays) == {"a": 8, "b": 4}
    assert once(relays)
    assert [each["password"] for each in relays.opened] == ["secret of a", "secret of b"]
    assert health(scene) == {"a": "ok", "b": "ok", "spare": "unknown", "off": "unknown"}
    assert "secret" not in str(scene.send().sender)


@on_sqlite
def test_an_account_for_another_sender_is_left_alone(relays_for: Any) -> None:
    scene, relays = relays_for({"a": {}, "b": {}})
    with scene.runtime.work(scene.tenant_id) as ctx:
        theirs = ctx.session.scalars(select(ChannelAccount).where(ChannelAccount.name == "b")).one()
        update_account(ctx, theirs.id, {"config": {"from_email": "other@shop.example"}})
    launch(scene)
    scene.work()
    assert counts(relays) == {"a": 12}


@on_sqlite
@pytest.mark.parametrize(
    ("kind", "seen"), [(OutcomeKind.PERMANENT_SENDER, "refused"), (OutcomeKind.NOT_SENT, "unknown")]
)
def test_another_takes_over_from_one_that_fails(
    relays_for: Any, kind: OutcomeKind, seen: str, database_time: DatabaseTime
) -> None:
    scene, relays = relays_for({"a": {"weight": 9}, "b": {}})
    relays.kinds["a"] = kind
    launch(scene)
    worker = WorkerLoop(scene.runtime, lambda: False)
    for seconds in (0, 60):
        database_time.advance(seconds=seconds)
        for _ in range(8):
            worker.turn()
    worker.finish()
    assert (scene.states(), counts(relays)) == (["accepted"] * 12, {"b": 12})
    assert health(scene) == {"a": seen, "b": "ok"}
    assert scene.send().status == "completed"


@on_sqlite
def test_where_all_are_refused_the_send_stops_and_says_so(relays_for: Any, database_time: DatabaseTime) -> None:
    scene, relays = relays_for({"a": {}, "b": {}})
    relays.kinds = dict.fromkeys("ab", OutcomeKind.PERMANENT_SENDER)
    launch(scene)
    scene.work()
    assert (scene.send().status, scene.send().status_reason) == ("paused", "sender_refused: said")
    assert health(scene) == {"a": "refused", "b": "refused"}
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        reasons = set(ctx.session.scalars(select(ChannelAccount.health_reason)))
    assert reasons == {"said by a", "said by b"}


def test_what_a_server_says_costs_nobody_their_outcome_and_keeps_no_secret(
    relays_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in an answer: NUL and endless waits, which no database takes, a recipient, the password."""
    scene, _ = relays_for({"a": {}}, leads=4, chunk_size=4)

    def submit(self: Any, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        odd = [
            Outcome(0, OutcomeKind.ACCEPTED, "\x00\ud800"),
            Outcome(0, OutcomeKind.THROTTLED, "4", "", 1e300),
            Outcome(0, OutcomeKind.REFUSED, "x" * 5_000),
            Outcome(0, OutcomeKind.PERMANENT_SENDER, "", f"\x00{batch[0].address}: no"),
        ]
        yield from (each._replace(ref=one.ref) for each, one in zip(odd, batch, strict=True))

    monkeypatch.setattr(_Relay, "submit", submit)
    launch(scene)
    scene.work()
    assert scene.states() == ["accepted", "planned", "skipped(render_error)", "planned"]
    assert (scene.send().status, scene.send().status_reason) == ("paused", "sender_refused: [redacted]: no")
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert ctx.session.scalars(select(ChannelAccount.health_reason)).one() == "[redacted]: no [redacted]: no"


@on_sqlite
def test_why_a_send_cannot_leave_says_no_secret(relays_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = relays_for({"a": {}})

    def refuse(self: Any, settings: Mapping[str, Any], content: Content) -> Any:
        raise Conflict(f"{settings['password']!r} is no password")

    monkeypatch.setattr(Relays, "open", refuse)
    launch(scene)
    scene.work()
    assert scene.send().status == "paused"
    assert "secret of a" not in str(scene.send().status_reason)


def test_what_may_have_arrived_is_repeated_by_the_same_account_alone(
    relays_for: Any, database_time: DatabaseTime
) -> None:
    scene, relays = relays_for({"a": {}, "b": {"weight": 9}}, leads=8, chunk_size=8)
    relays.kinds["b"] = OutcomeKind.UNKNOWN
    launch(scene, message_class="transactional")
    scene.work()
    assert counts(relays) == {"b": 8}
    codes = {row.provider_code for row in scene.rows()}
    (by_b,) = codes
    relays.kinds.clear()
    with scene.runtime.work(scene.tenant_id) as ctx:
        account = ctx.session.scalars(select(ChannelAccount).where(ChannelAccount.name == "b")).one()
        assert by_b == f"account:{account.id}"
        update_account(ctx, account.id, {"weight": 0})
    for _ in range(3):
        database_time.advance(seconds=90)
        scene.work()
    assert counts(relays) == {"b": 16}
    assert {(row.state, row.reason) for row in scene.rows()} == {("accepted", "ambiguous")}


@on_sqlite
def test_what_may_have_arrived_by_an_account_that_is_gone_stays_unknown(
    relays_for: Any, database_time: DatabaseTime
) -> None:
    scene, relays = relays_for({"a": {}, "b": {"weight": 9}}, leads=4, chunk_size=4)
    relays.kinds["b"] = OutcomeKind.UNKNOWN
    launch(scene, message_class="transactional")
    scene.work()
    with scene.runtime.work(scene.tenant_id) as ctx:
        delete_account(ctx, ctx.session.scalars(select(ChannelAccount).where(ChannelAccount.name == "b")).one().id)
    database_time.advance(seconds=90)
    scene.work()
    assert counts(relays) == {"b": 4}
    assert scene.states() == ["unknown(ambiguous)"] * 4


@on_sqlite
def test_what_a_dead_worker_began_keeps_its_account(relays_for: Any, database_time: DatabaseTime) -> None:
    scene, relays = relays_for({"b": {}, "a": {"weight": 0}}, leads=2, chunk_size=2)
    launch(scene, message_class="transactional")
    relays.on_batch = killed
    with pytest.raises(Killed):
        scene.work()
    database_time.advance(seconds=40)
    assert recover_expired(scene.runtime) == 1
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        account = ctx.session.scalars(select(ChannelAccount.id).where(ChannelAccount.name == "b")).one()
    assert {(row.state, row.reason, row.provider_code) for row in scene.rows()} == {
        ("planned", "ambiguous", f"account:{account}")
    }


@on_sqlite
def test_without_its_account_a_send_does_not_leave_by_the_operators_relay(relays_for: Any) -> None:
    scene, relays = relays_for({"a": {}})
    launch(scene)
    with scene.runtime.work(scene.tenant_id) as ctx:
        update_account(ctx, ctx.session.scalars(select(ChannelAccount.id)).one(), {"enabled": False})
    scene.work()
    assert relays.by == {}
    assert "account is off or gone" in str(scene.send().status_reason)


@on_sqlite
def test_an_account_without_a_readable_secret_gives_way(relays_for: Any) -> None:
    scene, relays = relays_for({"a": {"weight": 9}, "b": {}})
    launch(scene)
    with scene.runtime.work(scene.tenant_id) as ctx:
        ctx.session.scalars(select(ChannelAccount).where(ChannelAccount.name == "a")).one().secrets = b"\x01rubbish"
    scene.work()
    assert (counts(relays), health(scene)["a"]) == ({"b": 12}, "refused")


def test_a_rate_of_an_account_leaves_the_rest_to_others(relays_for: Any) -> None:
    rates = [{"count": 4, "per": "1 hour"}]
    scene, relays = relays_for({"a": {"weight": 100, "rates": rates}, "b": {}})
    launch(scene, message_class="transactional")
    scene.work(40)
    assert (counts(relays), scene.states()) == ({"a": 4, "b": 8}, ["accepted"] * 12)
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        granted = Counter[int | None]()
        for row in ctx.session.scalars(select(SendGrant)):
            granted[row.account] += row.granted
        ids = dict(ctx.session.execute(select(ChannelAccount.name, ChannelAccount.id)).all())
    assert granted[ids["a"]] == 4


@on_sqlite
def test_a_repetition_waits_for_the_rate_of_its_account_and_nobody_hunts_for_it(
    relays_for: Any, database_time: DatabaseTime
) -> None:
    rates = [{"count": 1, "per": "1 hour"}]
    scene, relays = relays_for({"a": {"weight": 100, "rates": rates}, "b": {}}, leads=3, chunk_size=3)
    relays.script = {scene.address(1): [OutcomeKind.UNKNOWN]}
    launch(scene, message_class="transactional")
    scene.work()
    assert (counts(relays), scene.states()) == ({"a": 1, "b": 2}, ["planned(ambiguous)", "accepted", "accepted"])
    for _ in range(2):
        database_time.advance(seconds=90)
        scene.work(turns=8)
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        assert sum(ctx.session.scalars(select(DeliveryChunk.claims))) <= 2 + 2 * 2
    assert counts(relays) == {"a": 1, "b": 2}
    database_time.advance(minutes=61)
    scene.work()
    assert (counts(relays), scene.states()) == ({"a": 2, "b": 2}, ["accepted(ambiguous)", "accepted", "accepted"])


@on_sqlite
def test_what_an_account_sent_still_counts_after_others_sent_without_it(
    relays_for: Any, database_time: DatabaseTime
) -> None:
    rates = {"a": [{"count": 4, "per": "1 day"}], "b": [{"count": 1_000, "per": "1 second"}]}
    scene, relays = relays_for({name: {"rates": each} for name, each in rates.items()})
    launch(scene, message_class="transactional")
    scene.work(40)
    assert counts(relays) == {"a": 4, "b": 8}
    for is_on, by_b in ((False, 20), (True, 32)):
        with scene.runtime.work(scene.tenant_id) as ctx:
            number = ctx.session.scalars(select(ChannelAccount.id).where(ChannelAccount.name == "a")).one()
            update_account(ctx, number, {"enabled": is_on})
            first = ctx.session.scalars(select(Campaign).order_by(Campaign.id)).first()
            assert first is not None
            whom = {"segment_id": first.segment_id, "template_id": first.template_id}
            again = create_campaign(ctx, {"name": f"to {by_b}", "message_class": "transactional", **whom})
            move_campaign(ctx, again.id, "launch")
        database_time.advance(minutes=10)
        scene.work(40)
        assert counts(relays) == {"a": 4, "b": by_b}


@on_sqlite
def test_mail_leaves_by_the_server_that_is_there(
    make_scene: Callable[..., Scene], database_time: DatabaseTime, tmp_path: Path
) -> None:
    scene, gone = make_scene(12, chunk_size=4), free_port()
    with Catcher(tmp_path / "mail") as server:
        relay = PoolSettings(host="127.0.0.1", port=free_port(), connections=2, give_up_seconds=0.3)
        dialer = Dialer(ALLOW_SETTING, [f"localhost:{port}" for port in (gone, server.port)], PORTS)
        channel = EmailChannel(relay, scene.runtime.clock, {}, dialer)
        scene.runtime = replace(scene.runtime, channels={"email": channel})
        with scene.runtime.work(scene.tenant_id) as ctx:
            for name, port in (("gone", gone), ("there", server.port)):
                config = {**SENDER, "host": "localhost", "port": port, "security": "none"}
                create_account(ctx, {"type": "email", "name": name, "config": config, "weight": len(name)})
        launch(scene)
        worker = WorkerLoop(scene.runtime, lambda: False)
        for _ in range(4):
            worker.turn()
            database_time.advance(seconds=20)
        worker.finish()
        channel.close_thread()
        assert (scene.states(), server.accepted) == (["accepted"] * 12, 12)
    assert health(scene) == {"gone": "unknown", "there": "ok"}
