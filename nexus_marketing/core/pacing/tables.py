"""Rules as a tenant writes them down: a list of tables, every fault of every table with its place."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import parse_duration

#: Tables of a list: each costs every recipient a look.
_MOST: Final = 20
_MOST_DOMAINS: Final = 100
_LONGEST_DOMAIN: Final = 253
_DOMAIN: Final = re.compile(r"(?:[\w-]{1,63}\.)+[\w-]{2,63}")
_ADDRESS: Final = re.compile(r"[^\s@]{1,64}@" + _DOMAIN.pattern)
Choice = TypeVar("Choice", bound=StrEnum)


def checked_tables(value: object, name: str, read: Callable[["Table"], object]) -> list[dict[str, Any]]:
    """The list in the form in which it is stored.

    Args:
        value: as it was written.
        name: of the setting.
        read: makes a rule of a table, or refuses it.

    Raises:
        ValidationError: it is no list, or every fault of its tables.
    """
    if not isinstance(value, list):
        raise ValidationError.at("", "not_a_list", f"{name} is a list of tables, empty where there are none.")
    if len(value) > _MOST:
        raise ValidationError.at("", "too_many", f"{name} has {len(value)} tables: {_MOST} at most.")
    problems: list[Problem] = []
    for index, document in enumerate(value):
        try:
            read(Table(document, f"[{index}]"))
        except ValidationError as error:
            problems += error.problems
    if problems:
        raise ValidationError(problems=problems)
    return [dict(document) for document in value]


class Table:
    """One table and where it stands."""

    def __init__(self, document: object, path: str = "") -> None:
        if not isinstance(document, Mapping):
            raise ValidationError.at(path, "not_a_table", f"{document!r} is no table of names and values.")
        self._document, self._path = document, path

    def only(self, *known: str) -> None:
        """Refuse other keys."""
        for key in self._document.keys() - set(known):
            self.refuse(str(key), "unknown_key", f"{key!r} means nothing here: known are {', '.join(known)}.")

    def get(self, key: str, default: Any = None) -> Any:
        """A value as it stands."""
        return self._document.get(key, default)

    def choice(self, key: str, default: Choice) -> Choice:
        """One of a few words."""
        value, words = self.get(key, default), type(default)
        if value not in tuple(words):
            self.refuse(key, "unknown_choice", f"{value!r} is none of {', '.join(words)}.")
        return words(value)

    def count(self, key: str, default: int | None, most: int) -> int:
        """A whole number from 1."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self.refuse(key, "not_a_count", f"{value!r} is no whole number from 1 to {most}.")
        return value

    def share(self, key: str, default: float) -> float:
        """A number above nothing and up to one."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            self.refuse(key, "not_a_share", f"{value!r} is no share: write a number above 0 and up to 1.")
        return float(value)

    def span(self, key: str, default: timedelta | None, longest: timedelta) -> timedelta:
        """A length of time above nothing, as text."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        try:
            found = parse_duration(str(value))
        except ValidationError:
            found = timedelta()
        if not timedelta() < found <= longest:
            example = f"write one up to {longest.days} days, such as '36 hours'"
            self.refuse(key, "not_a_span", f"{value!r} is no span: {example}.")
        return found

    def channel(self) -> str | None:
        """The channel that the rule is for; nothing: all."""
        value = self.get("channel")
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 64):
            self.refuse("channel", "not_a_channel", f"{value!r} is no name of a channel.")
        return value

    def sender(self) -> str | None:
        """The address that messages come from, in lower case; nothing: any."""
        value = self.get("sender")
        if value is None:
            return None
        if not isinstance(value, str) or not _ADDRESS.fullmatch(value.strip()):
            self.refuse("sender", "not_an_address", f"{value!r} is no address that messages come from.")
        return value.strip().lower()

    def domains(self, key: str) -> frozenset[str]:
        """Domains of addresses as they are compared: lower case, ASCII; none where the key is left out."""
        value = self.get(key)
        if value is None:
            return frozenset()
        if not isinstance(value, list) or not 0 < len(value) <= _MOST_DOMAINS:
            self.refuse(
                key, "not_domains", f"{value!r} is no list of 1 to {_MOST_DOMAINS} domains, such as ['gmail.com']."
            )
        return frozenset(self._domain(key, each) for each in value)

    def _domain(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not _DOMAIN.fullmatch(value) or len(value) > _LONGEST_DOMAIN:
            self.refuse(key, "not_a_domain", f"{value!r} is no domain such as 'gmail.com'.")
        return value.lower()

    def place(self, key: str) -> str:
        """Where a key of it stands."""
        return f"{self._path}.{key}"

    def refuse(self, key: str, code: str, message: str) -> NoReturn:
        """Say what is wrong with a key.

        Raises:
            ValidationError: always.
        """
        raise ValidationError.at(self.place(key), code, message)
