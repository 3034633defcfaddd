"""Work of which one piece that fails keeps no other from being done."""

from collections.abc import Callable

from nexus_marketing.db.retry import DATABASE_ERRORS, is_conflict, is_transient
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def isolated(step: Callable[[], int], **about: object) -> int:
    """Do a piece of work; answers what it answers, or nothing where it failed, which is logged with what it was about.

    Raises:
        DATABASE_ERRORS: the database is away or busy, which concerns all of them.
    """
    try:
        return step()
    except DATABASE_ERRORS as error:
        if is_conflict(error):  # two workers were in each other's way: the next turn does it
            log.warning("worker_step_in_the_way", exc_info=True, **about)
            return 0
        if is_transient(error):
            raise
        log.exception("worker_step_failed", **about)
    except Exception:  # isolation boundary
        log.exception("worker_step_failed", **about)
    return 0
