"""Redis flushed, stopped, frozen and fed with rubbish: it only rings, so nothing may be lost (SECURITY.md R07, R08, R12)."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any, Final
from uuid import uuid4

from redis import Redis

from nexus_marketing.tasks.broker import QUEUE, DramatiqDoorbell
from tests.chaos.judge import query
from tests.chaos.stage import Stage, begin_campaign, launch, make_segment, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, settled, wait_until
from tests.chaos.web import Caller

_POLL_SECONDS: Final = 1.0
#: Two cores shared by everybody: what takes part of a second elsewhere may take this long.
_SLACK_SECONDS: Final = 2.0
#: Longer than any scenario: whoever polls so seldom works because somebody rang.
_NEVER: Final = "600"
_FEW: Final = 20
#: In the full form somebody launches so often, as long as Redis is away.
_LAUNCH_SECONDS: Final = 5.0
#: So soon it has to ring again once it is back.
_BACK_SECONDS: Final = 60.0


def redis_flush(servers: Servers, plan: Plan) -> Verdict:
    """FLUSHALL while two workers send, and right before and after launches ring: polling finds what the rings lost."""
    rng = random.Random(plan.seed)
    flushes = 3 if plan.small else plan.faults
    audience = min(plan.audience, 1_500) if plan.small else plan.audience
    with _stage(servers, audience, reply_delay_seconds=0.025) as stage, Redis.from_url(servers.redis.url) as redis:
        few = make_segment(stage, _FEW)
        launch(stage)
        watch = Watch(stage.runtime)
        for _ in range(2):
            stage.start_worker(poll_seconds=str(_POLL_SECONDS))
        wait_until(lambda: settled(stage) > 0)
        for number in range(flushes):
            wait_until(lambda share=(number + 1) / (flushes + 1): settled(stage) >= share * audience)  # type: ignore[misc]
            redis.flushall()
        play_to_the_end(stage)
        slowest = _longest_gap(stage)
        for number in range(flushes):
            time.sleep(rng.uniform(0.0, 0.3))
            rings = rng.random() < 0.5
            if rings:
                redis.flushall()
            begun = time.time()
            campaign_id = begin_campaign(stage, f"few {number}", few)
            if not rings:
                redis.flushall()
            slowest = max(slowest, _first_arrival(stage, campaign_id) - begun)
        play_to_the_end(stage)
        stage.audience += flushes * _FEW
        injected = 2 * flushes
        verdict = pass_judgement(stage, "redis_flush", injected, recovered=slowest, violations=watch.finish(), bound=0)
        allowed = _POLL_SECONDS + _SLACK_SECONDS
        verdict.require(slowest <= allowed, f"somebody waited {slowest:.1f} s, polling takes {_POLL_SECONDS} s")
        return verdict


def redis_stopped(servers: Servers, plan: Plan) -> Verdict:
    """Redis stopped, then frozen for longer than its clients' heartbeat, while the API launches all the time.

    Quick answers, and polling sends; as soon as Redis is back it rings again, for a worker that does nothing unasked.
    """
    away = (1.0, 1.0) if plan.small else (300.0, 90.0)
    with _stage(servers, 0, reply_delay_seconds=0.0, leads=_FEW) as stage:
        stage.start_server(worker_threads=0)
        stage.start_worker(poll_seconds=_NEVER)
        watch = Watch(stage.runtime)
        api = Caller.of(stage)
        answers, waits, rings, polling = [], [], [], None
        server = servers.redis
        strikes = (
            (server.stop, server.start),
            (_freezing(server, signal.SIGSTOP), _freezing(server, signal.SIGCONT)),
        )
        for (strike, mend), seconds in zip(strikes, away, strict=True):
            polling = polling or stage.start_worker(poll_seconds=str(_POLL_SECONDS))
            _first_arrival(stage, api.launch())  # so that every process has its connection
            strike()
            struck = time.monotonic()
            launches = 2 if plan.small else max(plan.faults, int(seconds / _LAUNCH_SECONDS))
            for number in range(launches):
                time.sleep(max(0.0, struck + number * seconds / launches - time.monotonic()))
                begun, asked = time.time(), time.monotonic()
                campaign_id = api.launch()
                answers.append(time.monotonic() - asked)
                waits.append(_first_arrival(stage, campaign_id) - begun)
            time.sleep(max(0.0, struck + seconds - time.monotonic()))
            mend()
            mended = time.monotonic()
            if plan.small and strike == server.stop:
                continue  # what takes longest is seen once
            polling.send_signal(signal.SIGTERM)
            polling.wait()
            polling = None
            rings.append(time.monotonic() - mended if _rings_again(stage, api) else float("inf"))
        play_to_the_end(stage)
        stage.audience = _FEW * api.launched
        recovered = max(*waits, *rings)
        verdict = pass_judgement(stage, "redis_stopped", 2, recovered=recovered, violations=watch.finish(), bound=0)
        verdict.require(max(answers) <= 2.0, f"a launch took {max(answers):.1f} s while Redis was away")
        verdict.require(median(answers) <= 0.5, f"launches took {median(answers):.1f} s while Redis was away")
        allowed = _POLL_SECONDS + max(answers) + _SLACK_SECONDS
        verdict.require(max(waits) <= allowed, f"a launch waited {max(waits):.1f} s for its first message")
        verdict.require(max(rings) <= _BACK_SECONDS, f"nobody heard Redis ring within {_BACK_SECONDS:.0f} s: {rings}")
        return verdict


def poison(servers: Servers, plan: Plan) -> Verdict:
    """Rubbish among the rings, for a worker that only works when somebody rings (R12)."""
    rng = random.Random(plan.seed)
    rounds = 1 if plan.small else plan.faults
    with _stage(servers, 0, reply_delay_seconds=0.0, leads=_FEW) as stage, Redis.from_url(stage.redis_url) as redis:
        worker = stage.start_worker(poll_seconds=_NEVER)
        wait_until(lambda: bool(query(stage.dsn, "SELECT 1 FROM marketing_workers")))
        watch = Watch(stage.runtime)
        injected, launched, slowest = 0, 0, 0.0
        everybody = begin_campaign(stage, "before")
        stage.send_id, launched = 1, 1
        wait_until(lambda: _arrived(stage, everybody) is not None)
        for number in range(rounds):
            rubbish = [(kind, content) for kind, content in _rubbish(rng).items()]
            rng.shuffle(rubbish)
            for nth, (kind, content) in enumerate(rubbish):
                key = str(uuid4())
                redis.hset(f"dramatiq:{QUEUE}.msgs", key, content)
                redis.rpush(f"dramatiq:{QUEUE}", key)
                injected += 1
                if plan.small and nth % 3 != 2:
                    continue
                time.sleep(rng.uniform(0.0, 0.2))
                begun = time.time()
                campaign_id = begin_campaign(stage, f"{kind} {number}")
                launched += 1
                slowest = max(slowest, _first_arrival(stage, campaign_id) - begun)
        play_to_the_end(stage)
        stage.audience = _FEW * launched
        survived = worker.poll() is None
        verdict = pass_judgement(stage, "poison", injected, recovered=slowest, violations=watch.finish(), bound=0)
        verdict.require(survived, "the worker did not outlive it")
        verdict.require(slowest <= _SLACK_SECONDS, f"a ring among rubbish was heard after {slowest:.1f} s")
        return verdict


def _rubbish(rng: random.Random) -> dict[str, bytes]:
    """What a queue may hold that no ring is, by what is wrong with it."""
    options = {"redis_message_id": str(uuid4())}
    ring = {
        "queue_name": QUEUE,
        "actor_name": "ring",
        "args": [1, "sends"],
        "kwargs": {},
        "options": options,
        "message_id": str(uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }

    def written(**changed: Any) -> bytes:
        return json.dumps({**ring, "message_id": str(uuid4()), **changed}).encode()

    return {
        "bytes": rng.randbytes(200),
        "nothing": b"",
        "list": b"[1, 2, 3]",
        "other_shape": b'{"hello": "world"}',
        "unknown_actor": written(actor_name="nobody"),
        "other_queue": written(queue_name="elsewhere"),
        "too_many_arguments": written(args=list(range(20))),
        "wrong_arguments": written(args=[{"tenant": None}, [["sends"]]]),
        "unicode": written(args=[1, "\N{SNOWMAN}\N{COLLISION SYMBOL}" * 300_000]),
        "no_options": written(options={}),
        "text_options": written(options="none"),
        "far_future": written(options={**options, "eta": 2**62}),
    }


@contextmanager
def _stage(servers: Servers, audience: int, *, reply_delay_seconds: float, leads: int = 0) -> Iterator["Stage"]:
    """A stage whose processes ring through Redis, the launching one too."""
    redis = servers.redis
    with (
        open_stage(servers.cluster, audience=audience or leads, reply_delay_seconds=reply_delay_seconds) as stage,
        Redis.from_url(redis.url) as client,
    ):
        client.flushall()
        stage.redis_url = redis.url
        stage.settings = {**stage.settings, "nexus.redis_url": redis.url}
        stage.runtime = replace(stage.runtime, doorbell=DramatiqDoorbell(redis.url))
        yield stage


def _freezing(server: Any, number: signal.Signals) -> Any:
    def strike() -> None:
        os.kill(server.server_pid(), number)

    return strike


def _arrived(stage: Stage, campaign_id: int) -> float | None:
    """When the first message of a campaign arrived."""
    found = query(stage.dsn, f"SELECT id FROM marketing_sends WHERE campaign_id = {campaign_id:d}")
    sends = {send_id for (send_id,) in found}
    return next((each.at for each in stage.arrivals() if each.send_id in sends), None)


def _first_arrival(stage: Stage, campaign_id: int) -> float:
    """When the first message arrived; where none does in time, now."""
    wait_until(lambda: _arrived(stage, campaign_id) is not None, 30.0)
    return _arrived(stage, campaign_id) or time.time()


def _longest_gap(stage: Stage) -> float:
    """The longest pause between two arrivals, in seconds."""
    moments = sorted(each.at for each in stage.arrivals())
    return max((later - sooner for sooner, later in pairwise(moments)), default=0.0)


def _rings_again(stage: Stage, api: Caller) -> bool:
    """Whether launches reach a worker that never polls, soon after Redis is back."""

    def heard() -> bool:
        campaign_id = api.launch()
        return wait_until(lambda: _arrived(stage, campaign_id) is not None, _SLACK_SECONDS)

    # Who was told that Redis is away does not ask again at once.
    return wait_until(heard, _BACK_SECONDS) and heard()
