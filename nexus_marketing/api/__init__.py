"""The REST entrance: one module per resource, thin over services and queries."""

from pyramid.config import Configurator

_RESOURCES = (
    "root",
    "leads",
    "lead_fields",
    "lead_imports",
    "lead_import_profiles",
    "lead_exports",
    "segments",
    "scores",
    "lead_scores",
    "lead_explanations",
    "lead_messages",
    "templates",
    "channels",
    "definitions",
    "campaigns",
    "dead_letters",
    "actions",
    "escalations",
    "journeys",
    "journey_approvals",
    "entrances",
    "preflights",
    "engagements",
    "events",
    "conversations",
    "members",
    "tracking",
    "hooks",
    "health",
    "metrics",
    "plugin_resources",
)


def includeme(config: Configurator) -> None:
    """Every route of the API, its errors and what surrounds each request."""
    config.include("nexus_marketing.api.surroundings")
    config.include("nexus_marketing.api.errors")
    for name in _RESOURCES:
        config.include(f"nexus_marketing.api.{name}")
