"""What sets something off."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus_marketing.plugin import Firing, Occasion, OccasionKind

_USUAL_MINOR: Final = 10_000


class BigPurchase:
    """Goes off for a lead that bought for so much at once (``big_purchase_minor``, 10,000 where nothing is set)."""

    name = "big_purchase"
    kinds = frozenset({OccasionKind.EVENT})

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        """At most one, with the event's key: an event that is told twice counts once."""
        least = int(occasion.settings.get("big_purchase_minor", _USUAL_MINOR))
        lead_id, amount = occasion.data.get("lead_id"), _amount(occasion.data)
        if occasion.name != "purchase" or lead_id is None or amount < least:
            return []
        return [Firing(occasion.key, lead_id, {"amount_minor": amount})]


def _amount(data: Mapping[str, Any]) -> int:
    amount = data.get("amount_minor")
    return amount if isinstance(amount, int) and not isinstance(amount, bool) else 0
