"""Chance that can be drawn again: the same answer for the same lead, on every machine and in every year.

>>> bucket("", "welcome", "split", "7"), bucket("", "welcome", "split", "8")
(6507, 5463)
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from nexus_marketing.core.journeys.nodes import Share

#: A bucket is a hundredth of a percent.
BUCKETS: Final = 10_000


def bucket(*parts: str) -> int:
    """Which of ten thousand equal buckets these words fall into."""
    return _number(parts) * BUCKETS >> 64


def chance(*parts: str) -> float:
    """A number from 0 (included) to 1 (excluded)."""
    return (_number(parts) >> 11) / (1 << 53)


def drawn(shares: Iterable[Share], number: int) -> Share:
    """The share that a bucket lies in; together they are all of them."""
    total = 0
    for share in shares:
        total += share.hundredths
        if number < total:
            return share
    raise ValueError("the shares are not everything")


def _number(parts: Iterable[str]) -> int:
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")
