"""From a ledger row and its lead to the values that a channel fills into the message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import Content, Submission
from nexus_marketing.core.messages import (
    PRODUCT_NAMES,
    Link,
    Message,
    OpenPixel,
    Variable,
    parse_message,
    resolve,
    value_key,
    with_url_prefixes,
)
from nexus_marketing.core.tracking import TokenKind, TokenUse
from nexus_marketing.db.models import Send, TemplateVersion
from nexus_marketing.db.queries.deliveries import LEAD_COLUMNS
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


def load_content(session: Session, send: Send) -> SendContent:
    """Read the template version and sender that a send pinned."""
    version = session.scalars(
        select(TemplateVersion).where(
            TemplateVersion.template_id == send.template_id, TemplateVersion.number == send.template_version
        )
    ).one()
    return SendContent(
        send.tenant_id,
        send.id,
        MessageClass(send.message_class),
        send.channel,
        parse_message(version.content, version.variables),
        version.variables,
        send.sender,
        send.campaign_id,
        send.created_at,
    )


class Composer:
    """Composes the submissions of one send; the inner loop of rendering, so everything is prepared once."""

    def __init__(self, runtime: Runtime, content: SendContent) -> None:
        self._sign = runtime.keys.tokens.sign_all
        self._ids = (content.tenant_id, content.send_id)
        links = range(len(content.message.links))
        # The unsubscribe token comes first: it fills more than one gap.
        self._keys = [value_key(OpenPixel()), *(value_key(Link(number)) for number in links)]
        self._uses = (
            TokenUse.of(TokenKind.UNSUBSCRIBE),
            TokenUse.of(TokenKind.OPEN),
            *(TokenUse.of(TokenKind.CLICK, number) for number in links),
        )
        self._unsubscribe_url = runtime.settings.public_url + _PATHS[TokenKind.UNSUBSCRIBE]
        self._declared = content.declared
        self._variables = [
            (value_key(variable), _finder(variable.path), variable) for variable in _own(content.message)
        ]
        self._fixed = {value_key(variable): _product_value(variable, content) for variable in _fixed(content.message)}
        self._unsubscribe = sorted(
            {
                value_key(Variable(variable.path, variable.place))
                for variable in content.message.variables
                if variable.path == "unsubscribe_url"
            }
        )
        self._domain = str(content.sender.get("from_email", "@localhost")).rpartition("@")[2]
        self.columns = _columns(content.message)

    def compose(self, row: Row[Any], ref: int) -> Submission | str:
        """The submission for a recipient, or the name of a required variable that is missing."""
        tenant_id, send_id = self._ids
        seq, lead_id = row.seq, row.lead_id
        values = dict(self._fixed)
        for key, find, variable in self._variables:
            text = resolve(variable, find(row), self._declared)
            if text is None:
                return variable.path
            values[key] = text
        token, *tokens = self._sign(self._uses, tenant_id, send_id, seq, lead_id)
        values.update(zip(self._keys, tokens, strict=True))
        values["unsubscribe"] = self._unsubscribe_url + token
        for key in self._unsubscribe:
            values[key] = token
        values["to_name"] = row.name or ""
        return Submission(ref, row.email, f"<r{seq}.s{send_id}.t{tenant_id}@{self._domain}>", values)


def _finder(path: str) -> Callable[[Row[Any]], Any]:
    scope, _, key = path.partition(".")
    if scope == "metadata" or scope not in LEAD_COLUMNS.keys() | {"email", "country"}:
        name = key or scope
        return lambda row: _document(row.metadata).get(name)
    return attrgetter(scope)


def _document(value: Any) -> Mapping[str, Any]:
    """Hand-written SQL gets JSON as text on SQLite."""
    if isinstance(value, str):
        value = orjson.loads(value)
    return value or {}


def _own(message: Message) -> list[Variable]:
    return sorted((v for v in message.variables if v.path not in PRODUCT_NAMES), key=value_key)


def _fixed(message: Message) -> list[Variable]:
    return [v for v in message.variables if v.path in PRODUCT_NAMES and v.path != "unsubscribe_url"]


def _product_value(variable: Variable, content: SendContent) -> str:
    source = {"sender_name": "from_name"}.get(variable.path, variable.path)
    return resolve(variable, content.sender.get(source), content.declared) or ""


def _columns(message: Message) -> tuple[str, ...]:
    needed = {"name"}
    for variable in _own(message):
        scope = variable.path.partition(".")[0]
        if scope in LEAD_COLUMNS:
            needed.add(scope)
        elif scope not in ("email", "country"):
            needed.add("metadata")
    return tuple(name for name in LEAD_COLUMNS if name in needed)


_PATHS = {TokenKind.OPEN: "/t/o/", TokenKind.CLICK: "/t/c/", TokenKind.UNSUBSCRIBE: "/u/"}
