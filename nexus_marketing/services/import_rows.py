"""From a CSV file to pieces of rows that are ready to be written, and those that are not with the reason.

Reading needs no database: it runs ahead of the writing, in a thread of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from operator import itemgetter
from typing import Final

from nexus_marketing.core.audience import Column, ConsentWord, Converter, RowReader
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.queries.imports import SeenKeys
from nexus_marketing.services.csv_files import CsvFile, Record, read_records
from nexus_marketing.services.fields import convert_text

_CONSENT_TARGETS: Final = ("consent", "consent_at", "consent_source", "consent_ip", "consent_text_version")


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that did not come in: its number in a spreadsheet, the column, a code and a sentence."""

    row_no: int
    column: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ConsentAct:
    """What a row says about consent; ``at`` is canonical text, empty for "now"."""

    row_no: int
    email_norm: str
    word: ConsentWord
    at: str | None
    source: str | None
    ip_address: str | None
    text_version: str | None


@dataclass(slots=True)
class Piece:
    """Consecutive rows of a file that are written in one transaction.

    ``row_count`` and ``end_offset`` say how far the file was read at its end; ``rows`` are lead
    values with their ``row_no``, sorted by folded address.
    """

    row_count: int = 0
    end_offset: int = 0
    rows: list[dict[str, Canonical]] = field(default_factory=list)
    consents: list[ConsentAct] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    duplicate: int = 0


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file with everything needed to read its rows."""

    file: CsvFile
    header: Sequence[str]
    columns: Sequence[Column]
    declared: Mapping[str, FieldType]
    now_text: str

    def pieces(self, size: int) -> Iterator[Piece]:
        """All rows in pieces of ``size`` records; the same file always falls into the same pieces."""
        reader, has_consent = self._reader(), self.has_consent
        unique = [column.target for column in self.columns if column.target == "external_id"]
        seen = SeenKeys()
        try:
            count, last_offset, piece = 0, 0, Piece()
            for record in self._data_records():
                count += 1
                self._take(reader, record, piece, has_consent=has_consent)
                if count % size == 0:
                    piece.row_count, piece.end_offset = count, record.end_offset
                    _drop_repeated(piece, ["email_norm", *unique], seen)
                    yield piece
                    piece = Piece()
                last_offset = record.end_offset
            if count % size:
                piece.row_count, piece.end_offset = count, last_offset
                _drop_repeated(piece, ["email_norm", *unique], seen)
                yield piece
        finally:
            seen.close()

    def _data_records(self) -> Iterator[Record]:
        records = read_records(self.file)
        next(records)  # the header
        return records

    def _reader(self) -> RowReader:
        converters: dict[str, Converter] = {
            name: partial(convert_text, kind=kind, path=f"metadata.{name}") for name, kind in self.declared.items()
        }
        instant = partial(convert_text, kind=FieldType.DATETIME, path="consent_at")
        return RowReader(self.columns, len(self.header), converters, instant)

    def _take(self, reader: RowReader, record: Record, piece: Piece, *, has_consent: bool) -> None:
        try:
            if record.fault is not None:
                raise ValidationError.at("row", "not_csv", record.fault)
            values = reader.read(record.cells)
            act = self._consent(record.row_no, values) if has_consent else None
        except ValidationError as error:
            problem = error.problems[0]
            piece.errors.append(RowError(record.row_no, self._column(problem.path), problem.code, problem.message))
            return
        if act is not None:
            piece.consents.append(act)
        values["row_no"] = record.row_no
        piece.rows.append(values)

    def _column(self, path: str) -> str:
        """The header of the column, as the person who made the file knows it."""
        return next((column.header for column in self.columns if column.target == path), path)

    @property
    def has_consent(self) -> bool:
        """Whether the file says something about consent."""
        return any(column.target == "consent" for column in self.columns)

    def _consent(self, row_no: int, values: dict[str, Canonical]) -> ConsentAct | None:
        """Take what the row says about consent out of its values."""
        taken = {target: values.pop(target, None) for target in _CONSENT_TARGETS}
        texts = {target: None if value is None else str(value) for target, value in taken.items()}
        if texts["consent"] is None:
            return None
        word = ConsentWord(texts["consent"])
        at = texts["consent_at"]
        if word is ConsentWord.GIVEN:
            for needed in ("consent_at", "consent_source"):
                if texts[needed] is None:
                    message = f"consent without {needed} proves nothing: fill {needed} or empty the consent cell."
                    raise ValidationError.at(needed, "no_consent_evidence", message)
        if at is not None and at > self.now_text:
            raise ValidationError.at(
                "consent_at", "out_of_bounds", f"{at} lies in the future: write when it was given."
            )
        return ConsentAct(
            row_no,
            str(values["email_norm"]),
            word,
            at,
            texts["consent_source"],
            _checked_ip(texts["consent_ip"]),
            texts["consent_text_version"],
        )


def read_header(file: CsvFile) -> Sequence[str]:
    """The first record of a file.

    Raises:
        ValidationError: it cannot be read.
    """
    record = next(read_records(file), None)
    if record is None or record.fault is not None:
        raise ValidationError.at("header", "unreadable", "The first line cannot be read as a header: is it CSV?")
    return record.cells


def _drop_repeated(piece: Piece, unique: Sequence[str], seen: SeenKeys) -> None:
    """Leave out rows that came before in the file, and bring the rest into the order in which rows are locked."""
    before = len(piece.rows)
    for name in unique:
        piece.rows = _first_times(piece.rows, name, seen)
    piece.duplicate = before - len(piece.rows)
    piece.rows.sort(key=itemgetter("email_norm"))
    if piece.consents:
        kept = {row["row_no"] for row in piece.rows}
        piece.consents = [act for act in piece.consents if act.row_no in kept]


def _first_times(rows: list[dict[str, Canonical]], name: str, seen: SeenKeys) -> list[dict[str, Canonical]]:
    """Rows whose value has not been seen in the file; rows without one always stay."""
    keys = [hash((name, row[name])) if name in row else None for row in rows]
    is_new = seen.first_times([key for key in keys if key is not None])
    news = iter(is_new)
    return [row for row, key in zip(rows, keys, strict=True) if key is None or next(news)]


def _checked_ip(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(ip_address(text))
    except ValueError:
        message = f"{text[:60]!a} is no IP address: write 192.0.2.1 or 2001:db8::1."
        raise ValidationError.at("consent_ip", "not_an_ip_address", message) from None
