"""From a file to pieces of rows that are ready to be written, and those that are not with the reason.

Reading needs no database: it runs ahead of the writing, in a thread of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from nexus_marketing.core.audience import (
    CONSENT_TARGETS,
    Column,
    ConsentWord,
    Converter,
    FieldRule,
    ImportOptions,
    ObjectReader,
    RowReader,
    is_our_own,
    match_header,
)
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.seen_keys import SeenKeys
from nexus_marketing.services.csv_files import CsvFile, Record, inspect_csv, read_records
from nexus_marketing.services.json_files import JsonFile, JsonRecord, inspect_json, is_json_lines, read_json_records
from nexus_marketing.services.leads.fields import convert_text, declared_faults

FORMS: Final = ("csv", "jsonl")
Values = dict[str, Canonical]


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
    """A file with everything needed to read its rows.

    Args:
        columns: the fields of a table's columns; a file of objects has none, each object has its own keys.
        rules: what the tenant declares of its own fields.
        now_text: consent is not given later than this.
        may_consent: whether rows may say something about consent at all.
    """

    file: CsvFile | JsonFile
    header: Sequence[str]
    columns: Sequence[Column]
    rules: Mapping[str, FieldRule]
    options: ImportOptions
    now_text: str
    may_consent: bool = True

    @classmethod
    def open(
        cls, path: Path, options: ImportOptions, rules: Mapping[str, FieldRule], now_text: str, *, may_consent: bool
    ) -> "RowSource":
        """Find out what a file is and what its columns mean.

        Raises:
            ValidationError: it cannot be imported as a whole: what, where and the remedy.
        """
        if path.is_file() and is_json_lines(path):
            return cls(inspect_json(path), (), (), rules, options, now_text, may_consent)
        file = inspect_csv(path, encoding=options.encoding, delimiter=options.delimiter)
        header = read_header(file)
        return cls(file, header, match_header(header, options), rules, options, now_text, may_consent)

    @property
    def form(self) -> str:
        """One of ``FORMS``."""
        return "csv" if isinstance(self.file, CsvFile) else "jsonl"

    @property
    def targets(self) -> list[str] | None:
        """The fields that the file fills; ``None`` where every row has its own."""
        return [column.target for column in self.columns] if isinstance(self.file, CsvFile) else None

    @property
    def mapping(self) -> dict[str, str]:
        """The field of each column by its heading, as far as headings are known before the rows are."""
        if isinstance(self.file, CsvFile):
            return {column.header: column.target for column in self.columns}
        return dict(self.options.mapping)

    def pieces(self, size: int) -> Iterator[Piece]:
        """All rows in pieces of ``size`` records; the same file always falls into the same pieces."""
        read = self._read_objects() if isinstance(self.file, JsonFile) else self._read_table(self.file)
        seen = SeenKeys()
        try:
            count, last_offset, piece = 0, 0, Piece()
            for record, values in read:
                count += 1
                self._take(record, values, piece)
                last_offset = record.end_offset
                if count % size == 0:
                    yield _finished(piece, count, last_offset, seen)
                    piece = Piece()
            if count % size:
                yield _finished(piece, count, last_offset, seen)
        finally:
            seen.close()

    def _read_table(self, file: CsvFile) -> Iterator[tuple[Record, Callable[[], Values]]]:
        converters: dict[str, Converter] = {
            name: partial(convert_text, kind=rule.type, path=rule.path) for name, rule in self.rules.items()
        }
        reader = RowReader(
            self.columns, len(self.header), converters, _instant, self.options, is_ours=is_our_own(self.header)
        )
        records = read_records(file)
        next(records)  # the header
        for record in records:
            yield record, partial(reader.read, record.cells)

    def _read_objects(self) -> Iterator[tuple[JsonRecord, Callable[[], Values]]]:
        assert isinstance(self.file, JsonFile)
        reader = ObjectReader(_instant, self.options)
        for record in read_json_records(self.file):
            yield record, partial(reader.read, record.document)

    def _take(self, record: Record | JsonRecord, read: Callable[[], Values], piece: Piece) -> None:
        try:
            if record.fault is not None:
                raise ValidationError.at("row", f"not_{self.form}", record.fault)
            values = read()
            if self.rules and "metadata" in values:
                self._hold_to_rules(values["metadata"])
            act = self._consent(record.row_no, values)
        except ValidationError as error:
            piece.errors.append(self.error(record.row_no, error))
            return
        if act is not None:
            piece.consents.append(act)
        values["row_no"] = record.row_no
        piece.rows.append(values)

    def _hold_to_rules(self, metadata: Any) -> None:
        given = {name: value for name, value in metadata.items() if value is not None}
        problems = declared_faults(self.rules, given, complete=False)
        if problems:
            raise ValidationError(problems=problems)

    def error(self, row_no: int, error: ValidationError) -> RowError:
        """What kept a row out, under the heading that the person who made the file knows."""
        problem = error.problems[0]
        column = next((column.header for column in self.columns if column.target == problem.path), problem.path)
        return RowError(row_no, column, problem.code, problem.message)

    def _consent(self, row_no: int, values: Values) -> ConsentAct | None:
        """Take what the row says about consent out of its values."""
        taken = {target: values.pop(target) for target in CONSENT_TARGETS if target in values}
        if taken.get("consent") is None:
            return None
        if not self.may_consent:
            message = "Consent needs the scope consents:write: ask for it, or ignore the column."
            raise ValidationError.at("consent", "not_permitted", message)
        texts = {target: None if value is None else str(value) for target, value in taken.items()}
        word = ConsentWord(str(texts["consent"]))
        at = texts.get("consent_at")
        if word is ConsentWord.GIVEN:
            for needed in ("consent_at", "consent_source"):
                if texts.get(needed) is None:
                    message = f"consent without {needed} proves nothing: fill {needed} or empty the consent cell."
                    raise ValidationError.at(needed, "no_consent_evidence", message)
        if at is not None and at > self.now_text:
            raise ValidationError.at(
                "consent_at", "out_of_bounds", f"{at} lies in the future: write when it was given."
            )
        if "email_norm" not in values:
            message = "Consent here is to e-mail, and the row has no address: add it or empty the consent cell."
            raise ValidationError.at("consent", "no_email", message)
        return ConsentAct(
            row_no,
            str(values["email_norm"]),
            word,
            at,
            texts.get("consent_source"),
            _checked_ip(texts.get("consent_ip")),
            texts.get("consent_text_version"),
        )


_instant: Converter = partial(convert_text, kind=FieldType.DATETIME, path="consent_at")


def read_header(file: CsvFile) -> Sequence[str]:
    """The first record of a file.

    Raises:
        ValidationError: it cannot be read.
    """
    record = next(read_records(file), None)
    if record is None or record.fault is not None:
        raise ValidationError.at("header", "unreadable", "The first line cannot be read as a header: is it CSV?")
    return record.cells


def _finished(piece: Piece, row_count: int, end_offset: int, seen: SeenKeys) -> Piece:
    """Leave out rows that came before in the file, and bring the rest into the order in which rows are locked."""
    piece.row_count, piece.end_offset = row_count, end_offset
    before = len(piece.rows)
    for name in ("email_norm", "external_id"):
        piece.rows = _first_times(piece.rows, name, seen)
    piece.duplicate = before - len(piece.rows)
    piece.rows.sort(key=_place)
    if piece.consents:
        kept = {row["row_no"] for row in piece.rows}
        piece.consents = [act for act in piece.consents if act.row_no in kept]
    return piece


def _place(row: Values) -> tuple[str, str, str]:
    return str(row.get("email_norm") or ""), str(row.get("external_id") or ""), str(row.get("phone") or "")


def _first_times(rows: list[Values], name: str, seen: SeenKeys) -> list[Values]:
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
