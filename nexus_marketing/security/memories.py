"""What a process remembers of its callers."""

from pyramid.registry import Registry

from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.security.keys import KeyRing
from nexus_marketing.security.sessions import Sessions
from nexus_marketing.security.visitors import FLOODS, Visitors
from nexus_marketing.services.idempotency import KeysInFlight


def open_memories(registry: Registry) -> None:
    """Begin anew: keys it has seen, windows of their limits, requests under way.

    Made of ``nexus.runtime`` and ``nexus.now_seconds``, as the registry has them.
    """
    runtime = registry["nexus.runtime"]
    now_seconds = registry["nexus.now_seconds"]
    registry["nexus.keys"] = KeyRing(runtime, now_seconds)
    registry["nexus.sessions"] = Sessions(runtime, now_seconds)
    registry["nexus.limits"] = SlidingWindows(runtime.settings.rate_limit_per_minute, 60.0, now_seconds)
    # Strangers with a public key get windows of their own: they must not use up those of the tenant's programs.
    registry["nexus.public_limits"] = SlidingWindows(runtime.settings.public_events_per_minute, 60.0, now_seconds)
    registry["nexus.public_key_limits"] = SlidingWindows(runtime.settings.rate_limit_per_minute, 60.0, now_seconds)
    registry["nexus.visitors"] = Visitors(
        runtime.settings.visitors, now_seconds, runtime.telemetry, runtime.settings.state_dir / FLOODS
    )
    registry["nexus.keys_in_flight"] = KeysInFlight()
