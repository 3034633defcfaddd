"""Two real workers, a tenant that has much to send and one that has little: nobody starves (BEHAVIOUR.md 5.2, Fairness)."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from tests.chaos.judge import Arrival, query
from tests.chaos.stage import Stage, begin_campaign, launch, open_stage, other_tenant
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end

_WORKERS: Final = 2
_PIECE: Final = 50
_BIG_SENDS: Final = 3
_SMALL_PIECES: Final = 4
#: A turn of a second, and what a busy machine takes to plan and to claim.
_SEEN_SECONDS: Final = 3.0
_SENDS_OF = "SELECT id FROM marketing_sends WHERE tenant_id = {}"


def fairness(servers: Servers, plan: Plan) -> Verdict:
    """Three sends of one tenant, one short send of another, all begun before two workers start.

    While the other waits for its pieces each worker sends one piece of the big tenant at most between two of them. A worker
    looks once a second who waits; from when it knows of them all, the sends of one tenant never part by more than the pieces
    that workers have in hand.
    """
    audience = 8 * _PIECE if plan.small else 40 * _PIECE
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=0.01) as stage:
        stage.settings = {**stage.settings, "nexus.chunk_size": str(_PIECE)}
        small = other_tenant(stage, "small", _SMALL_PIECES * _PIECE)
        launch(stage)
        for number in range(1, _BIG_SENDS):
            begin_campaign(stage, f"big {number}")
        begin_campaign(small, "small")
        watch = Watch(stage.runtime)
        for _ in range(_WORKERS):
            stage.start_worker()
        play_to_the_end(stage)
        stage.audience = _BIG_SENDS * audience + small.audience
        came = stage.arrivals()
        big, little = _sends_of(stage), _sends_of(small)
        waits = [later.at - sooner.at for sooner, later in pairwise(each for each in came if each.send_id in little)]
        verdict = pass_judgement(
            stage, "fairness", _BIG_SENDS + 1, recovered=max(waits, default=0.0), violations=watch.finish(), bound=0
        )
        between = _between(came, little)
        # Of each worker one for every piece of the small tenant, one begun before and one after.
        most = _PIECE * (_SMALL_PIECES + 2 * _WORKERS)
        verdict.require(
            between <= most, f"{between} of the big tenant's messages between those of the small: {most} may"
        )
        begun = [min(each.at for each in came if each.send_id == send) for send in big]
        late = max(begun) - min(begun)
        verdict.require(late <= _SEEN_SECONDS, f"a send began {late:.1f} s after another of its tenant")
        apart = _apart([each for each in came if each.at >= max(begun)], big, _PIECE * _WORKERS)
        most = _PIECE * 2 * _WORKERS
        verdict.require(apart <= most, f"sends of one tenant were {apart} messages apart: {most} may be")
        return verdict


def _sends_of(stage: Stage) -> set[int]:
    return {id_ for (id_,) in query(stage.dsn, _SENDS_OF.format(stage.tenant_id))}


def _between(came: Sequence[Arrival], sends: set[int]) -> int:
    """Messages of others between the first and the last of these sends."""
    places = [place for place, each in enumerate(came) if each.send_id in sends]
    return places[-1] - places[0] + 1 - len(places) if places else len(came)


def _apart(came: Sequence[Arrival], sends: set[int], left: int) -> int:
    """By how many messages the sends differed at most, as long as each of them had more than ``left`` to go."""
    to_go, counts, most = Counter(each.send_id for each in came if each.send_id in sends), Counter[int](), 0
    going = {send for send in sends if to_go[send] > left}
    for each in came:
        if each.send_id in going:
            counts[each.send_id] += 1
            if counts[each.send_id] + left >= to_go[each.send_id]:
                break
            most = max(most, max(counts.values()) - min(counts[send] for send in going))
    return most
