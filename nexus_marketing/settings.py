"""The settings of one process, parsed once from the ini file; nothing else reads it.

Every key is described where it is declared; ``Settings.parse`` reports all faults at once.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nexus_marketing.core.errors import ConfigurationError

PREFIX = "nexus."


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """The relay that mail leaves through."""

    host: str = "127.0.0.1"
    port: int = 25
    #: ``none``, ``starttls`` (required), ``opportunistic`` or ``tls``.
    security: str = "none"
    username: str = ""
    password: str = field(default="", repr=False)
    connections: int = 8
    timeout_seconds: float = 30.0
    #: The name we say in EHLO; empty: this machine's.
    local_hostname: str = ""
    #: Servers of tenants' own accounts (``host`` or ``host:port``) that may lie at private addresses, or at other ports.
    allow_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmailHookSettings:
    """Providers of mail that report back; one without its keys is refused. Two keys while they change."""

    #: ARNs of the SNS topics to which Amazon SES reports.
    ses_topics: tuple[str, ...] = ()
    #: Verification keys of SendGrid's signed event webhook.
    sendgrid_keys: tuple[str, ...] = ()
    #: Mailgun's webhook signing keys.
    mailgun_keys: tuple[str, ...] = field(default=(), repr=False)
    #: Of our own making, in the address or a header of Postmark's webhooks.
    postmark_tokens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SmsSettings:
    """The provider of text messages, by Twilio's HTTP API; without ``url`` there is none but tenants' own by SMPP."""

    #: What stands before ``/Accounts``: ``https://api.twilio.com/2010-04-01``.
    url: str = ""
    #: Of tenants that have no account of their own.
    account: str = ""
    token: str = field(default="", repr=False)
    #: ``from``: whom messages come from where a tenant does not say.
    sender: str = ""
    #: What a segment costs, in the minor unit of the currency (cents).
    price_minor: int = 0
    connections: int = 8
    #: Longer messages are not sent.
    max_segments: int = 10
    #: Whether the provider is asked to say what became of each message (needs a ``public_url`` that it reaches).
    callbacks: bool = False


@dataclass(frozen=True, slots=True)
class SmppSettings:
    """Accounts of tenants at short message centres (SMPP 3.4); needs the extra ``smpp``."""

    enabled: bool = False
    #: Centres (``host`` or ``host:port``) at private addresses, at other ports, or without TLS.
    allow_hosts: tuple[str, ...] = ()
    #: Messages without an answer that an account may have at most.
    window: int = 16


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How messages are posted to programs; without ``secrets`` there is no such channel."""

    #: ``whsec_…``, newest first: at most two, while they change.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    connections: int = 8


@dataclass(frozen=True, slots=True)
class SocialSettings:
    """Social networks that tenants may post to; their accounts are the tenants' own."""

    #: ``mastodon``, ``bluesky``: each is a channel of this name.
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The way out by HTTP."""

    #: Hosts (``host`` or ``host:port``) that may be asked in plain HTTP and lie at private addresses.
    allow_hosts: tuple[str, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, str]) -> "HttpSettings":
        """These alone, of an ini section."""
        found: HttpSettings = _Parser.only(raw, "http")
        return found


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """How much strangers may ask for without a key: of each address (IPv6: each /64), a minute and a web process; 0: any."""

    #: False: nobody is counted.
    limited: bool = True
    #: Opens and clicks; those beyond are answered, and not recorded.
    engagements_per_minute: int = 6_000
    #: Pages of recipients, and what is sent from them.
    pages_per_minute: int = 600
    #: Reports of providers, and calls of programs that bring leads.
    calls_per_minute: int = 30_000
    #: Links, addresses and signatures that are not ours.
    guesses_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """What the operator grants to plugins, and which of them are not trusted."""

    #: Modules of ``nexus.includes`` that run in the sandbox.
    untrusted: tuple[str, ...] = ()
    #: ``PLUGIN:HOST`` or ``PLUGIN:HOST:PORT``: hosts that a plugin may ask; ``*.example.com`` for the names below it.
    grants: tuple[str, ...] = ()
    #: ``PLUGIN:NAME=VALUE``: what a plugin's requests hold in the place of ``{secret:NAME}``.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: Of each plugin and process.
    requests_per_second: float = 50.0
    #: How long one call may take: a sandboxed plugin is ended then, of others it is counted.
    call_seconds: float = 10.0
    #: How old a worker is at least that begins anew after a trusted plugin took longer.
    recycle_seconds: float = 60.0
    #: Address space of a sandboxed plugin, the interpreter included.
    memory_mb: int = 256

    @classmethod
    def read(cls, raw: Mapping[str, str]) -> "PluginSettings":
        """These alone, of an ini section.

        Raises:
            ConfigurationError: lists every value that cannot be read.
        """
        found: PluginSettings = _Parser.only(raw, "plugins")
        return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment decides."""

    #: SQLite file for the embedded mode, or the URL of the web role.
    database_url: str = field(repr=False)
    #: PostgreSQL only: the worker's and the owner's own logins.
    database_worker_url: str = field(repr=False)
    database_owner_url: str = field(repr=False)
    #: Keys of at least 32 bytes, newest first: tracking tokens, page cursors, address hashes.
    secret_keys: tuple[bytes, ...] = field(repr=False)
    #: Empty: no Redis, work is found by polling and an in-process doorbell.
    redis_url: str = field(default="", repr=False)
    #: What rings workers where it is not the Redis above: another, or RabbitMQ (needs the extra ``rabbitmq``).
    broker_url: str = field(default="", repr=False)
    #: Where recipients' links lead; no trailing slash.
    public_url: str = "http://127.0.0.1:6543"
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    email_hooks: EmailHookSettings = field(default_factory=EmailHookSettings)
    sms: SmsSettings = field(default_factory=SmsSettings)
    smpp: SmppSettings = field(default_factory=SmppSettings)
    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    social: SocialSettings = field(default_factory=SocialSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    visitors: VisitorSettings = field(default_factory=VisitorSettings)
    plugins: PluginSettings = field(default_factory=PluginSettings)
    #: A folder: start a local catcher that writes every message there as ``.eml``, and send through it.
    catcher_dir: Path | None = None
    #: Worker threads inside the web process; 0 where workers run on their own.
    worker_threads: int = 0
    #: Files that must survive a killed worker, on a local disk.
    state_dir: Path = Path("var")
    #: Where attachments and uploads lie; ``blobs`` below ``state_dir`` without it. All processes need the same folder.
    blob_dir: Path | None = None
    #: ``s3://bucket[/prefix]``: they lie there instead (needs the extra ``s3``).
    blob_url: str = ""
    #: The server of that bucket where it is not Amazon's.
    blob_endpoint_url: str = ""
    pool_size: int = 10
    prepared_statements: bool = True
    chunk_size: int = 500
    lease: timedelta = timedelta(seconds=30)
    poll: timedelta = timedelta(seconds=1)
    #: How late a send may start before it is ``missed``.
    grace: timedelta = timedelta(hours=1)
    #: How long hits settle before they are judged.
    settling: timedelta = timedelta(seconds=30)
    #: Requests per minute and tenant.
    rate_limit_per_minute: int = 6000
    #: Events per minute from one address (IPv6: one /64) with one public key.
    public_events_per_minute: int = 60
    max_body_bytes: int = 1_000_000
    #: Of ``POST /api/v1/engagements/bulk``, which reads its lines as it goes.
    max_bulk_bytes: int = 16_000_000
    #: Of a file of leads that is uploaded.
    max_import_bytes: int = 512_000_000
    #: How long an import can be undone, and its rejected rows be fetched.
    import_undo_days: int = 30
    #: How long what messages were made of is kept, to make them again; 0: not at all.
    keep_renders_days: int = 90
    #: So many sends in a row that bounce softly within 30 days suppress an address.
    soft_bounces: int = 3
    max_attempts: int = 8
    max_retry_age: timedelta = timedelta(hours=72)
    log_level: str = "INFO"
    #: Whoever holds it may read ``/metrics``; empty: nothing is counted and there is nothing to read.
    metrics_token: str = field(default="", repr=False)

    @property
    def embedded(self) -> bool:
        """One process on an SQLite file."""
        return self.database_url.startswith("sqlite")

    @classmethod
    def parse(cls, raw: Mapping[str, str]) -> "Settings":
        """Read ``nexus.*`` keys of an ini section.

        Raises:
            ConfigurationError: lists every key that is unknown, missing or malformed.
        """
        return _Parser({k[len(PREFIX) :]: v for k, v in raw.items() if k.startswith(PREFIX)}).settings()


class _Reader(NamedTuple):
    """How a value is read, and what it is when it can be."""

    expected: str
    read: Callable[[str], Any]
    #: The value as a complaint may show it.
    shown: Callable[[str], str] = str


def _number(expected: str, convert: Callable[[str], Any], low: float, high: float = 1e9) -> _Reader:
    def read(text: str) -> Any:
        value = convert(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return _Reader(expected, read)


def _word(*words: str) -> _Reader:
    known = {word.lower(): word for word in words}
    return _Reader(" or ".join((", ".join(words[:-1]), words[-1])), lambda text: known[text.lower()])


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(text)
    return text.rstrip("/")


def _broker(text: str) -> str:
    parts = urlsplit(text)
    if not text.startswith(_BROKERS) or not parts.hostname or parts.port == 0:
        raise ValueError(text)
    return text


def _without_login(url: str) -> str:
    return re.sub(r"(?s)^([a-z0-9+]*://)?.*@", r"\1***@", url.partition("?")[0])


def _bucket(text: str) -> str:
    if not re.fullmatch(r"s3://[A-Za-z0-9][A-Za-z0-9.:_-]+(/.*)?", text):
        raise ValueError(text)
    return text


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]{16,200}", text):
        raise ValueError(text)
    return text


def _seconds(text: str) -> timedelta:
    found = timedelta(seconds=float(text))
    if found < timedelta():
        raise ValueError(text)
    return found


def _each(expected: str, form: re.Pattern[str], shown: Callable[[str], str] = str) -> _Reader:
    """Words, each of one form."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(text.split())
        if not all(map(form.fullmatch, words)):
            raise ValueError(text)
        return words

    return _Reader(expected, read, shown)


_GRANT = re.compile(r"[a-z][a-z0-9_-]*:(\*\.)?[^\s:/@*\[\]]+(:[0-9]{1,5})?")
_SECRET = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_]{0,39}=[!-~]{1,4000}")
_NETWORK = re.compile(r"mastodon|bluesky")
_BROKERS = ("redis://", "rediss://", "amqp://", "amqps://")

_TEXT = _Reader("text", str)
_FOLDER = _Reader("a path", Path)
_SIZE = _number("a whole number above 0", int, 1)
_SWITCH = _Reader("true or false", lambda text: {"true": True, "false": False}[text.lower()])
_DURATION = _Reader("a number of seconds, not below 0", _seconds)

_READERS: Mapping[str, _Reader] = {
    "redis_url": _TEXT,
    "broker_url": _Reader(
        "the URL of a broker: write redis://HOST:6379/0 for Redis or amqp://USER:PASSWORD@HOST:5672/VHOST for RabbitMQ "
        "(rediss:// and amqps:// with TLS)",
        _broker,
        shown=_without_login,
    ),
    "public_url": _Reader("a URL that begins with http:// or https://", _url),
    "catcher_dir": _FOLDER,
    "worker_threads": _number("a whole number, not below 0", int, 0),
    "state_dir": _FOLDER,
    "blob_dir": _FOLDER,
    "blob_url": _Reader("s3://bucket or s3://bucket/prefix", _bucket),
    "blob_endpoint_url": _Reader("a URL that begins with http:// or https://", _url),
    "pool_size": _SIZE,
    "prepared_statements": _SWITCH,
    "chunk_size": _SIZE,
    "lease_seconds": _DURATION,
    "poll_seconds": _DURATION,
    "grace_seconds": _DURATION,
    "settling_seconds": _DURATION,
    "rate_limit_per_minute": _SIZE,
    "public_events_per_minute": _SIZE,
    "max_body_bytes": _SIZE,
    "max_bulk_bytes": _SIZE,
    "max_import_bytes": _SIZE,
    "import_undo_days": _number("a whole number of days from 1 to 3650", int, 1, 3650),
    "keep_renders_days": _number("a whole number of days from 0 to 3650", int, 0, 3650),
    "soft_bounces": _number("a whole number from 1 to 100", int, 1, 100),
    "max_attempts": _SIZE,
    "max_retry_age_seconds": _DURATION,
    "metrics_token": _Reader("16 to 200 printable characters without spaces", _token),
    "log_level": _word("DEBUG", "INFO", "WARNING", "ERROR"),
}
_WORDS = _Reader("words separated by spaces", lambda text: tuple(text.split()))
_SMTP_READERS: Mapping[str, _Reader] = {
    "host": _TEXT,
    "port": _number("a port from 1 to 65535", int, 1, 65535),
    "security": _word("none", "opportunistic", "starttls", "tls"),
    "username": _TEXT,
    "password": _TEXT,
    "connections": _SIZE,
    "timeout_seconds": _number("a number of seconds above 0", float, 0.001),
    "local_hostname": _TEXT,
    "allow_hosts": _WORDS,
}
_SMS_READERS: Mapping[str, _Reader] = {
    "url": _Reader("a URL that begins with http:// or https://", _url),
    "account": _TEXT,
    "token": _TEXT,
    "from": _TEXT,
    "price_minor": _number("a whole number, not below 0", int, 0),
    "connections": _SIZE,
    "max_segments": _number("a whole number from 1 to 255", int, 1, 255),
    "callbacks": _SWITCH,
}
_SMPP_READERS: Mapping[str, _Reader] = {
    "enabled": _SWITCH,
    "allow_hosts": _WORDS,
    "window": _number("a whole number from 1 to 1000", int, 1, 1000),
}
_TOKENS = _Reader(
    "words of at least 16 printable characters",
    lambda text: tuple(map(_token, text.split())),
    shown=lambda _: "***",
)
_EMAIL_HOOK_READERS: Mapping[str, _Reader] = {
    "ses_topics": _WORDS,
    "sendgrid_keys": _WORDS,
    "mailgun_keys": _TOKENS,
    "postmark_tokens": _TOKENS,
}
_PLUGIN_READERS: Mapping[str, _Reader] = {
    "untrusted": _WORDS,
    "grants": _each("words of the form PLUGIN:HOST or PLUGIN:HOST:PORT, such as nexus-slack:slack.com", _GRANT),
    "secrets": _each("words of the form PLUGIN:NAME=VALUE", _SECRET, shown=lambda _: "***"),
    "requests_per_second": _number("a number above 0", float, 0.001),
    "call_seconds": _number("a number of seconds from 0.1 to 20", float, 0.1, 20),
    "recycle_seconds": _number("a number of seconds from 0 to 86400", float, 0, 86_400),
    "memory_mb": _number("a whole number of megabytes, at least 64", int, 64),
}
_COUNT = _number("a whole number, not below 0 (0 is no limit)", int, 0)
_VISITOR_READERS: Mapping[str, _Reader] = {
    "limited": _SWITCH,
    "engagements_per_minute": _COUNT,
    "pages_per_minute": _COUNT,
    "calls_per_minute": _COUNT,
    "guesses_per_minute": _COUNT,
}
#: Settings with a prefix of their own: what they are read into, and how.
_GROUPS: Mapping[str, tuple[type[Any], Mapping[str, _Reader]]] = {
    "smtp": (SmtpSettings, _SMTP_READERS),
    "email.hooks": (EmailHookSettings, _EMAIL_HOOK_READERS),
    "sms": (SmsSettings, _SMS_READERS),
    "smpp": (SmppSettings, _SMPP_READERS),
    "webhook": (WebhookSettings, {"secrets": _WORDS, "connections": _SIZE}),
    "social": (SocialSettings, {"networks": _each("words among mastodon and bluesky", _NETWORK)}),
    "visitors": (VisitorSettings, _VISITOR_READERS),
    "http": (HttpSettings, {"allow_hosts": _WORDS}),
    "plugins": (PluginSettings, _PLUGIN_READERS),
}
_GROUPED = frozenset(f"{group}.{name}" for group, (_, readers) in _GROUPS.items() for name in readers)
#: Keys that are no name in Python.
_FIELDS = {"from": "sender"}
_OTHERS = frozenset({"database_url", "database_worker_url", "database_owner_url", "secret_key", "includes"})


class _Parser:
    """Collects every fault before it complains."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        self._raw = raw
        self._faults: list[str] = []

    def settings(self) -> Settings:
        values: dict[str, Any] = {
            self._field(name): self._read(name, read) for name, read in _READERS.items() if self._has(name)
        }
        groups = {group.replace(".", "_"): self._group(group, *about) for group, about in _GROUPS.items()}
        urls: dict[str, Any] = self._urls()
        keys = self._secret_keys(values.get("state_dir", Path("var")), urls["database_url"])
        self._reject_unknown()
        if self._faults:
            raise ConfigurationError("; ".join(self._faults))
        return Settings(**urls, secret_keys=keys, **groups, **values)

    @classmethod
    def only(cls, raw: Mapping[str, str], group: str) -> Any:
        """One group of an ini section."""
        parser = cls({key[len(PREFIX) :]: value for key, value in raw.items() if key.startswith(PREFIX)})
        found = parser._group(group, *_GROUPS[group])
        if parser._faults:
            raise ConfigurationError("; ".join(parser._faults))
        return found

    def _group(self, group: str, kind: type[Any], readers: Mapping[str, _Reader]) -> Any:
        given = {name: f"{group}.{name}" for name in readers if self._has(f"{group}.{name}")}
        return kind(**{_FIELDS.get(name, name): self._read(key, readers[name]) for name, key in given.items()})

    def _has(self, name: str) -> bool:
        return bool(self._raw.get(name, "").strip())

    @staticmethod
    def _field(name: str) -> str:
        known = {item.name for item in fields(Settings)}
        return name if name in known else name.removesuffix("_seconds")

    def _read(self, name: str, reader: _Reader) -> Any:
        text = self._raw[name].strip()
        try:
            return reader.read(text)
        except (ValueError, OverflowError, KeyError):
            self._faults.append(f"{PREFIX}{name}: {reader.shown(text)!r} is not {reader.expected}")
            return None

    def _urls(self) -> dict[str, str]:
        url = self._raw.get("database_url", "").strip()
        if not url:
            self._faults.append(f"{PREFIX}database_url is missing: for example sqlite:///var/nexus.db")
        names = ("database_worker_url", "database_owner_url")
        if url.startswith("sqlite") or not url:
            return {"database_url": url, **dict.fromkeys(names, url)}
        if not url.startswith("postgresql"):
            # Without the rest, which may hold a password.
            kind = url.partition(":")[0]
            self._faults.append(f"{PREFIX}database_url: {kind} is neither sqlite nor postgresql")
        others = {name: self._raw.get(name, "").strip() for name in names}
        if not others["database_worker_url"]:
            self._faults.append(
                f"{PREFIX}database_worker_url is missing: PostgreSQL needs the nexus_worker login of its own"
            )
        return {"database_url": url, **others}

    def _secret_keys(self, state_dir: Path, url: str) -> tuple[bytes, ...]:
        written = self._raw.get("secret_key", "").split()
        if not written:
            if not url.startswith("sqlite"):
                self._faults.append(f"{PREFIX}secret_key is missing: at least 32 random characters")
                return ()
            written = [_kept_secret(state_dir / "secret.key")]
        if any(len(key) < 32 for key in written):
            self._faults.append(f"{PREFIX}secret_key: each key needs at least 32 characters")
        return tuple(key.encode()[:64] for key in written)

    def _reject_unknown(self) -> None:
        known = {*_READERS, *_GROUPED, *_OTHERS}
        for name in sorted(set(self._raw) - known):
            self._faults.append(f"{PREFIX}{name} is no setting of this version")


def _kept_secret(path: Path) -> str:
    """The key of an embedded installation: made once, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        # A link appears whole or not at all: of two processes that start together, one key stays.
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text().strip()
