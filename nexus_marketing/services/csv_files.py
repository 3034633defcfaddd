"""CSV files as people save them: which encoding and delimiter, then one record after the other.

The whole file is read once for its digest, and with it every byte is judged: a file that is ASCII
for a megabyte and Latin-1 afterwards is told apart from UTF-8. Memory stays flat.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from nexus_marketing.core.errors import ValidationError

_BLOCK: Final = 1 << 20
_SAMPLE: Final = 1 << 16
#: A line longer than this is no line of a table but a file without line breaks.
_LONGEST_LINE: Final = 1 << 20
DELIMITERS: Final = (",", ";", "\t", "|")
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UNDEFINED_IN_CP1252: Final = frozenset(b"\x81\x8d\x8f\x90\x9d")
ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be", "cp1252", "iso-8859-1")


@dataclass(frozen=True, slots=True)
class CsvFile:
    """What a file is. ``confidence`` (0 to 1) is how sure the encoding is, ``bom_bytes`` its mark's length.

    ``has_damage``: the file is UTF-8 with some bytes that are not; they come as lone surrogates.
    """

    path: Path
    digest: bytes
    size_bytes: int
    encoding: str
    confidence: float
    bom_bytes: int
    delimiter: str
    has_damage: bool = False


class Record(NamedTuple):
    """One record: its row in a spreadsheet, its cells, and where the next one begins in the file."""

    row_no: int
    cells: Sequence[str]
    end_offset: int
    fault: str | None = None


def inspect_csv(path: Path, *, encoding: str | None = None, delimiter: str | None = None) -> CsvFile:
    """Find out what a file is.

    Args:
        encoding: one of ``ENCODINGS``, where the caller knows better.
        delimiter: one of ``DELIMITERS``, likewise.

    Raises:
        ValidationError: there is no such file, it is empty, or it is no text table at all.
    """
    if not path.is_file():
        raise ValidationError.at("file", "not_found", f"There is no file {str(path)!r}: check the path.")
    facts = _Facts.gather(path)
    _refuse_other_formats(facts)
    if encoding is not None and encoding not in ENCODINGS:
        raise ValidationError.at("encoding", "unknown_encoding", f"{encoding!r}: use one of {', '.join(ENCODINGS)}.")
    if delimiter is not None and delimiter not in DELIMITERS:
        raise ValidationError.at("delimiter", "unknown_delimiter", f"{delimiter!r}: use one of , ; tab or |.")
    found, confidence, has_damage = (encoding, 1.0, encoding == "utf-8") if encoding else facts.encoding()
    bom_bytes = facts.bom_bytes if found == facts.bom_encoding else 0
    file = CsvFile(path, facts.digest, facts.size, found, confidence, bom_bytes, delimiter or ",", has_damage)
    if delimiter is None:
        file = _with_delimiter(file, facts.head)
    return file


def read_records(file: CsvFile) -> Iterator[Record]:
    """The records of a file in order, the header first, blank lines left out.

    A record that cannot be read (a quote that is never closed) comes with its ``fault``.
    """
    lines = _Lines(file)
    reader = csv.reader(iter(lines), delimiter=file.delimiter)
    row_no = 0
    while True:
        row_no += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Record(row_no, (), lines.offset, f"{error}: is a quote opened and not closed?")
            continue
        if cells is None:
            return
        if cells and not (row_no == 1 and _is_separator_line(cells, file.delimiter)):
            yield Record(row_no, cells, lines.offset)


def _is_separator_line(cells: Sequence[str], delimiter: str) -> bool:
    return delimiter.join(cells).lower() == f"sep={delimiter}"


class _Lines:
    """Lines of text that count the bytes they took."""

    def __init__(self, file: CsvFile) -> None:
        self.offset = file.bom_bytes
        self._file = file

    def __iter__(self) -> Iterator[str]:
        file = self._file
        is_wide = file.encoding.startswith("utf-16")
        errors = "replace" if is_wide else "surrogateescape"
        with file.path.open("rb") as raw:
            raw.seek(file.bom_bytes)
            text = io.TextIOWrapper(raw, encoding=file.encoding, errors=errors, newline="")
            number = 0
            while line := text.readline(_LONGEST_LINE):
                number += 1
                if len(line) >= _LONGEST_LINE:
                    raise ValidationError.at(
                        "file", "line_too_long", f"Line {number} is longer than {_LONGEST_LINE} characters: is it CSV?"
                    )
                if line.isascii():
                    self.offset += 2 * len(line) if is_wide else len(line)
                else:
                    self.offset += len(line.encode(file.encoding, errors))
                yield line


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one pass over the bytes tells."""

    head: bytes
    digest: bytes
    size: int
    is_utf8: bool
    has_undefined: bool
    path: Path

    @classmethod
    def gather(cls, path: Path) -> "_Facts":
        digest = sha256()
        decoder = codecs.getincrementaldecoder("utf-8")()
        head, size, is_utf8, has_undefined = b"", 0, True, False
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                head = head or block[:_SAMPLE]
                digest.update(block)
                size += len(block)
                if is_utf8:
                    is_utf8 = _accepts(decoder, block, final=False)
                if not is_utf8:
                    has_undefined = has_undefined or not _UNDEFINED_IN_CP1252.isdisjoint(block)
        is_utf8 = is_utf8 and _accepts(decoder, b"", final=True)
        return cls(head, digest.digest(), size, is_utf8, has_undefined, path)

    @property
    def bom_encoding(self) -> str | None:
        return next((encoding for mark, encoding in _BOMS if self.head.startswith(mark)), None)

    @property
    def bom_bytes(self) -> int:
        return next((len(mark) for mark, _ in _BOMS if self.head.startswith(mark)), 0)

    def encoding(self) -> tuple[str, float, bool]:
        """Encoding, confidence, and whether a UTF-8 file has damaged places."""
        marked = self.bom_encoding
        if marked is not None and marked != "utf-8":
            return marked, 1.0, False
        if self.is_utf8:
            return "utf-8", 1.0, False
        whole, broken = self._non_ascii()
        if marked == "utf-8" or whole >= 10 * broken:
            return "utf-8", 0.9, True
        # Western European by default: nothing in the bytes tells it from other one-byte encodings.
        return ("iso-8859-1", 0.5, False) if self.has_undefined else ("cp1252", 0.7, False)

    def _non_ascii(self) -> tuple[int, int]:
        """How many characters beyond ASCII are whole in UTF-8, and how many bytes are not."""
        whole = broken = 0
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            while block := file.read(_BLOCK):
                if not block.isascii():
                    escaped = sum("\udc80" <= character <= "\udcff" for character in block)
                    broken += escaped
                    whole += sum(character > "\x7f" for character in block) - escaped
        return whole, broken


def _accepts(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _refuse_other_formats(facts: _Facts) -> None:
    if not facts.head.strip(b"\xef\xbb\xbf \r\n\t"):
        raise ValidationError.at("file", "empty", "The file is empty: it needs a header line and rows.")
    if facts.head.startswith(b"PK\x03\x04"):
        raise ValidationError.at(
            "file", "not_csv", "The file is a workbook or ZIP archive: open it and save it as CSV (UTF-8)."
        )
    if facts.bom_encoding is None and facts.head.count(0) > len(facts.head) // 8:
        raise ValidationError.at(
            "file", "not_csv", "The file has many NUL bytes: it is binary, or UTF-16 without a mark; save it as UTF-8."
        )


def _with_delimiter(file: CsvFile, head: bytes) -> CsvFile:
    text = head[file.bom_bytes :].decode(file.encoding, "replace")
    lines = text.splitlines()[:50]
    if len(head) == _SAMPLE and len(lines) > 1:
        lines.pop()  # the sample ends within it
    if lines and lines[0].lower().startswith("sep=") and lines[0][4:] in DELIMITERS:
        return replace(file, delimiter=lines[0][4:])
    return replace(file, delimiter=max(DELIMITERS, key=lambda each: _fit(lines, each)))


def _fit(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """How well a delimiter explains the lines: the share of rows as wide as the header, then the width."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0, 0
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, width
    return sum(len(row) == width for row in rows) / len(rows), width
