"""Text messages by SMPP 3.4, to the short message centre of an account."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from random import randrange
from typing import Any

from nexus_marketing.builtins.channels.smpp_accounts import SmppAccount, account_problems, read_account
from nexus_marketing.builtins.channels.smpp_binds import BindLine, Binds
from nexus_marketing.builtins.channels.sms_texts import text_of, unfit
from nexus_marketing.core.contracts import IN_USE, Content, Hear, Journal, Outcome, OutcomeKind, Submission
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.errors import HostRefused, PermissionDenied, Unavailable, ValidationError
from nexus_marketing.core.messages import Piece
from nexus_marketing.plugin.http_sessions import outcomes_of
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.smpp.alphabet import coding_of, encoded, segments
from nexus_marketing.smpp.bind import Bind
from nexus_marketing.smpp.jobs import Answer, Job
from nexus_marketing.smpp.opening import NotBound, Wire, open_bind
from nexus_marketing.smpp.pdus import Command, packed, submit_request


@dataclass(frozen=True, slots=True)
class SmppLimits:
    """The operator's: who messages come from where an account says nothing, and what an account may have at most."""

    sender: str = ""
    max_segments: int = 10
    window: int = 10


class SmppWay:
    """How accounts of the SMS channel with the provider ``smpp`` send, hear and are looked at.

    Args:
        limits: of all accounts.
        dialer: connects to servers that tenants name.
        wire: how long is waited, and by which certificates; it is given ``dialer``.
    """

    def __init__(self, limits: SmppLimits, dialer: Dialer, wire: Wire | None = None) -> None:
        self.limits = limits
        self._dialer = dialer
        self._wire = wire or Wire(dialer.connect)
        self._binds = Binds(lambda settings: Bind(settings, self._wire))
        #: References of long messages: those that run at the same time differ.
        self._references = count(randrange(256))  # noqa: S311 - tells apart, guards nothing

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check an account.

        Raises:
            ValidationError: names each setting that is missing, unknown or wrong.
        """
        problems = account_problems(settings, self._dialer, self.limits.sender)
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> "SmppSession":
        """Prepare to send; the bind is made with the first message.

        Raises:
            ValidationError: as :meth:`validate`.
        """
        account = self._account(settings)
        parts = SmppParts(account, content.message.parts["text"], self.limits.max_segments, self._references)
        return SmppSession(self._binds, parts)

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Bind, and part. That all binds are taken is an answer too: they are known.

        Raises:
            Unavailable: it cannot be reached now.
            HostRefused: it is no address that we connect to.
            PermissionDenied: the centre refuses the bind.
        """
        try:
            opened = open_bind(self._account(settings).sends_by, self._wire)
        except NotBound as error:
            if error.code == IN_USE:
                return
            if error.code == HostRefused.code:
                raise HostRefused(str(error)) from error
            refused = error.kind is OutcomeKind.PERMANENT_SENDER
            raise (PermissionDenied if refused else Unavailable)(f"{error}.") from error
        with opened.sock:
            opened.sock.setblocking(True)
            opened.sock.settimeout(1.0)
            try:
                opened.sock.sendall(packed(Command.UNBIND, 2))
                opened.sock.recv(4096)
            except OSError:
                pass  # it knows that we go

    def listen(self, settings: Mapping[str, Any], hear: Hear) -> BindLine | None:
        """Keep a bind open for receipts and messages from people; nothing where the account sends alone.

        Raises:
            ValidationError: as :meth:`validate`.
        """
        account = self._account(settings)
        return None if account.listens_by is None else self._binds.line(account.listens_by, hear)

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._binds.close_thread()

    def _account(self, settings: Mapping[str, Any]) -> SmppAccount:
        self.validate(settings)
        return read_account(settings, self.limits.sender, self.limits.window)


@dataclass(frozen=True, slots=True)
class SmppParts:
    """One content, as ``submit_sm``."""

    account: SmppAccount
    pieces: Sequence[Piece]
    max_segments: int
    references: Iterator[int]

    def of(self, submission: Submission) -> list[bytes] | Outcome:
        """The PDUs of a message, or why there are none.

        Raises:
            ValidationError: a value cannot be part of it.
        """
        text = text_of(self.pieces, submission)
        refused = unfit(submission, text, self.max_segments)
        if refused is not None:
            return refused
        to, coding, sending = submission.address.removeprefix("+"), coding_of(text), self.account.sending
        if self.account.is_payload:
            return [submit_request(sending, to, encoded(text, coding), coding)]
        octets = segments(text, next(self.references) & 0xFF)
        last = len(octets) - 1
        return [
            submit_request(sending, to, each, coding, is_part=last > 0, is_last=number == last)
            for number, each in enumerate(octets)
        ]


class SmppSession:
    """One send's content over the bind of an account, which outlives it."""

    def __init__(self, binds: Binds, parts: SmppParts) -> None:
        self._binds = binds
        self._parts = parts

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Queue messages at the bind, which sends as many at once as its window has room for."""
        answers: SimpleQueue[Outcome] = SimpleQueue()
        jobs = []
        for submission in batch:
            found = self._made(submission)
            if isinstance(found, Outcome):
                answers.put(found)
            else:
                jobs.append(self._job(submission.ref, found, journal, answers))
        if jobs:
            self._binds.of_thread(self._parts.account.sends_by).submit(jobs)
        return outcomes_of(answers, len(batch))

    def withdraw(self) -> None:
        """Take back what has not begun; each gets its ``not_sent``."""
        self._binds.withdraw(self._parts.account.sends_by, self)

    def close(self) -> None:
        """What has not begun is withdrawn; the bind is the process's."""
        self.withdraw()

    def _made(self, submission: Submission) -> list[bytes] | Outcome:
        try:
            return self._parts.of(submission)
        except ValidationError as error:
            return Outcome(submission.ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, error.message[:200])

    def _job(self, ref: int, parts: list[bytes], journal: Journal, answers: SimpleQueue[Outcome]) -> Job:
        def end(answer: Answer) -> None:
            if job.has_begun:
                journal.on_outcome(ref, answer.kind)
            answers.put(Outcome(ref, *answer))

        job = Job(parts, self, lambda: journal.on_wire(ref), end)
        return job
