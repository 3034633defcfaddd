"""From a ledger row and its lead to the values that a channel fills into the message."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from itertools import repeat
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import AddressKind, Content, Submission
from nexus_marketing.core.messages import (
    EMAIL,
    PRODUCT_NAMES,
    TEXT,
    Link,
    Message,
    OpenPixel,
    Variable,
    resolve,
    untracked,
    value_key,
    with_url_prefixes,
)
from nexus_marketing.core.pacing.breaker import MAX_BOUNCED
from nexus_marketing.core.pacing.frequency import DEFAULT_PRIORITY, Rank
from nexus_marketing.core.templates import parse_message
from nexus_marketing.core.tracking import TokenKind, TokenUse
from nexus_marketing.core.values import parse_local_time
from nexus_marketing.db.models import Send, TemplateVersion, Tenant
from nexus_marketing.db.queries.deliveries import LEAD_COLUMNS, Recipient
from nexus_marketing.db.types import read_json
from nexus_marketing.runtime import Runtime


@dataclass(frozen=True, slots=True)
class SendContent:
    """What a send needs to compose messages: pinned when it was planned, loaded once per worker."""

    tenant_id: int
    send_id: int
    message_class: MessageClass
    channel: str
    message: Message
    declared: Mapping[str, Any]
    sender: Mapping[str, Any]
    campaign_id: int
    launched_at: datetime
    priority: int = DEFAULT_PRIORITY
    obeys_caps: bool = True
    max_bounced: float = MAX_BOUNCED
    local_start: datetime | None = None
    address_kind: AddressKind = AddressKind.EMAIL
    #: What it shares with the other channels of its launch.
    launch_id: int = 0
    #: Of a journey's message beside the tenant's; whether it keeps any, where its class does not say so.
    quiet_hours: Sequence[Mapping[str, Any]] = ()
    obeys_quiet_hours: bool | None = None
    is_of_journey: bool = False

    @property
    def keeps_quiet(self) -> bool:
        """Whether quiet hours hold it."""
        said = self.obeys_quiet_hours
        return self.message_class is MessageClass.MARKETING if said is None else said

    @property
    def needs_address(self) -> bool:
        """Whether nobody is reached who has no address of this kind."""
        return self.address_kind in (AddressKind.EMAIL, AddressKind.PHONE)

    @property
    def rank(self) -> Rank:
        """Who goes first where another send is due for the same lead."""
        return Rank(self.priority, self.send_id)

    def content(self, public_url: str) -> Content:
        """What the channel compiles: our URLs up to their tokens are part of the text."""
        message = with_url_prefixes(
            self.message,
            click=public_url + _PATHS[TokenKind.CLICK],
            pixel=public_url + _PATHS[TokenKind.OPEN],
            unsubscribe=public_url + _PATHS[TokenKind.UNSUBSCRIBE],
        )
        sender = {name: str(value) for name, value in self.sender.items()}
        domain = sender.get("from_email", "@localhost").rpartition("@")[2]
        bulk = self.message_class == MessageClass.MARKETING
        return Content(message, sender, f"<c{self.campaign_id}.t{self.tenant_id}.{domain}>", bulk)


def end_of_message_ids(tenant_id: int, send_id: int, sender: Mapping[str, Any]) -> str:
    """What the Message-IDs of a send end in, behind ``<r`` and the recipient's number."""
    domain = str(sender.get("from_email", "@localhost")).rpartition("@")[2]
    return f".s{send_id}.t{tenant_id}@{domain}>"


def load_content(session: Session, send: Send, kind: AddressKind) -> SendContent:
    """Read the template version and sender that a send pinned."""
    version = session.scalars(
        select(TemplateVersion).where(
            TemplateVersion.template_id == send.template_id, TemplateVersion.number == send.template_version
        )
    ).one()
    settings = session.scalar(select(Tenant.settings).where(Tenant.id == send.tenant_id)) or {}
    message = parse_message(version.content, version.variables, EMAIL if kind is AddressKind.EMAIL else TEXT)
    return SendContent(
        send.tenant_id,
        send.id,
        MessageClass(send.message_class),
        send.channel,
        untracked(message) if kind is AddressKind.AUDIENCE else message,
        version.variables,
        send.sender,
        send.campaign_id,
        send.created_at,
        send.priority,
        send.obeys_caps,
        settings.get("max_bounced", MAX_BOUNCED),
        None if send.local_start is None else parse_local_time(send.local_start),
        kind,
        send.launch_id or send.id,
        send.quiet_hours or (),
        send.obeys_quiet_hours,
        send.journey_id is not None,
    )


class Composer:
    """Composes the submissions of one send; the inner loop of rendering, so everything is prepared once.

    With ``public_url`` and ``key`` those of an earlier time, to make its messages again; ``at`` is when messages are
    composed, set by whoever asks for them.
    """

    def __init__(self, runtime: Runtime, content: SendContent, *, public_url: str = "", key: str = "") -> None:
        self.public_url = public_url or runtime.settings.public_url
        self.key = key or runtime.keys.tokens.key
        self._at = runtime.clock.now()
        self._date = format_datetime(self._at)
        self._ids = (content.tenant_id, content.send_id)
        links = range(len(content.message.links))
        # The unsubscribe token comes first and is none of these: it fills more than one gap.
        of_tokens = [value_key(OpenPixel()), *(value_key(Link(number)) for number in links)]
        uses = [TokenUse.of(TokenKind.UNSUBSCRIBE), TokenUse.of(TokenKind.OPEN)]
        uses += [TokenUse.of(TokenKind.CLICK, number) for number in links]
        self._tokens = runtime.keys.tokens.signing(uses, self.key).tokens
        self._unsubscribe_url = self.public_url + _PATHS[TokenKind.UNSUBSCRIBE]
        self._declared = content.declared
        self.columns = _columns(content.message)
        self._name = self.columns.index("name")
        # Values of the lead stand in the order of the columns, values of its document behind them.
        self._document = self.columns.index("metadata") if "metadata" in self.columns else None
        self._document_names = sorted(
            {_document_name(variable) for variable in _own(content.message) if _column(variable) == "metadata"}
        )
        own = _own(content.message)
        self._variables = [(self._place(variable), variable) for variable in own]
        fixed = {value_key(variable): _product_value(variable, content) for variable in _fixed(content.message)}
        self._fixed = tuple(fixed.values())
        out = {
            value_key(Variable(variable.path, variable.place))
            for variable in content.message.variables
            if variable.path == "unsubscribe_url"
        }
        self._outs = len(out)
        self._keys = [*map(value_key, own), "unsubscribe", *of_tokens, *out, "to_name", "date", *fixed]
        self._message_id = end_of_message_ids(content.tenant_id, content.send_id, content.sender)

    def compose(self, rows: Sequence[Recipient], refs: Iterable[int]) -> list[Submission | str]:
        """The submissions of recipients; for whom a required variable is missing, the name of it.

        Values are looked at variable by variable, for many recipients at once.
        """
        if not rows:
            return []
        columns = self._columns([row.lead for row in rows])
        missing: dict[int, str] = {}
        texts = [self._texts(variable, columns[place], missing) for place, variable in self._variables]
        out, *tokens = self._tokens(*self._ids, [(row.seq, row.lead_id) for row in rows])
        urls = [self._unsubscribe_url + token for token in out]
        names = [name or "" for name in columns[self._name]]
        same = [repeat(text, len(rows)) for text in (self._date, *self._fixed)]
        values = zip(*texts, urls, *tokens, *[out] * self._outs, names, *same, strict=True)
        keys, end = self._keys, self._message_id
        found: list[Submission | str] = [
            Submission(ref, row.address or "", f"<r{row.seq}{end}", dict(zip(keys, own, strict=True)))
            for ref, row, own in zip(refs, rows, values, strict=True)
        ]
        for place, path in missing.items():
            found[place] = path
        return found

    def _columns(self, leads: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """The values of each column of the leads, then those of each name in their documents."""
        columns: list[Sequence[Any]] = [*zip(*leads, strict=True)]
        if self._document is not None:
            documents = [*map(_document, columns[self._document])]
            columns += [[document.get(name) for document in documents] for name in self._document_names]
        return columns

    def _texts(self, variable: Variable, column: Sequence[Any], missing: dict[int, str]) -> Sequence[str]:
        """What a variable becomes for each; ``missing`` gets, by place, who has no value and needs one."""
        if not variable.filters:
            # Nearly every value is a text that needs nothing: one look at all of them. A blank one leaves nothing,
            # a number or nothing at all is no text.
            with suppress(TypeError):
                if all(map(str.strip, column)):
                    return column
        texts = []
        for place, value in enumerate(column):
            text = resolve(variable, value, self._declared)
            if text is None:
                missing.setdefault(place, variable.path)
            texts.append(text or "")
        return texts

    @property
    def at(self) -> datetime:
        """When the messages are composed."""
        return self._at

    @at.setter
    def at(self, moment: datetime) -> None:
        self._at, self._date = moment, format_datetime(moment)

    def used(self, lead: Sequence[Any]) -> list[Any]:
        """A lead's columns, and of its document what the message names: all that makes the message again."""
        found = list(lead)
        if self._document is not None:
            document = _document(found[self._document])
            found[self._document] = {name: document[name] for name in self._document_names if name in document}
        return found

    def _place(self, variable: Variable) -> int:
        column = _column(variable)
        if column == "metadata":
            return len(self.columns) + self._document_names.index(_document_name(variable))
        return self.columns.index(column)


def _column(variable: Variable) -> str:
    """Where a variable's value comes from; what a lead has no column for lies in its document."""
    scope = variable.path.partition(".")[0]
    return scope if scope in LEAD_COLUMNS else "metadata"


def _document_name(variable: Variable) -> str:
    scope, _, key = variable.path.partition(".")
    return key or scope


def _document(value: Any) -> Mapping[str, Any]:
    return read_json(value) or {}


def _own(message: Message) -> list[Variable]:
    return sorted((v for v in message.variables if v.path not in PRODUCT_NAMES), key=value_key)


def _fixed(message: Message) -> list[Variable]:
    return [v for v in message.variables if v.path in PRODUCT_NAMES and v.path != "unsubscribe_url"]


def _product_value(variable: Variable, content: SendContent) -> str:
    source = {"sender_name": "from_name"}.get(variable.path, variable.path)
    return resolve(variable, content.sender.get(source), content.declared) or ""


def _columns(message: Message) -> tuple[str, ...]:
    needed = {"name", *map(_column, _own(message))}
    return tuple(name for name in LEAD_COLUMNS if name in needed)


_PATHS = {TokenKind.OPEN: "/t/o/", TokenKind.CLICK: "/t/c/", TokenKind.UNSUBSCRIBE: "/u/"}
