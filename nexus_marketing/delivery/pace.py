"""How fast a worker hands over, and how wide its windows are."""

from dataclasses import dataclass

from nexus_marketing.core.campaigns import MessageClass

MAX_WINDOW = 128
_WINDOW_SECONDS = 0.010


@dataclass(slots=True)
class Pace:
    """The hand-over rate a worker sees, messages per second; decides how wide a window is.

    ``wire_rate`` leaves out the time that commits were waited for. Windows go by it: with a slow disk they would
    become narrow, and so there would be more commits to wait for.
    """

    rate: float = 0.0
    wire_rate: float = 0.0

    def window(self, max_in_flight: int, message_class: MessageClass) -> int:
        """W = clamp(connections, 10 ms of messages, 128); transactional mail stays at connections."""
        if message_class is MessageClass.TRANSACTIONAL:
            return max(1, max_in_flight)
        return max(max_in_flight, min(MAX_WINDOW, int(self.wire_rate * _WINDOW_SECONDS)), 1)

    def saw(self, messages: int, seconds: float, waited_seconds: float = 0.0) -> None:
        """Learn from a window that took so long, the wait for commits included."""
        if messages and seconds > waited_seconds:
            self.rate = _smoothed(self.rate, messages / seconds)
            self.wire_rate = _smoothed(self.wire_rate, messages / (seconds - waited_seconds))


def _smoothed(rate: float, seen: float) -> float:
    return 0.5 * rate + 0.5 * seen if rate else seen
