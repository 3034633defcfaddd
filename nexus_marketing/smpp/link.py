"""An open connection of a bind."""

from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from nexus_marketing.smpp.jobs import UnderWay
from nexus_marketing.smpp.opening import Opened

_LAST_SEQUENCE: Final = 0x7FFF_FFFF


@dataclass(slots=True)
class Link:
    """An open connection. ``asked_at`` is when it was asked whether it is alive, ``parts_at`` when it ends at the latest."""

    opened: Opened
    under_way: UnderWay
    began_at: float
    heard_at: float
    sequence: int = 1
    out: bytes = b""
    asked_at: float | None = None
    #: It takes no more messages; the sequence number of the centre's ``unbind``, if it was the centre's wish.
    parts_at: float | None = None
    unbind: int | None = None
    #: Deliveries, and those that are not answered yet.
    deliveries: int = 0
    unanswered: int = 0
    was_useful: bool = False
    id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def may_end(self) -> bool:
        """Whether nobody waits for anything."""
        return self.under_way.is_idle and not self.unanswered and not self.out

    def next_sequence(self) -> int:
        """What the next request is numbered with."""
        self.sequence = 1 if self.sequence >= _LAST_SEQUENCE else self.sequence + 1
        return self.sequence
