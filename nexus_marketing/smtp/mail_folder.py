"""Messages as files of a folder, with an index of their envelopes."""

import hashlib
import json
import os
import time
from pathlib import Path


class MailFolder:
    """Writes messages into a directory, numbered on from what is there."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._prefix = str(directory) + os.sep
        numbers = [int(file.name[:8]) for file in directory.glob("*.eml") if file.name[:8].isdecimal()]
        self.count = 0
        self._last = max(numbers, default=0)
        self._index = os.open(self._prefix + "index.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def store(self, sender: str, recipients: list[str], message: bytes) -> None:
        """One file and one index line; OSError if the disk refuses."""
        digest = hashlib.sha256(recipients[0].encode("utf-8", "surrogateescape")).hexdigest()[:12]
        name = f"{self._last + 1:08d}-{digest}.eml"
        handle = os.open(self._prefix + name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(handle, message)
        finally:
            os.close(handle)
        self._last += 1
        self.count += 1
        entry = {"file": name, "sender": sender, "recipients": recipients, "bytes": len(message), "at": time.time()}
        os.write(self._index, json.dumps(entry).encode("ascii") + b"\n")

    def close(self) -> None:
        """Close the index."""
        os.close(self._index)
