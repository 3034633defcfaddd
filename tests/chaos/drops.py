"""The network between workers and the mail server breaks, mid-message and between the dot and its answer (SECURITY.md R10)."""

import random
import time
from typing import Final

from tests.chaos.proxy import Cut, Proxy
from tests.chaos.stage import launch, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, settled, wait_until

#: How long a worker waits for an answer that does not come.
_PATIENCE_SECONDS: Final = 1.5


def smtp_network(servers: Servers, plan: Plan) -> Verdict:
    """Connections to the mail server cut at every stage of a message, reset, and stalled.

    Only a message whose end was handed to the network and whose answer never came may stay ``unknown``: the proxy
    counts those, and that is the bound. Nobody is written to twice, and whoever was on another connection notices nothing.
    """
    rng = random.Random(plan.seed)
    rounds = 2 if plan.small else max(4, plan.faults)
    audience = min(plan.audience, 1_500) if plan.small else plan.audience
    # Slow enough that the audience outlasts the cuts.
    delay = max(0.005, 16 * rounds * len(Cut) * 0.12 / audience)
    with (
        open_stage(servers.cluster, audience=audience, reply_delay_seconds=delay) as stage,
        Proxy(stage.sink_port) as proxy,
    ):
        own = {"nexus.smtp.port": str(proxy.port), "nexus.smtp.timeout_seconds": str(_PATIENCE_SECONDS)}
        stage.settings = {**stage.settings, **own}
        launch(stage)
        watch = Watch(stage.runtime)
        for _ in range(2):
            stage.start_worker()
        wait_until(lambda: settled(stage) > 0)
        slowest = 0.0
        for _ in range(rounds):
            for cut in rng.sample(list(Cut), len(Cut)):
                begun = time.monotonic()
                proxy.cut(cut)
                wait_until(lambda: proxy.is_done, 5.0)
                before = settled(stage)
                wait_until(lambda before=before: settled(stage) > before or stage.send_status() == "completed")  # type: ignore[misc]
                slowest = max(slowest, time.monotonic() - begun)
        play_to_the_end(stage)
        verdict = pass_judgement(
            stage, "smtp_network", proxy.cuts, recovered=slowest, violations=watch.finish(), bound=proxy.in_doubt
        )
        wanted = rounds * len(Cut)
        verdict.require(proxy.cuts == wanted, f"{proxy.cuts} of {wanted} cuts fell into the send")
        return verdict
