"""What a campaign is made from: the in-model configuration and the requirements' JSON, both the same language."""

from nexus_marketing.core.definitions.actions import named_actions
from nexus_marketing.core.definitions.handlers import split
from nexus_marketing.core.definitions.model import Definition, Handlers, Rule, Transition
from nexus_marketing.core.definitions.parse import parse_definition

#: What a campaign without a definition goes by: the six statuses and the moves between them.
STANDARD = parse_definition({}, code="standard")

__all__ = ["STANDARD", "Definition", "Handlers", "Rule", "Transition", "named_actions", "parse_definition", "split"]
