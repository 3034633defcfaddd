"""The e-mail channel: template versions compiled to byte skeletons, sent over pipelined SMTP.

Everything happens in the calling thread: rendering a few messages, writing, reading replies, in turn,
so that no second thread fights for the interpreter. The pool of connections belongs to the thread and
outlives a session, because many small sends in a row go through the same relay.
"""

import atexit
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pyramid.config import Configurator

from nexus_marketing.builtins.hooks.postmark import METADATA_HEADER
from nexus_marketing.builtins.hooks.reading import ProviderHook
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import (
    AddressKind,
    Capabilities,
    Content,
    Journal,
    Outcome,
    OutcomeKind,
    ProviderEvent,
    Rendered,
    Submission,
)
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.errors import ConfigurationError, ValidationError
from nexus_marketing.core.messages import Link, OpenPixel, Piece, Place, Variable, value_key
from nexus_marketing.plugin.manifests import API_VERSION, Capability, Manifest
from nexus_marketing.settings import EmailHookSettings, Settings, SmtpSettings
from nexus_marketing.smtp.accounts import (
    DESTINATIONS,
    IDENTITY,
    SCHEMA,
    SECRETS,
    TLS,
    Dials,
    NoServers,
    account_problems,
    probe,
    server_of,
    signer_of,
)
from nexus_marketing.smtp.addresses import ascii_address
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import Envelope, Pool, PoolSettings, Reply, ReplyKind
from nexus_marketing.smtp.dkim import Signer
from nexus_marketing.smtp.headers import date_value
from nexus_marketing.smtp.parts import AddressHeader, Context, Header, Slot
from nexus_marketing.smtp.skeleton import Personal, Skeleton, compile_message
from nexus_marketing.version import __version__

_CONTEXTS = {
    Place.TEXT: Context.TEXT,
    Place.HTML: Context.HTML,
    Place.URL_PART: Context.URL_PART,
    Place.URL: Context.URL,
    Place.HEADER: Context.HEADER,
}
#: How many messages are rendered between two looks at the sockets.
_SLICE = 8
#: So many finished messages wait for a connection, for each of them: what is written soon after it was rendered is
#: still in the processor's cache.
_AHEAD = 2
_IDLE_SECONDS = 1.0
#: Servers to which a thread keeps connections: those of accounts that it sends by in turn.
_MOST_POOLS = 8
ALLOW_SETTING = "nexus.smtp.allow_hosts"
#: Relay, submission with TLS, submission, and the one that providers offer where 25 is closed.
PORTS = (25, 465, 587, 2525)


def includeme(config: Configurator) -> None:
    """The channel over the relay of ``nexus.smtp.*``, or over a catcher of its own where ``nexus.catcher_dir`` is set."""
    runtime = config.registry["nexus.runtime"]
    kinds = frozenset({Capability.CHANNEL})
    config.add_marketing_plugin(Manifest("email", __version__, API_VERSION, kinds, settings=SCHEMA))
    hooks = hooks_of(runtime.settings, runtime.clock)
    from nexus_marketing.plugin.sockets import Dialer  # noqa: PLC0415 - what is not the channel's own

    dialer = Dialer(ALLOW_SETTING, runtime.settings.smtp.allow_hosts, PORTS)
    config.add_marketing_channel(EmailChannel(relay_of(runtime.settings), runtime.clock, hooks, dialer))


def hooks_of(settings: Settings, clock: Clock) -> Mapping[str, ProviderHook]:
    """The providers of ``nexus.email.hooks.*`` that report back."""
    if settings.email_hooks == EmailHookSettings():
        return {}
    from nexus_marketing.builtins.hooks.building import email_hooks  # noqa: PLC0415 - loads cryptography and HTTP

    return email_hooks(settings, clock)


def relay_of(settings: Settings) -> PoolSettings:
    """How the relay of an installation is reached; starts the catcher where there is to be one."""
    smtp = settings.smtp
    if settings.catcher_dir is not None:
        catcher = Catcher(settings.catcher_dir).start()
        atexit.register(catcher.stop)
        smtp = SmtpSettings(host=catcher.settings.host, port=catcher.port, connections=smtp.connections)
    if smtp.security not in TLS:
        raise ConfigurationError(f"nexus.smtp.security: {smtp.security!r} is none of {', '.join(TLS)}.")
    return PoolSettings(
        host=smtp.host,
        port=smtp.port,
        connections=smtp.connections,
        tls=TLS[smtp.security],
        username=smtp.username,
        password=smtp.password,
        reply_timeout_seconds=smtp.timeout_seconds,
        local_hostname=smtp.local_hostname,
    )


class EmailChannel:
    """Reaches people by e-mail, through the installation's relay or the server of an account.

    Args:
        relay: of accounts that have no server of their own.
        hooks: the providers that report back, by the last part of their addresses.
        dialer: connects to servers that tenants name; without it accounts have none.
    """

    name = "email"

    def __init__(
        self,
        relay: PoolSettings,
        clock: Clock,
        hooks: Mapping[str, ProviderHook] = {},
        dialer: Dials | None = None,
    ) -> None:
        self._relay = relay
        self._clock = clock
        self._hooks = hooks
        self._dialer = dialer or NoServers()
        #: Postmark keeps no Message-ID: it tells back what a header of its own says.
        self._is_traced = "postmark" in hooks
        self._pools = Pools()
        self.capabilities = Capabilities(
            address_kind=AddressKind.EMAIL,
            max_in_flight=relay.connections,
            secret_settings=SECRETS,
            secret_destinations=DESTINATIONS,
            identity_settings=IDENTITY,
            hears_for_all=True,
        )

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check an account's settings: who mail is from, a server of its own, and who signs.

        Raises:
            ValidationError: names each one that is missing, unknown or wrong.
        """
        problems = account_problems(settings, self._dialer)
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> "EmailSession":
        """Compile the content; connections are opened with the first message.

        Raises:
            ValidationError: the account cannot sign with what it is set to.
        """
        skeleton = compile_content(content, is_traced=self._is_traced)
        server = server_of(settings, self._relay, self._dialer)
        way = Way(partial(self._pools.of, server), server.connections, signer_of(settings))
        return EmailSession(way, skeleton, content, self._clock, is_traced=self._is_traced)

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Connect to the account's server and log in.

        Raises:
            Unavailable: it cannot be reached now.
            PermissionDenied: it refuses these settings, or we refuse the server.
        """
        probe(server_of(settings, self._relay, self._dialer))

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The whole message, headers and all.

        Raises:
            ValidationError: it never could be made.
        """
        del settings
        skeleton = compile_content(content, is_traced=self._is_traced)
        (found,) = _personal(skeleton, [submission], [_to(submission)], self._clock, is_traced=self._is_traced)
        if isinstance(found, ValidationError):
            raise found
        return Rendered("message/rfc822", skeleton.joined(found))

    def verify(self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this comes from the provider whose address was asked, if that one is set up."""
        del settings  # keys are the installation's, as the relay is
        hook = self._hooks.get(headers[":provider"])
        return hook is not None and hook.verify(headers, body)

    def parse_events(
        self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Sequence[ProviderEvent]:
        """What it says of messages."""
        del settings
        return self._hooks[headers[":provider"]].parse_events(headers, body)

    def close_thread(self) -> None:
        """Let go of this thread's connections."""
        self._pools.close_thread()


class Pools(threading.local):
    """A thread's connections, by server. Those that were used last stay."""

    def __init__(self) -> None:
        self._kept: OrderedDict[PoolSettings, Pool] = OrderedDict()

    def of(self, server: PoolSettings) -> Pool:
        """The pool of a server."""
        pool = self._kept.get(server)
        if pool is None:
            pool = self._kept[server] = Pool(server)
            for other in list(self._kept)[: len(self._kept) - _MOST_POOLS]:
                if not self._kept[other].outstanding:
                    self._kept.pop(other).close()
        self._kept.move_to_end(server)
        return pool

    def close_thread(self) -> None:
        """Let go of all of them."""
        while self._kept:
            self._kept.popitem()[1].close()


class Way(NamedTuple):
    """How a session's messages leave: by which connections, how many there are, and who signs."""

    pool: Callable[[], Pool]
    connections: int
    signer: Signer | None = None


#: One message before it is joined: for whom, the mailbox, and what is personal or why there is nothing.
_Made = tuple[Submission, str, Personal | ValidationError]


class _Batch:
    """What of one ``submit`` is not rendered yet, and the answers that are known."""

    __slots__ = ("answers", "journal", "rest")

    def __init__(self, made: Iterable[_Made], journal: Journal) -> None:
        self.rest = deque(made)
        self.journal = journal
        self.answers: deque[Outcome] = deque()

    def on_reply(self, ref: int, number: int) -> None:
        """Tell the journal."""
        self.journal.on_outcome(ref, _KINDS[number])


class EmailSession:
    """One send's content over this thread's connections."""

    def __init__(
        self, way: Way, skeleton: Skeleton, content: Content, clock: Clock, *, is_traced: bool = False
    ) -> None:
        self._way = way
        self._pool = way.pool()
        self._skeleton = skeleton
        self._clock = clock
        self._is_traced = is_traced
        self._ahead = _AHEAD * way.connections
        self._open: deque[_Batch] = deque()
        self._from = content.sender["from_email"]
        self._bounce_domain = content.sender.get("bounce_domain") or ""
        self._batches: dict[int, deque[Outcome]] = {}

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Render and hand over, a few at a time, looking after the sockets in between."""
        if not self._batches and not self._open:
            self._pool = self._way.pool()  # connections that nobody used for long were given up
        to = [*map(_to, batch)]
        personal = _personal(self._skeleton, batch, to, self._clock, is_traced=self._is_traced)
        opened = _Batch(zip(batch, to, personal, strict=True), journal)
        self._open.append(opened)
        self._render()
        return self._outcomes(opened.answers, len(batch))

    def withdraw(self) -> None:
        """Take back what no connection has begun; each gets its ``not_sent``."""
        self._pool.withdraw()
        for batch in self._open:
            batch.answers += [Outcome(each.ref, OutcomeKind.NOT_SENT) for each, *_ in batch.rest]
        self._open.clear()

    def close(self) -> None:
        """Nothing to let go of: the pool is the thread's."""

    def _outcomes(self, answers: deque[Outcome], expected: int) -> Iterator[Outcome | None]:
        while expected:
            if not answers:
                self._distribute(self._pool.poll(_IDLE_SECONDS))
                self._render()
            if not answers:
                yield None
                continue
            expected -= 1
            yield answers.popleft()

    def _render(self) -> None:
        """Finish messages until enough of them wait for a connection.

        Without any connection all of them wait in the pool, so that it can answer for all of them alike.
        """
        pool = self._pool
        while self._open and (pool.queued < self._ahead or not pool.is_connected):
            batch = self._open[0]
            envelopes = []
            for _ in range(min(_SLICE, len(batch.rest))):
                envelope = self._envelope(*batch.rest.popleft())
                if isinstance(envelope, Outcome):
                    batch.answers.append(envelope)
                else:
                    self._batches[envelope.ref] = batch.answers
                    envelopes.append(envelope)
            if not batch.rest:
                self._open.popleft()
            pool.submit(envelopes, on_wire=batch.journal.on_wire, on_reply=batch.on_reply)
            self._distribute(pool.poll(0.0))

    def _distribute(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            answers = self._batches.pop(reply.ref, None)
            if answers is not None:
                answers.append(_outcome(reply))

    def _envelope(self, submission: Submission, to: str, personal: Personal | ValidationError) -> Envelope | Outcome:
        if isinstance(personal, ValidationError):
            return Outcome(submission.ref, OutcomeKind.REFUSED, _skip_reason(personal), personal.message[:200])
        data = self._skeleton.joined(personal)
        if self._way.signer is not None:
            data = self._way.signer.signed(data)
        return Envelope(submission.ref, self._return_path(submission), to, data, finished=True)

    def _return_path(self, submission: Submission) -> str:
        """A sender address of its own per ledger row where bounces have a domain (VERP), else From."""
        if not self._bounce_domain:
            return self._from
        return f"bounce-{_trace(submission.message_id)}@{self._bounce_domain}"


_KINDS = {kind.number: OutcomeKind(kind.value) for kind in ReplyKind}


def _to(submission: Submission) -> str:
    """The mailbox as servers take it; what is none stays, and the header that it stands in refuses it."""
    try:
        return ascii_address(submission.address)
    except ValidationError:
        return submission.address


def _personal(
    skeleton: Skeleton, batch: Sequence[Submission], to: Sequence[str], clock: Clock, *, is_traced: bool
) -> list[Personal | ValidationError]:
    """What fills the gaps of messages: their own values, and those of their envelopes."""
    date, rows = date_value(clock.now()), [each.values for each in batch]
    ids = [each.message_id for each in batch]
    beside = {"to": to, "message_id": ids, "date": [values.get("date", date) for values in rows]}
    if is_traced:
        beside["trace"] = [*map(_trace, ids)]
    return skeleton.personal(rows, beside)


def _trace(message_id: str) -> str:
    """What tells a message from all others, without the domain: metadata has little room."""
    return message_id[1:].partition("@")[0]


def _skip_reason(error: ValidationError) -> str:
    codes = {problem.code for problem in error.problems}
    if "unsupported_address" in codes:
        return SkipReason.UNSUPPORTED_ADDRESS
    return SkipReason.MISSING_VARIABLE if "missing_variable" in codes else SkipReason.RENDER_ERROR


def _outcome(reply: Reply) -> Outcome:
    ref, kind, code, enhanced, text = reply
    answer = f"{code} {enhanced}" if enhanced else str(code or "")
    return Outcome(ref, _KINDS[kind.number], answer, text[:200])


def compile_content(content: Content, *, is_traced: bool = False) -> Skeleton:
    """The byte skeleton of a template version with its headers (RFC 5322, RFC 8058).

    Raises:
        ValidationError: what the header encoder refuses, for instance a line break in the sender's name.
    """
    parts = content.message.parts
    return compile_message(
        _headers(content, is_traced=is_traced),
        text=_pieces(parts["text"]) if "text" in parts else None,
        html=_pieces(parts["html"]) if "html" in parts else None,
    )


def _headers(content: Content, *, is_traced: bool) -> list[Header | AddressHeader]:
    sender = content.sender
    headers: list[Header | AddressHeader] = [
        Header("Date", [Slot("date", Context.HEADER)], structured=True),
        AddressHeader("From", [sender.get("from_name") or ""], [sender["from_email"]]),
        AddressHeader("To", [Slot("to_name", Context.HEADER)], [Slot("to", Context.HEADER)]),
        Header("Message-ID", [Slot("message_id", Context.HEADER)], structured=True),
        Header("Subject", _pieces(content.message.parts["subject"])),
    ]
    if sender.get("reply_to"):
        headers.append(AddressHeader("Reply-To", [""], [sender["reply_to"]]))
    if is_traced:
        headers.append(Header(METADATA_HEADER, [Slot("trace", Context.HEADER)], structured=True))
    if content.bulk:
        headers += [
            Header("List-ID", [content.list_id], structured=True),
            Header("List-Unsubscribe", ["<", Slot("unsubscribe", Context.HEADER), ">"], structured=True),
            Header("List-Unsubscribe-Post", ["List-Unsubscribe=One-Click"], structured=True),
        ]
    return headers


def _pieces(pieces: Sequence[Piece]) -> list[str | Slot]:
    return [piece if isinstance(piece, str) else Slot(value_key(piece), _context(piece)) for piece in pieces]


def _context(piece: Variable | Link | OpenPixel) -> Context:
    # Tokens are made of unreserved characters, in text and HTML alike.
    if not isinstance(piece, Variable) or piece.path == "unsubscribe_url":
        return Context.URL_PART
    return _CONTEXTS[piece.place]
