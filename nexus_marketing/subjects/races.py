"""What a database says when another transaction was first."""

from typing import Final

from nexus_marketing.core.errors import StaleVersion

#: PostgreSQL and MySQL: could not serialize access due to concurrent update.
_SERIALIZATION_FAILURE: Final = "40001"
#: SQLite: a transaction that has read cannot write once another one is writing (BUSY, at once) or has
#: written (BUSY_SNAPSHOT); BUSY after the connection's time-out means the other one took too long.
_BUSY: Final = "SQLITE_BUSY"


def is_lost_race(driver_error: BaseException | None) -> bool:
    """Whether a driver's error means that somebody else was first."""
    return getattr(driver_error, "sqlstate", None) == _SERIALIZATION_FAILURE or str(
        getattr(driver_error, "sqlite_errorname", "")
    ).startswith(_BUSY)


def check_revision(subject: str, found: int | None, known: int) -> None:
    """Hold the revision in a locked row against the one an object was loaded with.

    Args:
        subject: whose row it is, for the message.
        found: the row's revision, or nothing where the row is gone.
        known: the object's.

    Raises:
        StaleVersion: they differ.
    """
    if found is None:
        raise StaleVersion(f"The row of {subject} is gone: somebody else deleted it.")
    if found != known:
        raise StaleVersion(
            f"The campaigns of {subject} are at revision {found}, not {known}: somebody else changed them first; "
            "look at them and try again.",
            current=found,
        )


def lost_race(subject: str) -> StaleVersion:
    """The error for :func:`is_lost_race`: only a new transaction can see what happened."""
    return StaleVersion(
        f"Somebody else has written since this transaction began: roll back, look at {subject} and try again."
    )
