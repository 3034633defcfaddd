"""What reaches a log line: ids, never a person or a secret (S15)."""

import io
import json
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.api_keys import build_key
from nexus_marketing.core.tracking import Token, TokenKind, TokenSigner
from nexus_marketing.telemetry import SECRET_KEYS, NullTelemetry, configure_logging, get_logger, log_discreetly, scrub

pytestmark = pytest.mark.req("S15")

KEY = build_key("ab12cd34", random.Random(1).randbytes(32)).text
TOKENS = [TokenSigner([b"k" * 32]).sign(Token(kind, 1, 2, 3, 4)) for kind in TokenKind]
CANARIES = {
    "key": KEY,
    "e-mail": "canary.person+tag@example.org",
    "international e-mail": "jörg.müller@exämple.de",
    "e-mail with an apostrophe's neighbour": "o_brien@mail.example.co.uk",
    "phone": "+49 170 1234567",
    "phone with marks": "+1 (555) 010-9999",
    "open token": TOKENS[0],
    "click token": TOKENS[1],
    "unsubscribe token": TOKENS[2],
    "URL with a password": "postgresql+psycopg://nexus_app:c4n4ry-pa55@127.0.0.1/nexus",
    "URL with a password only": "redis://:c4n4ry-pa55@127.0.0.1:6379/0",
    "authorisation": f"Authorization: Bearer {KEY}",
    "other authorisation": "Authorization: Bearer c4n4ry-pa55",
}
#: What must be nowhere in the output.
SECRETS = [KEY, "canary.person", "jörg", "müller", "o_brien", "1234567", "010-9999", *TOKENS, "c4n4ry-pa55"]


@pytest.fixture
def lines():
    """Log, and read what was written."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    configure_logging("DEBUG", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()
    log_discreetly()
    structlog.contextvars.clear_contextvars()


@dataclass
class Recipient:
    """Something of ours that somebody logs whole."""

    address: str
    name: str


def ways_to_log(log, canary: str) -> None:
    spelled_out = f"about {canary} it was"
    log.info(spelled_out)
    log.info("about", text=canary)
    log.info("about", deep={"list": [canary, {"tuple": (canary, {canary})}], canary: 1})
    log.info("about", thing=Recipient(canary, canary), raw=canary.encode(), error=ValueError(canary))
    log.info("about %s", canary)
    structlog.contextvars.bind_contextvars(bound=canary)
    log.info("about")
    structlog.contextvars.clear_contextvars()
    logging.getLogger("some.library").warning("about %s and %r", canary, {"x": canary})
    try:
        _fail(f"could not reach {canary}", ValueError(canary))
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("some.library").exception("failed")


def _fail(message: str, cause: Exception | None = None) -> None:
    raise RuntimeError(message) from cause


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_no_way_of_logging_shows_a_secret(lines, canary):
    ways_to_log(get_logger("nexus_marketing.trial"), canary)
    written = lines()
    assert len(written) == 9
    text = json.dumps(written, ensure_ascii=False) + json.dumps(written)
    assert [secret for secret in SECRETS if secret in text] == []
    assert "[redacted]" in text


@pytest.mark.parametrize(
    "key", [*sorted(SECRET_KEYS), "Authorization", "smtp_password", "lead_email", "idempotency_key"]
)
def test_fields_about_people_and_secrets_are_cut_whatever_they_hold(lines, key):
    log = get_logger("nexus_marketing.trial")
    log.info("about", **{key: "Canary"})
    log.info("about", lead={key: {"inner": "Canary"}})
    log.info("about", leads=[{"more": {key: ["Canary"]}}])
    assert "Canary" not in json.dumps(lines())


def test_what_helps_to_find_a_fault_is_kept(lines):
    get_logger("nexus_marketing.trial").info(
        "send_planned",
        tenant_id=7,
        send_id=9,
        request_id="0f" * 16,
        done=True,
        ratio=0.5,
        nothing=None,
        at=datetime(2026, 3, 2, 10, tzinfo=UTC),
        took=timedelta(seconds=2),
        cost=Decimal("1.50"),
        path=Path("/var/lib/nexus.db"),
        run=UUID(int=5),
        counts={"planned": 3},
    )
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "send_planned",
        "level": "info",
        "tenant_id": 7,
        "send_id": 9,
        "request_id": "0f" * 16,
        "done": True,
        "ratio": 0.5,
        "nothing": None,
        "at": "2026-03-02 10:00:00+00:00",
        "took": "0:00:02",
        "cost": "1.50",
        "path": "/var/lib/nexus.db",
        "run": str(UUID(int=5)),
        "counts": {"planned": 3},
    }


def test_an_unknown_object_shows_its_kind_only(lines):
    get_logger("nexus_marketing.trial").info("about", thing=Recipient("a", "Canary"))
    assert lines()[0]["thing"] == "[Recipient]"


def test_an_error_is_one_line_with_its_trace(lines):
    try:
        _fail("nobody\nat home")
    except RuntimeError:
        get_logger("nexus_marketing.trial").exception("failed")
    (line,) = lines()
    assert "Traceback" in line["exception"]
    assert "test_telemetry.py" in line["exception"]


def test_a_program_without_logging_gets_lines_where_pythons_own_go(caplog, capsys):
    structlog.reset_defaults()
    log_discreetly()
    secret = SECRETS[-1]  # a variable around the error
    try:
        int("no number")
    except ValueError as error:
        get_logger("test").warning("failed", password=secret, exc_info=error)
    get_logger("test").info("nobody asked")
    assert capsys.readouterr().out == ""
    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert (line["event"], line["password"]) == ("failed", "[redacted]")
    assert "Traceback" in line["exception"]
    assert secret not in record.getMessage()


def test_lines_below_the_level_are_not_written(lines):
    logging.getLogger().setLevel("WARNING")
    logging.getLogger("some.library").info("quiet")
    assert lines() == []


def test_the_http_client_says_nothing_of_addresses_and_logins(lines):
    for name in ("httpx", "httpcore", "httpcore.http11"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert lines() == []


@given(st.text())
def test_no_input_starts_a_line_of_its_own(text):
    assert not set(scrub(text)) & set("\x00\n\r\x0b\x0c\x1c\x1d\x1e\x7f\x85\u2028\u2029\x1b")


@given(st.text(), st.sampled_from(sorted(CANARIES)))
def test_a_secret_is_found_wherever_it_stands(around, name):
    text = scrub(f"{around} {CANARIES[name]} {around}")
    assert [secret for secret in SECRETS if secret in text and secret not in around] == []


def test_scrubbing_long_hostile_text_is_quick():
    for text in ("@" * 50_000, "a" * 50_000, "+1" + " " * 50_000, "://" * 20_000, "AW" * 50_000, "a@" * 25_000):
        assert scrub(text)


def test_null_telemetry_takes_everything():
    telemetry = NullTelemetry()
    assert telemetry.point("send.commit") is None
    assert telemetry.count("sends", 2, channel="email") is None
    assert telemetry.observe("plan", 0.1, channel="email") is None
