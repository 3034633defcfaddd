"""The settings of one process, parsed once from the ini file; nothing else reads it.

Every key is described where it is declared; ``Settings.parse`` reports all faults at once.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from nexus_marketing.core.errors import ConfigurationError
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
from nexus_marketing.settings.readers import GROUPS, READERS, Reader

PREFIX = "nexus."


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


_GROUPED = frozenset(f"{group}.{name}" for group, (_, readers) in GROUPS.items() for name in readers)
#: Keys that are no name in Python.
_FIELDS = {"from": "sender"}
_OTHERS = frozenset({"database_url", "database_worker_url", "database_owner_url", "secret_key", "includes"})


def http_settings(raw: Mapping[str, str]) -> HttpSettings:
    """The way out by HTTP alone, of an ini section.

    Raises:
        ConfigurationError: lists every value that cannot be read.
    """
    found: HttpSettings = _Parser.only(raw, "http")
    return found


def plugin_settings(raw: Mapping[str, str]) -> PluginSettings:
    """What plugins may, alone, of an ini section.

    Raises:
        ConfigurationError: lists every value that cannot be read.
    """
    found: PluginSettings = _Parser.only(raw, "plugins")
    return found


class _Parser:
    """Collects every fault before it complains."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        self._raw = raw
        self._faults: list[str] = []

    def settings(self) -> Settings:
        values: dict[str, Any] = {
            self._field(name): self._read(name, read) for name, read in READERS.items() if self._has(name)
        }
        groups = {group.replace(".", "_"): self._group(group, *about) for group, about in GROUPS.items()}
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
        found = parser._group(group, *GROUPS[group])
        if parser._faults:
            raise ConfigurationError("; ".join(parser._faults))
        return found

    def _group(self, group: str, kind: type[Any], readers: Mapping[str, Reader]) -> Any:
        given = {name: f"{group}.{name}" for name in readers if self._has(f"{group}.{name}")}
        return kind(**{_FIELDS.get(name, name): self._read(key, readers[name]) for name, key in given.items()})

    def _has(self, name: str) -> bool:
        return bool(self._raw.get(name, "").strip())

    @staticmethod
    def _field(name: str) -> str:
        known = {item.name for item in fields(Settings)}
        return name if name in known else name.removesuffix("_seconds")

    def _read(self, name: str, reader: Reader) -> Any:
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
        known = {*READERS, *_GROUPED, *_OTHERS}
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
