"""Attachments and uploads as files below one folder: complete or not there, readable by the server only."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

from nexus_marketing.builtins.blobs.keys import checked

_BLOCK = 1 << 20


class FileBlobs:
    """Keeps ``tenant/abcd…`` as ``folder/tenant/ab/abcd…``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, content: bytes | BinaryIO) -> None:
        """Write it whole and durably before it has its name."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                copyfileobj(BytesIO(content) if isinstance(content, bytes) else content, file, _BLOCK)
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

    @contextmanager
    def local(self, key: str) -> Iterator[Path | None]:
        """The file itself, or nothing."""
        path = self._path(key)
        yield path if path.is_file() else None

    def delete(self, key: str) -> None:
        """Remove it; what is gone already is no fault."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others lie there
            path.parent.rmdir()

    def _path(self, key: str) -> Path:
        tenant, _, name = checked(key).partition("/")
        return self._folder / tenant / name[:2] / name
