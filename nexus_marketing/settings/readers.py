"""How each setting is read, and what it must look like."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nexus_marketing.settings.groups import (
    EmailHookSettings,
    HttpSettings,
    PluginSettings,
    SmppSettings,
    SmsSettings,
    SmtpSettings,
    SocialSettings,
    VisitorSettings,
    WebhookSettings,
)


class Reader(NamedTuple):
    """How a value is read, and what it is when it can be."""

    expected: str
    read: Callable[[str], Any]
    #: The value as a complaint may show it.
    shown: Callable[[str], str] = str


def _number(expected: str, convert: Callable[[str], Any], low: float, high: float = 1e9) -> Reader:
    def read(text: str) -> Any:
        value = convert(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Reader(expected, read)


def _word(*words: str) -> Reader:
    known = {word.lower(): word for word in words}
    return Reader(" or ".join((", ".join(words[:-1]), words[-1])), lambda text: known[text.lower()])


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


def _each(expected: str, form: re.Pattern[str], shown: Callable[[str], str] = str) -> Reader:
    """Words, each of one form."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(text.split())
        if not all(map(form.fullmatch, words)):
            raise ValueError(text)
        return words

    return Reader(expected, read, shown)


_GRANT = re.compile(r"[a-z][a-z0-9_-]*:(\*\.)?[^\s:/@*\[\]]+(:[0-9]{1,5})?")
_SECRET = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_]{0,39}=[!-~]{1,4000}")
_NETWORK = re.compile(r"mastodon|bluesky")
_BROKERS = ("redis://", "rediss://", "amqp://", "amqps://")
_TEXT = Reader("text", str)
_FOLDER = Reader("a path", Path)
_SIZE = _number("a whole number above 0", int, 1)
_SWITCH = Reader("true or false", lambda text: {"true": True, "false": False}[text.lower()])
_DURATION = Reader("a number of seconds, not below 0", _seconds)
READERS: Mapping[str, Reader] = {
    "redis_url": _TEXT,
    "broker_url": Reader(
        "the URL of a broker: write redis://HOST:6379/0 for Redis or amqp://USER:PASSWORD@HOST:5672/VHOST for RabbitMQ "
        "(rediss:// and amqps:// with TLS)",
        _broker,
        shown=_without_login,
    ),
    "public_url": Reader("a URL that begins with http:// or https://", _url),
    "catcher_dir": _FOLDER,
    "worker_threads": _number("a whole number, not below 0", int, 0),
    "state_dir": _FOLDER,
    "blob_dir": _FOLDER,
    "blob_url": Reader("s3://bucket or s3://bucket/prefix", _bucket),
    "blob_endpoint_url": Reader("a URL that begins with http:// or https://", _url),
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
    "metrics_token": Reader("16 to 200 printable characters without spaces", _token),
    "log_level": _word("DEBUG", "INFO", "WARNING", "ERROR"),
}
_WORDS = Reader("words separated by spaces", lambda text: tuple(text.split()))
_SMTP_READERS: Mapping[str, Reader] = {
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
_SMS_READERS: Mapping[str, Reader] = {
    "url": Reader("a URL that begins with http:// or https://", _url),
    "account": _TEXT,
    "token": _TEXT,
    "from": _TEXT,
    "price_minor": _number("a whole number, not below 0", int, 0),
    "connections": _SIZE,
    "max_segments": _number("a whole number from 1 to 255", int, 1, 255),
    "callbacks": _SWITCH,
}
_SMPP_READERS: Mapping[str, Reader] = {
    "enabled": _SWITCH,
    "allow_hosts": _WORDS,
    "window": _number("a whole number from 1 to 1000", int, 1, 1000),
}
_TOKENS = Reader(
    "words of at least 16 printable characters",
    lambda text: tuple(map(_token, text.split())),
    shown=lambda _: "***",
)
_EMAIL_HOOK_READERS: Mapping[str, Reader] = {
    "ses_topics": _WORDS,
    "sendgrid_keys": _WORDS,
    "mailgun_keys": _TOKENS,
    "postmark_tokens": _TOKENS,
}
_PLUGIN_READERS: Mapping[str, Reader] = {
    "untrusted": _WORDS,
    "grants": _each("words of the form PLUGIN:HOST or PLUGIN:HOST:PORT, such as nexus-slack:slack.com", _GRANT),
    "secrets": _each("words of the form PLUGIN:NAME=VALUE", _SECRET, shown=lambda _: "***"),
    "requests_per_second": _number("a number above 0", float, 0.001),
    "call_seconds": _number("a number of seconds from 0.1 to 20", float, 0.1, 20),
    "recycle_seconds": _number("a number of seconds from 0 to 86400", float, 0, 86_400),
    "memory_mb": _number("a whole number of megabytes, at least 64", int, 64),
}
_COUNT = _number("a whole number, not below 0 (0 is no limit)", int, 0)
_VISITOR_READERS: Mapping[str, Reader] = {
    "limited": _SWITCH,
    "engagements_per_minute": _COUNT,
    "pages_per_minute": _COUNT,
    "calls_per_minute": _COUNT,
    "guesses_per_minute": _COUNT,
}
#: Settings with a prefix of their own: what they are read into, and how.
GROUPS: Mapping[str, tuple[type[Any], Mapping[str, Reader]]] = {
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
