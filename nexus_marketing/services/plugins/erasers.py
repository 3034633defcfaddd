"""What plugins keep about an erased lead: each clears its own, outside of any transaction, as often as it takes."""

from collections.abc import Mapping

from nexus_marketing.core.audience import RemovalKind
from nexus_marketing.core.extensions import Eraser, Erasure
from nexus_marketing.db.models import LeadRemoval
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PREFIX = "plugin:"


def erasers_left(runtime: Runtime, removal: LeadRemoval) -> Mapping[str, Eraser]:
    """The erasers that were not heard of yet, by the name under which the certificate counts them."""
    if removal.kind != RemovalKind.ERASED:
        return {}
    erasers = {f"{_PREFIX}{name}": eraser for name, eraser in runtime.plugins.erasers.items()}
    return {name: eraser for name, eraser in erasers.items() if name not in removal.counts}


def ask_erasers(runtime: Runtime, left: Mapping[str, Eraser], erasure: Erasure) -> dict[str, int]:
    """How much each cleared; one that fails is not among them and is asked again."""
    cleared = {}
    for name, eraser in left.items():
        try:
            cleared[name] = int(eraser.erase(erasure))
        except Exception:  # isolation boundary: the erasure stays open, the others go on
            log.exception("eraser_failed", eraser=name, tenant_id=erasure.tenant_id)
            runtime.telemetry.count("plugins.eraser_failed")
    return cleared
