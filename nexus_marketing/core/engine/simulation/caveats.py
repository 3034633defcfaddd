"""What a simulation cannot know, or what would surprise: said beside its numbers, never instead of them."""

from collections.abc import Iterator

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.engine.simulation.assumptions import Assumptions
from nexus_marketing.core.engine.simulation.gate import EMAIL
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.journeys.model import Journey, TriggerKind
from nexus_marketing.core.journeys.nodes import Act, Message

#: What people do in a simulation without a rate of their own.
_KNOWN = frozenset({"email_opened", "email_clicked", "unsubscribed"})
#: What brings people in at the start only: who comes later is beyond a journey on its own.
_AT_THE_START = frozenset(TriggerKind) - {TriggerKind.DATE, TriggerKind.SCHEDULE, TriggerKind.EVENT}


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
    for trigger in journey.entry.triggers[1:]:
        if trigger.on in _AT_THE_START:
            said = f"Whoever comes later by {trigger.on} is not played: everybody enters at the start."
            yield Problem("", "trigger_unplayed", said)
    if not asks_consent:
        yield Problem(
            "", "consent_unknown", "The leads say nothing about consent: everybody counts as having given it."
        )
    else:
        for channel in _unasked(journey):
            said = f"The leads say nothing about consent to {channel}: everybody counts as having given it."
            yield Problem("", "consent_unknown", said)


def _unasked(journey: Journey) -> list[str]:
    """Channels of marketing beside e-mail, which alone a file of leads tells the consent of."""
    messages = [each for each in journey.nodes.values() if isinstance(each, Message)]
    marketing = (each for each in messages if each.message_class is MessageClass.MARKETING)
    return sorted({channel for each in marketing for channel in each.channels} - {EMAIL})


def _templates(node: Message) -> Iterator[str]:
    yield from (template for template in node.channels.values() if template is not None)
