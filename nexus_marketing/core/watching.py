"""When it is looked again what people did about a post: often while it is new, and not at all once it is old.

>>> from datetime import UTC
>>> noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
>>> next_look(noon, None).isoformat(), next_look(noon, noon + timedelta(hours=5)).isoformat()
('2026-03-02T12:15:00+00:00', '2026-03-02T18:00:00+00:00')
>>> next_look(noon, noon + WATCHED_FOR)
"""

from datetime import datetime, timedelta
from typing import Final

#: Older posts are not looked at: the ids of events are kept for a few days longer, so that nothing is written down twice.
WATCHED_FOR: Final = timedelta(days=30)
_FIRST: Final = timedelta(minutes=15)
#: How long to wait, for posts that are not older than that: some eighty looks in all, of a few requests each.
_PAUSES: Final = (
    (timedelta(hours=1), _FIRST),
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(days=7), timedelta(hours=6)),
    (WATCHED_FOR, timedelta(days=1)),
)


def next_look(posted_at: datetime, seen_at: datetime | None) -> datetime | None:
    """When to look at a post again; nothing where it is too old for that.

    Args:
        posted_at: when it was launched (aware UTC).
        seen_at: when it was looked at last, if it ever was.
    """
    if seen_at is None:
        return posted_at + _FIRST
    age = seen_at - posted_at
    pause = next((pause for limit, pause in _PAUSES if age < limit), None)
    return None if pause is None or age + pause > WATCHED_FOR else seen_at + pause
