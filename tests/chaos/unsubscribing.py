"""People who unsubscribe while they are being written to: after the answer nothing new leaves for them (SECURITY.md D03)."""

import http.client
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from nexus_marketing.core.tracking import Token, TokenKind
from tests.chaos.judge import query
from tests.chaos.stage import Stage, begin_campaign, launch, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, settled, wait_until
from tests.chaos.web import answers, unsubscribe
from tests.common.servers import libpq_url

_PEOPLE_AT_ONCE: Final = 2
#: How far behind the window that leaves somebody may stand who unsubscribes.
_AHEAD: Final = 40
_NOTED = """
CREATE TABLE chaos_intents (send_id bigint, chunk_no int, lo bigint, hi bigint, at double precision);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  INSERT INTO chaos_intents
  VALUES (NEW.send_id, NEW.chunk_no, NEW.intent_lo, NEW.intent_hi, extract(epoch FROM clock_timestamp()));
  RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER UPDATE OF intent_lo, intent_hi ON marketing_delivery_chunks
  FOR EACH ROW EXECUTE FUNCTION chaos_note();
"""
_LEAVING = """
SELECT send_id, intent_lo, least(intent_hi + {ahead}, seq_hi) FROM marketing_delivery_chunks
WHERE closed_at IS NULL AND intent_lo IS NOT NULL
"""


def unsubscribe_race(servers: Servers, plan: Plan) -> Verdict:
    """One-click POSTs for leads that two campaigns are just being sent to, by people who hold a link of either.

    A message may arrive after the answer only where it stood in a window that was open when the answer was given: a
    trigger of ours notes every window that the database sees.
    """
    audience = min(plan.audience, 600) if plan.small else plan.audience
    # Two campaigns over sixteen connections, slow enough for many who unsubscribe: about 5 s, or a minute.
    delay = (5.0 if plan.small else 60.0) * 16 / (2 * audience)
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=delay) as stage:
        with psycopg.connect(libpq_url(stage.dsn)) as connection:
            connection.execute(_NOTED)
        stage.start_server(worker_threads=0)
        wait_until(lambda: answers(stage.server_port))
        launch(stage)
        begin_campaign(stage, "second")
        watch = Watch(stage.runtime)
        for _ in range(2):
            stage.start_worker()
        wait_until(lambda: settled(stage) > 0)
        people = [_Person(stage, random.Random(plan.seed + number), number) for number in range(_PEOPLE_AT_ONCE)]
        for each in people:
            each.join()
        play_to_the_end(stage)
        stage.audience = 2 * audience
        answered = {lead: at for each in people for lead, at in each.answered.items()}
        late, uncovered = _late(stage, answered)
        verdict = pass_judgement(
            stage,
            "unsubscribe_race",
            len(answered),
            recovered=max(late, default=0.0),
            violations=watch.finish(),
            bound=0,
            skipped=2 * len(answered),
        )
        verdict.require(not uncovered, f"written to after they were answered, out of no open window: {uncovered[:5]}")
        refused = [status for each in people for status in each.statuses if status != 200]
        verdict.require(not refused, f"answered {sorted(set(refused))}")
        kept = query(stage.dsn, "SELECT count(*) FROM marketing_deliveries WHERE reason = 'suppressed'")[0][0]
        verdict.require(kept > 0, "nobody unsubscribed before a message left: no evidence")
        return verdict


class _Person(threading.Thread):
    """Unsubscribes one lead after the other, of those whose turn it is."""

    def __init__(self, stage: Stage, rng: random.Random, number: int) -> None:
        super().__init__(daemon=True)
        self._stage, self._rng, self._number = stage, rng, number
        #: When the answer was there, by lead.
        self.answered: dict[int, float] = {}
        self.statuses: list[int] = []
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._stage.server_port, timeout=60)
        with psycopg.connect(libpq_url(self._stage.dsn), autocommit=True) as database:
            while self._stage.send_status() != "completed":
                leaving = database.execute(_LEAVING.format(ahead=_AHEAD)).fetchall()
                chosen = self._choose(leaving)
                if chosen is None:
                    time.sleep(0.005)
                    continue
                send_id, lead = chosen
                self.statuses.append(unsubscribe(connection, self._link(send_id, lead)))
                self.answered[lead] = time.time()
        connection.close()

    def _choose(self, leaving: Sequence[tuple[Any, ...]]) -> tuple[int, int] | None:
        """Leads are numbered as they are planned, so a place in the ledger is a lead. Each person has their own."""
        found = [
            (send_id, seq)
            for send_id, lo, hi in leaving
            for seq in range(lo, hi + 1)
            if seq % _PEOPLE_AT_ONCE == self._number and seq not in self.answered
        ]
        return self._rng.choice(found) if found else None

    def _link(self, send_id: int, lead: int) -> str:
        token = Token(TokenKind.UNSUBSCRIBE, self._stage.tenant_id, send_id, lead, lead)
        return self._stage.runtime.keys.tokens.sign(token)


def _late(stage: Stage, answered: Mapping[int, float]) -> tuple[list[float], list[str]]:
    """By how many seconds messages came after the answer; those of them that were in no window open then."""
    noted = query(stage.dsn, "SELECT send_id, chunk_no, lo, hi, at FROM chaos_intents ORDER BY at")
    late, uncovered = [], []
    for each in stage.arrivals():
        lead = int(each.recipient.removeprefix("lead").partition("@")[0])
        at = answered.get(lead)
        if at is None or each.at <= at:
            continue
        late.append(each.at - at)
        open_then = {(send_id, chunk_no): (lo, hi) for send_id, chunk_no, lo, hi, noted_at in noted if noted_at <= at}
        ranges = [
            found for (send_id, _), found in open_then.items() if send_id == each.send_id and found[0] is not None
        ]
        if not any(lo <= lead <= hi for lo, hi in ranges):
            uncovered.append(f"send {each.send_id}, lead {lead}, {each.at - at:.3f} s")
    return late, uncovered
