"""What a simulation cannot know, or what would surprise: said beside its numbers, never instead of them."""

from collections.abc import Iterator

from nexus_marketing.core.engine.simulation.assumptions import Assumptions
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.journeys.model import Journey
from nexus_marketing.core.journeys.nodes import Act, Message

#: What people do in a simulation without a rate of their own.
_KNOWN = frozenset({"email_sent", "sms_sent", "email_opened", "email_clicked", "unsubscribed"})


def caveats_of(journey: Journey, assumptions: Assumptions, *, asks_consent: bool) -> tuple[Problem, ...]:
    """Everything to be said about a simulation of a journey."""
    return tuple(_caveats(journey, assumptions, asks_consent=asks_consent))


def _caveats(journey: Journey, assumptions: Assumptions, *, asks_consent: bool) -> Iterator[Problem]:
    yield from journey.notices
    names = sorted({own for node in journey.nodes.values() if isinstance(node, Message) for own in _templates(node)})
    if names:
        yield Problem("", "templates_unread", f"No template was looked at: {', '.join(names)}.")
    for name in sorted(journey.listens - _KNOWN - assumptions.events.keys()):
        said = f"No rate is stated for {name}, so that nobody does it: add --rate {name}=0.01."
        yield Problem("", "no_rate", said)
    actions = sorted({node.action for node in journey.nodes.values() if isinstance(node, Act)})
    if actions:
        yield Problem("", "actions_counted", f"Actions were counted, not taken: {', '.join(actions)}.")
    if not asks_consent:
        yield Problem(
            "", "consent_unknown", "The leads say nothing about consent: everybody counts as having given it."
        )


def _templates(node: Message) -> Iterator[str]:
    yield from (template for template in node.channels.values() if template is not None)
