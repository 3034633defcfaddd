"""What an import tells of itself: while it goes on, and when it is over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nexus_marketing.services.imports.rows import Piece, RowError, RowSource
from nexus_marketing.services.imports.writing import PieceOutcome

#: How many rejected rows a report shows; all of them are kept with the import.
SHOWN_ERRORS: Final = 50
#: How many rows of each outcome a dry run shows.
SAMPLES: Final = 10
COUNTS: Final = (
    "created",
    "updated",
    "unchanged",
    "duplicate",
    "rejected",
    "suppressed",
    "consents",
    "consents_refused",
)
_OUTCOMES: Final = ("created", "updated", "unchanged")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    rows: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What would become of one row, without what it says: ``lead_id`` of a lead that is known, and its fields."""

    row_no: int
    outcome: str
    lead_id: int | None
    fields: Sequence[str]


@dataclass(slots=True)
class ImportReport:
    """What became of a file. ``rows`` = created + updated + unchanged + duplicate + rejected.

    ``mapping`` names the field of each column; ``suppressed`` (dry runs only) counts rows whose
    address gets no marketing whatever the file says; ``consents_refused`` counts acts of consent
    that a later withdrawal overrules. ``resumed_at`` is the row at which an interrupted import
    went on, 0 for a fresh one.
    """

    import_id: int | None
    form: str
    encoding: str
    encoding_confidence: float
    delimiter: str
    mapping: Mapping[str, str]
    dry_run: bool = False
    resumed_at: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    rejected: int = 0
    suppressed: int = 0
    consents: int = 0
    consents_refused: int = 0
    errors: list[RowError] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def of(cls, source: RowSource, import_id: int | None = None, *, dry_run: bool = False) -> "ImportReport":
        """About a file of which nothing has been read yet."""
        file = source.file
        return cls(import_id, source.form, file.encoding, file.confidence, file.delimiter, source.mapping, dry_run)

    def add(self, piece: Piece, outcome: PieceOutcome, errors: Sequence[RowError]) -> None:
        """Count a piece."""
        self.rows = piece.row_count
        for name, count in counts_of(piece, outcome, errors).items():
            setattr(self, name, getattr(self, name) + count)
        self.errors += errors[: SHOWN_ERRORS - len(self.errors)]
        if self.dry_run:
            self._sample(outcome)

    def _sample(self, outcome: PieceOutcome) -> None:
        room = {name: SAMPLES - sum(each.outcome == name for each in self.samples) for name in _OUTCOMES}
        if not any(room.values()):
            return
        for decision in outcome.decisions:
            if room[decision.outcome]:
                room[decision.outcome] -= 1
                names = decision.fields or (tuple(sorted(decision.person.values)) if decision.person.id is None else ())
                self.samples.append(Sample(decision.row_no, decision.outcome, decision.person.id, names))


def counts_of(piece: Piece, outcome: PieceOutcome, errors: Sequence[RowError]) -> dict[str, int]:
    """The counts of a piece, by the names of ``COUNTS``."""
    found = {name: getattr(outcome, name, 0) for name in COUNTS}
    return found | {"duplicate": piece.duplicate, "rejected": len(errors)}
