"""One message of ours by an account, and a look whether it can be reached: what people ask before they rely on it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from nexus_marketing.core.accounts import AccountHealth, unspoken
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import (
    IN_USE,
    AddressKind,
    Channel,
    Content,
    Outcome,
    OutcomeKind,
    ProbedChannel,
    Submission,
)
from nexus_marketing.core.errors import Conflict, HostRefused, NexusError, PermissionDenied
from nexus_marketing.core.templates import parse_message
from nexus_marketing.smtp.headers import date_value
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_LONGEST_SECONDS: Final = 20.0
_SUBJECT: Final = "Test message"
_TEXT: Final = "This message was sent to see whether a channel account works. Nothing needs to be done."
_JSON: Final = '{"test": true, "text": "' + _TEXT + '"}'
_HEALTH: Final = {
    OutcomeKind.ACCEPTED: AccountHealth.OK,
    # About this one address or message, not about the account.
    OutcomeKind.PERMANENT_RECIPIENT: AccountHealth.OK,
    OutcomeKind.PERMANENT_SENDER: AccountHealth.REFUSED,
    OutcomeKind.NOT_SENT: AccountHealth.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it: ``outcome`` (``reached``, or as a channel answers), in the other side's words, and how long it took."""

    ok: bool
    outcome: str
    code: str
    detail: str
    seconds: float
    health: str


class _NoJournal:
    """A test that a crash cuts off is not repeated."""

    def on_wire(self, ref: int) -> None:
        """Nothing."""

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """Nothing."""


def try_message(channel: Channel, settings: Mapping[str, Any], to: str, clock: Clock, secrets: Sequence[Any]) -> Tried:
    """Hand one message over, outside of all statistics.

    Args:
        channel: of the account.
        settings: the account's, with its secrets.
        to: an address that may be written to; empty where the channel needs none.
        clock: dates it.
        secrets: what no answer may repeat.
    """
    begun = time.monotonic()
    try:
        outcome = _outcome(channel, settings, _content(channel, settings), _submission(settings, to, clock))
    except NexusError as error:
        outcome = Outcome(0, OutcomeKind.PERMANENT_SENDER, error.code, error.message)
    except Exception as error:  # isolation boundary: a plugin's fault is this test's answer
        log.exception("plugin_failed", channel=channel.name)
        outcome = Outcome(0, OutcomeKind.TRANSIENT, type(error).__name__)
    finally:
        _part(channel)
    health = AccountHealth.OK if outcome.code == IN_USE else _HEALTH.get(outcome.kind, AccountHealth.UNKNOWN)
    accepted = outcome.kind is OutcomeKind.ACCEPTED
    code, said = unspoken(outcome.code[:64], secrets), unspoken(outcome.detail[:200], secrets)
    return Tried(accepted, str(outcome.kind), code, said, time.monotonic() - begun, health)


def try_reach(channel: Channel, settings: Mapping[str, Any], secrets: Sequence[Any]) -> Tried:
    """Connect and log in, and send nothing.

    Raises:
        Conflict: this channel cannot be asked without sending.
    """
    if not isinstance(channel, ProbedChannel):
        raise Conflict(f"{channel.name} cannot be looked at without sending: send a test message instead.")
    begun, code, said, health = time.monotonic(), "", "", AccountHealth.OK
    try:
        channel.probe(settings)
    except Conflict:
        raise
    except NexusError as error:
        refused = isinstance(error, HostRefused | PermissionDenied)
        health = AccountHealth.REFUSED if refused else AccountHealth.UNREACHABLE
        code, said = error.code, unspoken(error.message[:200], secrets)
    except Exception as error:  # isolation boundary: a plugin's fault is this look's answer
        log.exception("plugin_failed", channel=channel.name)
        health, code = AccountHealth.UNKNOWN, type(error).__name__
    ok = health is AccountHealth.OK
    return Tried(ok, "reached" if ok else str(health), code, said, time.monotonic() - begun, health)


def _content(channel: Channel, settings: Mapping[str, Any]) -> Content:
    kind = channel.capabilities.address_kind
    text = {"text": _TEXT if kind is not AddressKind.NONE else _JSON}
    parts = {"subject": _SUBJECT, **text} if kind is AddressKind.EMAIL else text
    public = {name: value for name, value in settings.items() if name not in channel.capabilities.secret_settings}
    sender = {name: str(value) for name, value in public.items()}
    return Content(parse_message(parts, {}, channel.capabilities.template_type), sender, "", bulk=False)


def _submission(settings: Mapping[str, Any], to: str, clock: Clock) -> Submission:
    domain = str(settings.get("from_email") or "@localhost").rpartition("@")[2]
    values = {"to_name": "", "unsubscribe": "", "date": date_value(clock.now())}
    return Submission(0, to, f"<test.{uuid4().hex}@{domain}>", values)


def _outcome(channel: Channel, settings: Mapping[str, Any], content: Content, submission: Submission) -> Outcome:
    until = time.monotonic() + _LONGEST_SECONDS
    with closing(channel.open(settings, content)) as session:
        for outcome in session.submit([submission], _NoJournal()):
            if outcome is not None:
                return outcome
            if time.monotonic() > until:
                break
        session.withdraw()
    return Outcome(0, OutcomeKind.UNKNOWN, "", f"no answer within {_LONGEST_SECONDS:.0f} seconds")


def _part(channel: Channel) -> None:
    """Whoever asked is no worker: connections do not outlive the question."""
    close_thread = getattr(channel, "close_thread", None)
    if close_thread is not None:
        close_thread()
