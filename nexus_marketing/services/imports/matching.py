"""Which lead a row is, and what it changes of it: decided in memory, for a dry run as for the writing.

A piece's leads are read once, by every key that a row may be known by. A row that meets a lead which an
earlier row of the piece made or changed sees what that row left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nexus_marketing.core.audience import FieldRule, Rules
from nexus_marketing.core.audience.custom import missing
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.queries.imports import COLUMNS, ids_having, leads_by_id
from nexus_marketing.runtime import Context

Values = dict[str, Canonical]
_KEYS: Final = ("external_id", "email_norm", "phone")
_DOCUMENTS: Final = ("tags", "metadata")
OUTCOMES: Final = ("created", "updated", "unchanged")


@dataclass(slots=True, eq=False)
class Person:
    """A lead as a piece finds and leaves it; ``before`` are the values of the fields that changed.

    A lead that is new has no id yet, and the number of the row that made it.
    """

    id: int | None
    values: Values
    before: Values | None = None
    row_no: int = 0

    def change(self, changes: Mapping[str, Canonical]) -> None:
        """Take new values on, and remember those that were first."""
        if self.id is not None:
            self.before = self.before or {}
            for name in changes:
                self.before.setdefault(name, self.values.get(name))
        self.values.update(changes)

    @property
    def is_changed(self) -> bool:
        """Whether anything is not as it was found; a value that went and came back is as it was."""
        return any(self.values.get(name) != value for name, value in (self.before or {}).items())


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one row: ``created``, ``updated`` or ``unchanged``, and of which fields."""

    row_no: int
    outcome: str
    person: Person
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class Matched:
    """What becomes of a piece's rows; ``decisions`` only where they were asked for."""

    created: list[Person] = field(default_factory=list)
    changed: list[Person] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    decisions: list[Decision] = field(default_factory=list)
    errors: list[tuple[int, ValidationError]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Matcher:
    """Made once per import.

    Args:
        rules: what happens to a field.
        required: declared fields that a new lead must have.
        columns: of ``db.queries.imports.COLUMNS``, which the file may fill.
    """

    rules: Rules
    required: Sequence[FieldRule]
    columns: tuple[str, ...]

    def match(self, ctx: Context, rows: Sequence[Values], known: Sequence[int], *, lock: bool, tell: bool) -> Matched:
        """Decide every row of a piece, in their order.

        Args:
            rows: values with their ``row_no``; no two have the same external id or address.
            known: as of :meth:`look_up`. A lead that was made since shows when it is made again.
            lock: keep others from changing the leads until the transaction ends.
            tell: whether each decision is wanted.
        """
        people, matched = self._people(ctx, rows, known, lock=lock), Matched()
        # Only by telephone may a row be a lead that another row of the piece has just made.
        meets_new = any("phone" in row for row in rows)
        for row in rows:
            row_no: Any = row["row_no"]
            fields: tuple[str, ...] = ()
            try:
                person = people.find(row)
                if person is None:
                    outcome, person = "created", self._new(row, row_no)
                    matched.created.append(person)
                    if meets_new:
                        people.add(person)
                else:
                    fields = self._known(people, person, row)
                    outcome = "updated" if fields else "unchanged"
            except ValidationError as error:
                matched.errors.append((row_no, error))
                continue
            matched.counts[outcome] += 1
            if tell:
                matched.decisions.append(Decision(row_no, outcome, person, fields))
        matched.changed = [person for person in people.all if person.before and person.is_changed]
        return matched

    def _new(self, row: Values, row_no: int) -> Person:
        values = self.rules.new(row)
        del values["row_no"]
        if self.required:
            metadata: Any = values.get("metadata") or {}
            problems = [missing(rule) for rule in self.required if metadata.get(rule.name) is None]
            if problems:
                raise ValidationError(problems=problems)
        return Person(None, values, row_no=row_no)

    def _known(self, people: "_People", person: Person, row: Values) -> tuple[str, ...]:
        """Change a known lead; which fields that changed."""
        changes = self.rules.merge(person.values, row)
        if not changes:
            return ()
        people.check_keys(person, changes)
        person.change(changes)
        people.add_keys(person, changes)
        return tuple(sorted(changes.keys() - {"email_norm"}))

    def look_up(self, ctx: Context, rows: Sequence[Values]) -> list[int]:
        """Leads with the external id or address of a row, at this moment: :meth:`match` takes them again, locked."""
        return ids_having(ctx.session, {name: _texts(rows, name) for name in ("external_id", "email_norm")})

    def _people(self, ctx: Context, rows: Sequence[Values], known: Sequence[int], *, lock: bool) -> "_People":
        columns = [name for name in COLUMNS if name in self.columns or name in _KEYS or name == "email"]
        people = _People()
        people.take(leads_by_id(ctx.session, known, columns, lock=lock), columns)
        by_phone = [row for row in rows if row.get("phone") and people.strong(row) is None]
        if by_phone:
            found = set(ids_having(ctx.session, {"phone": _texts(by_phone, "phone")})) - people.ids
            people.take(leads_by_id(ctx.session, sorted(found), columns, lock=lock), columns)
        return people


class _People:
    """Leads by what they are known by."""

    def __init__(self) -> None:
        self.all: list[Person] = []
        self.ids: set[int] = set()
        self._by_id: dict[str, Person] = {}
        self._by_email: dict[str, Person] = {}
        self._by_phone: dict[str, list[Person]] = {}

    def take(self, found: Iterable[Any], columns: Sequence[str]) -> None:
        """Add leads that are there."""
        for row in found:
            values = dict(zip(columns, row[2:], strict=True))
            for name in _DOCUMENTS:
                if isinstance(values.get(name), str):
                    values[name] = orjson.loads(values[name])
            self.ids.add(row.id)
            self.add(Person(row.id, values))

    def add(self, person: Person) -> None:
        """Add one, by all its keys."""
        self.all.append(person)
        self.add_keys(person, person.values)

    def add_keys(self, person: Person, values: Mapping[str, Canonical]) -> None:
        """Let a person be found by keys that it has got."""
        if (key := values.get("external_id")) is not None:
            self._by_id.setdefault(str(key), person)
        if (key := values.get("email_norm")) is not None:
            self._by_email.setdefault(str(key), person)
        if (key := values.get("phone")) is not None:
            known = self._by_phone.setdefault(str(key), [])
            if person not in known:
                known.append(person)

    def strong(self, row: Values) -> Person | None:
        """By external id, else by address, whether that is right or not."""
        return self._with(row, "external_id") or self._with(row, "email_norm")

    def find(self, row: Values) -> Person | None:
        """The lead that a row is: by external id, then by address, then by phone number.

        Raises:
            ValidationError: it would be two.
        """
        of_id, of_email = self._with(row, "external_id"), self._with(row, "email_norm")
        if _gave_away(of_id, row, "external_id") or _gave_away(of_email, row, "email_norm"):
            raise _ambiguous()
        if of_id is not None:
            if of_email is not None and of_email is not of_id:
                raise _ambiguous()
            return of_id
        if of_email is not None:
            if _contradicts(of_email, row, "external_id"):
                raise _ambiguous()
            return of_email
        return self._by_number(row)

    def check_keys(self, person: Person, changes: Mapping[str, Canonical]) -> None:
        """See that no other lead has the keys that a row gives to this one.

        Raises:
            ValidationError: one has.
        """
        for name in ("external_id", "email_norm"):
            if self._with(changes, name) not in (None, person):
                raise _ambiguous()

    def _by_number(self, row: Values) -> Person | None:
        """People share a telephone: only a lead that nothing else tells apart is the same."""
        phone = row.get("phone")
        if phone is None:
            return None
        found = [
            person
            for person in self._by_phone.get(str(phone), ())
            if person.values.get("phone") == phone
            and not _contradicts(person, row, "external_id")
            and not _contradicts(person, row, "email_norm")
        ]
        if len(found) > 1:
            message = f"{len(found)} leads have this phone number: add an external id or an e-mail address to the row."
            raise ValidationError.at("phone", "ambiguous_match", message)
        return found[0] if found else None

    def _with(self, row: Mapping[str, Canonical], name: str) -> Person | None:
        """Who has the row's key, or had it when the piece began."""
        key = row.get(name)
        return None if key is None else (self._by_id if name == "external_id" else self._by_email).get(str(key))


def _gave_away(person: Person | None, row: Values, name: str) -> bool:
    """Whether an earlier row of the piece gave this key's lead another: the database still holds the old one."""
    return person is not None and person.values.get(name) != row[name]


def _contradicts(person: Person, row: Values, name: str) -> bool:
    had, has = person.values.get(name), row.get(name)
    return had is not None and has is not None and had != has


def _ambiguous() -> ValidationError:
    message = "The external id and the e-mail address belong to different leads: mend one of the two."
    return ValidationError.at("external_id", "ambiguous_match", message)


def _texts(rows: Iterable[Values], name: str) -> list[str]:
    return [str(row[name]) for row in rows if row.get(name) is not None]
