"""An example of a plugin: a condition, an approval strategy, a trigger and a metric, as small as is still useful."""

from typing import Any

from nexus_example.conditions import Anniversary
from nexus_example.metrics import NetReturn
from nexus_example.strategies import FourEyes
from nexus_example.triggers import BigPurchase
from nexus_marketing.plugin import API_VERSION, Capability, Manifest

__all__ = ["MANIFEST", "Anniversary", "BigPurchase", "FourEyes", "NetReturn", "includeme"]

MANIFEST = Manifest(
    name="nexus-example",
    version="1.0.0.dev0",
    api=API_VERSION,
    capabilities=frozenset({Capability.CONDITION, Capability.APPROVAL_STRATEGY, Capability.TRIGGER, Capability.METRIC}),
    settings={
        "veto_role": {"type": "string", "maxlength": 40},
        "big_purchase_minor": {"type": "integer", "min": 1},
    },
)


def includeme(config: Any) -> None:
    """Called once by every process that names nexus_example in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_condition(Anniversary)
    config.add_marketing_approval_strategy(FourEyes)
    config.add_marketing_trigger(BigPurchase)
    config.add_marketing_metric(NetReturn)
