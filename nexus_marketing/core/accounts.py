"""Accounts of a tenant at providers of one channel: which of them a chunk of messages leaves by (BEHAVIOUR.md 5.2).

Smooth weighted round robin (as nginx does it): of accounts with the weights 5, 1, 1 the first gets five of seven turns,
and the others do not wait for all five.
"""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

#: What an account that its provider refused is kept away for before a few messages try it again.
REFUSED_SECONDS: Final = 900.0
FIRST_REST_SECONDS: Final = 5.0
LONGEST_REST_SECONDS: Final = 900.0
#: What a recipient carries whose message may have left by an account: the repetition leaves by no other.
_MARK: Final = "account:"
#: So many characters of a secret in a row are no coincidence.
_TELLING: Final = 6


class AccountHealth(StrEnum):
    """What was last seen of an account."""

    UNKNOWN = "unknown"
    OK = "ok"
    #: No connection could be had.
    UNREACHABLE = "unreachable"
    #: The provider refused login, quota or sender.
    REFUSED = "refused"


class Account(NamedTuple):
    """A tenant's enabled account as dispatch knows it; ``secrets`` are sealed, ``version`` counts what people changed."""

    id: int
    type: str
    config: Mapping[str, Any]
    secrets: bytes | None
    weight: int
    rates: Sequence[Mapping[str, Any]]
    health: str
    version: int


def serving(accounts: Sequence[Account], identity: Collection[str], sender: Mapping[str, Any]) -> list[Account]:
    """Those that may carry messages of a sender: who says something else of who the sender is (``identity``) does not.

    >>> ours = Account(1, "email", {"from_email": "a@x.example"}, None, 1, (), "ok", 1)
    >>> [each.id for each in serving([ours], ["from_email"], {"from_email": "b@x.example"})]
    []
    """
    return [
        each for each in accounts if all(each.config.get(name) in (None, "", sender.get(name)) for name in identity)
    ]


def carrying(accounts: Sequence[Account]) -> list[Account]:
    """Accounts that take part: those that were ill when last seen only where there is no other."""
    ill = (AccountHealth.REFUSED, AccountHealth.UNREACHABLE)
    return [each for each in accounts if each.health not in ill] or list(accounts)


def unspoken(text: str, secrets: Iterable[Any]) -> str:
    """The text, if it says nothing of these secrets, not even a part; else a sentence in its place.

    For what others' code and other people's servers say of settings: they may repeat what they were given.

    >>> unspoken("'s3cret-t…' is too short", ["s3cret-token"])
    'What was said of it holds a secret, and is not shown.'
    """
    for secret in _texts(secrets):
        forms = {secret, b64encode(secret.encode()).decode(), repr(secret)[1:-1]}
        pieces = {form[at : at + _TELLING] for form in forms for at in range(max(1, len(form) - _TELLING + 1))}
        if any(piece in text for piece in pieces):
            return "What was said of it holds a secret, and is not shown."
    return text


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, str):
            if value:
                yield value
        elif isinstance(value, Iterable):
            yield from _texts(value)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def account_mark(account_id: int | None) -> str | None:
    """What is written down of a recipient whose message may have left by an account."""
    return None if account_id is None else f"{_MARK}{account_id}"


def marked_account(mark: str | None) -> int | None:
    """The account that such a mark names."""
    digits = (mark or "").removeprefix(_MARK)
    return int(digits) if mark != digits and digits.isdecimal() else None


@dataclass(slots=True)
class _Seen:
    failures: int = 0
    not_before: float = float("-inf")
    refused_until: float = float("-inf")


@dataclass(slots=True)
class Rota:
    """Whose turn it is, for one worker and all of a tenant's accounts of a channel; moments are monotonic seconds."""

    _seen: dict[int, _Seen] = field(default_factory=dict)
    _turns: dict[int, float] = field(default_factory=dict)

    def pick(
        self, accounts: Sequence[Account], now: float, has_room: Callable[[Account], bool] = lambda _: True
    ) -> Account | None:
        """The account whose turn it is; nothing while all of them rest, or have no room for what waits.

        One of weight 0 stands by: it has turns while nobody else can. One that was refused is tried where there is
        no other to wait for: the answer says so again, or not.
        """
        choices = self.choices(accounts, now, has_room)
        return self._turn(choices) if choices else None

    def choices(
        self, accounts: Sequence[Account], now: float, has_room: Callable[[Account], bool]
    ) -> Sequence[Account]:
        """Those of whom one has the next turn."""
        usable = [each for each in accounts if now >= self._of(each).not_before and has_room(each)]
        good = [each for each in usable if now >= self._of(each).refused_until]
        if good or len(usable) < len(accounts):
            return [each for each in good if each.weight] or good
        return sorted(usable, key=lambda each: self._of(each).refused_until)[:1]

    def is_ready(self, account: Account, now: float) -> bool:
        """Whether it does not rest."""
        return now >= self._of(account).not_before

    def wait(self, account: Account, now: float) -> float:
        """Seconds until it may be tried."""
        return max(0.0, self._of(account).not_before - now)

    def has_other(self, accounts: Sequence[Account], account: Account, now: float) -> bool:
        """Whether what this one cannot carry may leave by another, now or after a rest."""
        return any(each.id != account.id and now >= self._of(each).refused_until for each in accounts)

    def answered(self, account: Account) -> None:
        """It took messages, or said of each what is wrong with it."""
        self._seen.pop(account.id, None)

    def unreachable(self, account: Account, now: float) -> int:
        """No connection: it rests, longer each time; answers how often in a row."""
        seen = self._seen.setdefault(account.id, _Seen())
        seen.failures += 1
        rest = FIRST_REST_SECONDS * 2.0 ** min(seen.failures - 1, 16)
        seen.not_before = now + min(rest, LONGEST_REST_SECONDS)
        return seen.failures

    def refused(self, account: Account, now: float) -> None:
        """Login, quota or sender was refused: others have its turns."""
        self._seen.setdefault(account.id, _Seen()).refused_until = now + REFUSED_SECONDS

    def changed(self, account_id: int) -> None:
        """Somebody changed it: what was seen of it says nothing any more."""
        self._seen.pop(account_id, None)

    def _of(self, account: Account) -> _Seen:
        return self._seen.get(account.id, _NOTHING_SEEN)

    def _turn(self, accounts: Sequence[Account]) -> Account:
        turns = {each.id: self._turns.get(each.id, 0.0) + max(each.weight, 1) for each in accounts}
        chosen = max(accounts, key=lambda each: (turns[each.id], -each.id))
        turns[chosen.id] -= sum(max(each.weight, 1) for each in accounts)
        self._turns = turns
        return chosen


_NOTHING_SEEN: Final = _Seen()
