"""Strangers: how much each address may ask for without a key, in this process (SECURITY.md S03, S18).

The address is the one that the server says (``REMOTE_ADDR``); which proxies are believed about it is the server's setting.
Windows are in memory: they cost microseconds and need nobody else. An address that tells nobody apart is not counted.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.errors import AuthenticationFailed, NoSuchAddress, PermissionDenied, RateLimited
from nexus_marketing.limits.addresses import visitor_of
from nexus_marketing.limits.memories import ShortMemory
from nexus_marketing.limits.windows import SlidingWindows, Verdict
from nexus_marketing.plugin.circuits import write_down
from nexus_marketing.settings import VisitorSettings
from nexus_marketing.telemetry import Telemetry, get_logger

log = get_logger(__name__)


class Crowd(StrEnum):
    """What strangers come for; each has a limit of its own."""

    #: Opens and clicks: beyond it they are answered, and not recorded.
    ENGAGEMENTS = "engagements"
    #: Beyond it there is a page that says so.
    PAGES = "pages"
    #: The way out: beyond it it is as open, and repetitions cost less.
    UNSUBSCRIBING = "unsubscribing"
    #: Programs: beyond it they are told when to come again.
    CALLS = "calls"
    #: Not of a route: whoever does not know what it takes.
    GUESSES = "guesses"


#: They are let in beyond the limit too; their view does less for them (``is_flood``).
ALWAYS_ANSWERED: Final[Collection[Crowd]] = frozenset({Crowd.ENGAGEMENTS, Crowd.UNSUBSCRIBING})
#: Below ``state_dir``: what each web process turned away.
FLOODS: Final = "visitors"
_MINUTE: Final = 60.0
_KEPT: Final = timedelta(days=1)
#: How long a token that has done its work need not do it again, beyond the limit: its person may have come back meanwhile.
_DONE_SECONDS: Final = 1.0
_DESTINATION_SECONDS: Final = 86_400.0
#: So often it is said that there is such a proxy.
_PROXY_SECONDS: Final = 3_600.0
#: Parts of the environment of a request.
_FLOOD: Final = "nexus.flood"
PAGE: Final = "nexus.page"


@dataclass(slots=True)
class Flood:
    """What a process turned away since ``since``, the last of it at ``at`` (ISO 8601, UTC), by crowd.

    ``unnamed_proxy``: strangers came through a proxy that the server was not told of.
    """

    since: str
    at: str
    turned_away: dict[str, int] = field(default_factory=dict)
    unnamed_proxy: bool = False

    def is_recent(self, now: datetime) -> bool:
        """Whether it is of the last day."""
        try:
            return datetime.fromisoformat(self.at) > now - _KEPT
        except ValueError:
            return False


class Visitors:
    """Of one process; every method may be called from any thread.

    Args:
        settings: how much of each crowd an address may be.
        now_seconds: a clock that never goes back.
        folder: where it is written down what was turned away, for ``doctor``.
    """

    def __init__(
        self, settings: VisitorSettings, now_seconds: Callable[[], float], telemetry: Telemetry, folder: Path
    ) -> None:
        pages = settings.pages_per_minute
        limits = {
            Crowd.ENGAGEMENTS: settings.engagements_per_minute,
            Crowd.PAGES: pages,
            Crowd.UNSUBSCRIBING: pages,
            Crowd.CALLS: settings.calls_per_minute,
            Crowd.GUESSES: settings.guesses_per_minute,
        }
        self._windows = {
            crowd: SlidingWindows(limit, _MINUTE, now_seconds)
            for crowd, limit in limits.items()
            if limit and settings.limited
        }
        self._now_seconds, self._telemetry, self._folder = now_seconds, telemetry, folder
        self._lock = threading.Lock()
        self._flood = Flood("", "")
        self._written: Counter[str] = Counter()
        self._has_written = False
        self._written_at = self._proxy_told_at = float("-inf")
        #: Tokens that have done their work for good; beyond the limit they need not do it again at once.
        self.done = ShortMemory[str, bool](_DONE_SECONDS, now_seconds)
        #: Where clicks lead, by tenant, send and link: it never changes, and is wanted when the database is away.
        self.destinations = ShortMemory[tuple[int, int, int], str](_DESTINATION_SECONDS, now_seconds)

    def admit(self, crowd: Crowd, environ: dict[str, Any]) -> None:
        """Count a request among its crowd.

        Raises:
            RateLimited: there were too many of this address, and this crowd is not always answered.
        """
        if environ.get("retry.attempt"):
            return  # the same request, done again by ourselves
        verdict = self._ask(crowd, environ, SlidingWindows.take)
        if verdict is None or verdict.allowed:
            return
        self._turn_away(crowd)
        if crowd in ALWAYS_ANSWERED:
            environ[_FLOOD] = True
            return
        environ["nexus.limit"] = verdict
        environ[PAGE] = crowd is Crowd.PAGES
        raise _too_many(verdict)

    def note_guess(self, environ: dict[str, Any], *, page: bool) -> None:
        """Somebody asked for what we never made; telling so cost nothing.

        Args:
            environ: of the request.
            page: whether people read the answer.

        Raises:
            RateLimited: this address does nothing else.
        """
        verdict = self._ask(Crowd.GUESSES, environ, SlidingWindows.take)
        if verdict is not None and not verdict.allowed:
            environ[PAGE] = page
            self._turn_away(Crowd.GUESSES)
            raise _too_many(verdict)

    @contextmanager
    def guarding(self, about: str, environ: Mapping[str, Any]) -> Iterator[None]:
        """Around what finds out, at a cost, whether somebody knows a secret.

        Args:
            about: what they would get at: whoever is wrong about one thing may come from where others are right about another.
            environ: of the request.

        Raises:
            RateLimited: this address was wrong about this too often: nobody looks any more.
        """
        verdict = self._ask(Crowd.GUESSES, environ, SlidingWindows.look, about)
        if verdict is not None and not verdict.allowed:
            self._turn_away(Crowd.GUESSES)
            raise _too_many(verdict)
        try:
            yield
        except (AuthenticationFailed, NoSuchAddress, PermissionDenied):
            self._ask(Crowd.GUESSES, environ, SlidingWindows.take, about)
            raise

    def _ask(
        self, crowd: Crowd, environ: Mapping[str, Any], how: Callable[[SlidingWindows, Any], Verdict], about: str = ""
    ) -> Verdict | None:
        windows = self._windows.get(crowd)
        if windows is None:
            return None
        visitor = visitor_of(environ.get("REMOTE_ADDR", ""))
        if visitor is None:
            if "HTTP_X_FORWARDED_FOR" in environ:
                self._tell_of_proxy()
            return None
        return how(windows, (visitor, about))

    def _turn_away(self, crowd: Crowd) -> None:
        """Count it; write it down at the first, whenever it has doubled, and once a minute."""
        self._telemetry.count("visitors.limited", crowd=str(crowd))
        with self._lock:
            counts = self._begun().turned_away
            count = counts[crowd] = counts.get(crowd, 0) + 1
            now = self._now_seconds()
            due = count >= 2 * self._written[crowd] or now >= self._written_at + _MINUTE
            if due:
                self._written[crowd], self._written_at = count, now
                self._write()
        if due:
            log.warning("visitors_flood", crowd=str(crowd), turned_away=count)

    def _tell_of_proxy(self) -> None:
        with self._lock:
            now = self._now_seconds()
            if now < self._proxy_told_at + _PROXY_SECONDS:
                return
            self._proxy_told_at = now
            self._begun().unnamed_proxy = True
            self._write()
        log.warning("visitors_behind_unnamed_proxy")

    def _begun(self) -> Flood:
        now = SystemClock().now()
        if not self._flood.since or datetime.fromisoformat(self._flood.since) <= now - _KEPT:
            self._flood = Flood(now.isoformat(), "")
            self._written.clear()
        self._flood.at = now.isoformat()
        return self._flood

    def _write(self) -> None:
        try:
            if not self._has_written:
                self._has_written = True
                _forget_others(self._folder)
            write_down(self._folder / f"{os.getpid()}.json", self._flood)
        except OSError as error:  # a full disk must not fail the request
            log.warning("visitors_flood_not_kept", error=str(error))


def _forget_others(folder: Path) -> None:
    """What processes wrote down that are long gone."""
    oldest = (SystemClock().now() - _KEPT).timestamp()
    for file in folder.glob("*.json"):
        if file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)


def is_flood(environ: Mapping[str, Any]) -> bool:
    """Whether a request that is answered all the same was one too many of its address."""
    return _FLOOD in environ


def _too_many(verdict: Verdict) -> RateLimited:
    return RateLimited("Too many requests from your address: wait.", retry_after_seconds=verdict.retry_after_seconds)
