"""Two leads of one person become one: which value of each field is kept, as a pure function.

>>> merged_values({"name": "Ann", "phone": None}, {"name": "A. Lee", "phone": "+4930123456"}, {})["phone"]
'+4930123456'
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from nexus_marketing.core.audience.fields import LEAD_FIELDS, MAX_TAGS
from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.values import Canonical, email_norm


class RemovalKind(StrEnum):
    """How a lead goes."""

    MERGED = "merged"
    ERASED = "erased"


class MergePolicy(StrEnum):
    """What happens to a field: the winner's value stays, its gap is filled, or the other's value is taken.

    ``max`` and ``sum`` are for the score.
    """

    KEEP = "keep"
    FILL = "fill"
    TAKE = "take"
    MAX = "max"
    SUM = "sum"


#: What can be decided field by field. The parts of a name go with the whole.
MERGE_FIELDS: Final = (*(name for name in LEAD_FIELDS if name not in ("first_name", "last_name")), "owner_id", "score")
_PARTS: Final = {"name": ("name", "first_name", "last_name"), "email": ("email", "email_norm")}
_NUMBERS_ONLY: Final = (MergePolicy.MAX, MergePolicy.SUM)
Values = Mapping[str, Canonical]


def read_policy(given: Mapping[str, object]) -> dict[str, MergePolicy]:
    """The policy of each field; ``fill``, and for the score ``max``, where nothing is said.

    Raises:
        ValidationError: each field and each word that is none.
    """
    policy = dict.fromkeys(MERGE_FIELDS, MergePolicy.FILL) | {"score": MergePolicy.MAX}
    problems = []
    for name, word in given.items():
        path = f"policy.{name}"
        allowed = [each for each in MergePolicy if name == "score" or each not in _NUMBERS_ONLY]
        if name not in MERGE_FIELDS:
            problems.append(Problem(path, "unknown_field", f"A lead has no field {name!a}{hint(name, MERGE_FIELDS)}."))
        elif word not in allowed:
            problems.append(Problem(path, "not_allowed", f"{word!r} is no policy: use {', '.join(allowed)}."))
        else:
            policy[name] = MergePolicy(str(word))
    if problems:
        raise ValidationError(problems=problems)
    return policy


def merged_values(winner: Values, loser: Values, policy: Mapping[str, MergePolicy]) -> dict[str, Canonical]:
    """What the winner is afterwards.

    Tags are united in every policy but ``keep``: nobody loses a mark by being merged.

    Args:
        winner: stored values by field; ``metadata`` is an object, ``tags`` a list.
        loser: the same of the lead that goes.
        policy: from :func:`read_policy`; ``fill`` where it says nothing.
    """
    values: dict[str, Canonical] = {}
    for name in MERGE_FIELDS:
        chosen = policy.get(name, MergePolicy.FILL)
        if name == "tags":
            values[name] = _tags(winner, loser, chosen)
        elif name == "metadata":
            values[name] = _metadata(winner, loser, chosen)
        elif name == "score":
            values[name] = _score(winner, loser, chosen)
        else:
            source = loser if _goes_to_loser(winner.get(name), loser.get(name), chosen) else winner
            values |= {part: source.get(part) for part in _PARTS.get(name, (name,))}
    return values


def mailbox(address: str) -> str:
    """The mailbox behind an address at providers that ignore dots or what follows a plus.

    >>> mailbox("a.nn+news@googlemail.com"), mailbox("a.nn@example.org")
    ('ann@gmail.com', 'a.nn@example.org')
    """
    local, _, domain = email_norm(address).rpartition("@")
    domain = _SAME_DOMAIN.get(domain, domain)
    if domain in _IGNORE_PLUS:
        local = local.partition("+")[0] or local
    if domain in _IGNORE_DOTS:
        local = local.replace(".", "") or local
    return f"{local}@{domain}"


_SAME_DOMAIN: Final = {
    "googlemail.com": "gmail.com",
    "me.com": "icloud.com",
    "mac.com": "icloud.com",
    "pm.me": "proton.me",
}
_IGNORE_DOTS: Final = frozenset({"gmail.com"})
_IGNORE_PLUS: Final = frozenset(
    {"gmail.com", "icloud.com", "outlook.com", "hotmail.com", "live.com", "proton.me", "protonmail.com", "fastmail.com"}
)


def _goes_to_loser(here: Canonical, there: Canonical, policy: MergePolicy) -> bool:
    if there in (None, ""):
        return False
    return policy is MergePolicy.TAKE or (policy is MergePolicy.FILL and here in (None, ""))


def _tags(winner: Values, loser: Values, policy: MergePolicy) -> Canonical:
    own, other = (_list(values.get("tags")) for values in (winner, loser))
    # Tags are bounded; those of the winner come first and stay.
    return own if policy is MergePolicy.KEEP else list(dict.fromkeys([*own, *other]))[:MAX_TAGS]


def _list(value: Canonical) -> list[Canonical]:
    return list(value) if isinstance(value, list) else []


def _metadata(winner: Values, loser: Values, policy: MergePolicy) -> Canonical:
    own, other = (_object(values.get("metadata")) for values in (winner, loser))
    if policy is MergePolicy.KEEP:
        return own
    return {**own, **other} if policy is MergePolicy.TAKE else {**other, **own}


def _object(value: Canonical) -> dict[str, Canonical]:
    return dict(value) if isinstance(value, dict) else {}


def _score(winner: Values, loser: Values, policy: MergePolicy) -> Canonical:
    own, other = (float(str(values.get("score") or 0)) for values in (winner, loser))
    match policy:
        case MergePolicy.TAKE:
            return other
        case MergePolicy.MAX:
            return max(own, other)
        case MergePolicy.SUM:
            return own + other
    return own
