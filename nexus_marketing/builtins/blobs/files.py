"""Attachments as files below one folder: complete or not there, readable by the server only."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from nexus_marketing.core.errors import ConfigurationError

_KEY = re.compile(r"[0-9]{1,19}/[0-9a-f]{32,64}")


class FileBlobs:
    """Keeps ``tenant/abcd…`` as ``folder/tenant/ab/abcd…``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, content: bytes) -> None:
        """Write it whole and durably before it has its name."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def get(self, key: str) -> bytes | None:
        """The bytes, or nothing."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove it; what is gone already is no fault."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others lie there
            path.parent.rmdir()

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ConfigurationError(f"{key[:80]!r} is no key of this store: write tenant/hexadecimal.")
        tenant, _, name = key.partition("/")
        return self._folder / tenant / name[:2] / name
