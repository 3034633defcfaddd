"""Files of JSON lines: one object per line, UTF-8, read in flat memory."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from nexus_marketing.core.audience.fields import METADATA_LIMITS
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical, Limits, parse_json

_BLOCK: Final = 1 << 20
_HEAD: Final = 4_096
#: A lead's metadata may fill its bounds, and its fields come on top.
_LIMITS: Final = Limits(
    depth=METADATA_LIMITS.depth + 1,
    items=METADATA_LIMITS.items + 200,
    text_characters=METADATA_LIMITS.text_characters,
    total_characters=2 * METADATA_LIMITS.total_characters,
)
_LONGEST_LINE: Final = 4 * _LIMITS.total_characters


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A file of JSON lines; the fields that it shares with a table have the same meaning."""

    path: Path
    digest: bytes
    size_bytes: int
    bom_bytes: int
    encoding: str = "utf-8"
    confidence: float = 1.0
    delimiter: str = ""


class JsonRecord(NamedTuple):
    """One line: its number, what it says, and where the next one begins in the file."""

    row_no: int
    document: Canonical
    end_offset: int
    fault: str | None = None


def is_json_lines(path: Path) -> bool:
    """Whether the first thing in a file is an object."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def inspect_json(path: Path) -> JsonFile:
    """Find out what a file is, reading it once for its digest."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        bom_bytes = 3 if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(0)
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return JsonFile(path, digest.digest(), size, bom_bytes)


def read_json_records(file: JsonFile) -> Iterator[JsonRecord]:
    """The lines of a file in order, blank ones left out; one that cannot be read comes with its ``fault``."""
    offset = file.bom_bytes
    with file.path.open("rb") as raw:
        raw.seek(offset)
        row_no = 0
        while line := raw.readline(_LONGEST_LINE):
            row_no += 1
            offset += len(line)
            if not line.endswith(b"\n") and len(line) >= _LONGEST_LINE:
                offset += _skip_line(raw)
                yield JsonRecord(row_no, None, offset, f"The line is longer than {_LONGEST_LINE} bytes: is it JSON?")
                continue
            if not line.strip():
                continue
            try:
                yield JsonRecord(row_no, parse_json(line, "row", _LIMITS), offset)
            except ValidationError as error:
                yield JsonRecord(row_no, None, offset, error.problems[0].message)


def _skip_line(raw: BinaryIO) -> int:
    skipped = 0
    while block := raw.readline(_BLOCK):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped
