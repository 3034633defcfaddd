"""A journey as a graph: its edges, what can be reached, and circles in which no time passes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from nexus_marketing.core.journeys.delays import DaysAt, Span, UntilDate
from nexus_marketing.core.journeys.nodes import (
    END,
    Approval,
    Branch,
    Delay,
    Exit,
    Jump,
    Message,
    Node,
    Outcome,
    Split,
    WaitUntil,
    Webhook,
)


@dataclass(frozen=True, slots=True)
class Edge:
    """One way out of a node. ``takes_time``: whoever goes it has waited."""

    label: str
    to: str
    takes_time: bool = False


def edges(node: Node) -> Iterator[Edge]:
    """The ways out of a node, in its order."""
    match node:
        case Delay():
            yield from _delay_edges(node)
        case WaitUntil():
            yield from (Edge(way.occasion.label, way.to, way.after_arrival) for way in node.ways)
            yield Edge("timeout", node.timeout_to, takes_time=True)
        case Branch():
            yield from (Edge(way.occasion.label, way.to) for way in node.ways)
            yield Edge("else", node.otherwise)
        case Split():
            yield from (Edge(f"{share.name} {share.hundredths / 100:g} %", share.to) for share in node.shares)
        case Message():
            yield from _message_edges(node)
        case Approval():
            yield Edge("approved", node.approved, takes_time=True)
            yield Edge("rejected", node.rejected, takes_time=True)
            yield Edge("timeout", node.timeout_to, takes_time=True)
        case Webhook():
            yield Edge("", node.next)
            if node.failed != node.next:
                yield Edge("failed", node.failed)
        case Jump():
            yield Edge("", node.to)
        case Exit():
            return
        case _:
            yield Edge("", node.next)


def _delay_edges(node: Delay) -> Iterator[Edge]:
    rule = node.rule
    if not isinstance(rule, UntilDate):
        instant = (isinstance(rule, Span) and rule.length <= timedelta()) or (
            isinstance(rule, DaysAt) and rule.days == 0
        )
        yield Edge("", node.next, not instant)
        return
    yield Edge("", node.next, "continue" not in (rule.if_past.word, rule.if_missing.word))
    for label, fallback in (("past", rule.if_past), ("missing", rule.if_missing)):
        if fallback.word != "continue":
            yield Edge(label, fallback.to or END)


def _message_edges(node: Message) -> Iterator[Edge]:
    yield from (Edge(str(outcome), to) for outcome, to in node.on.items())
    if any(outcome not in node.on and node.edge(outcome) is not None for outcome in Outcome):
        yield Edge("", node.next)


def reached(nodes: Mapping[str, Node], starts: Iterable[str], instead: Mapping[str, str]) -> set[str]:
    """Every node that can be come to; ``instead`` is where to whoever comes to a node too often."""
    found: set[str] = set()
    waiting = [start for start in starts if start in nodes]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            ways = [*(edge.to for edge in edges(nodes[name])), instead.get(name, END)]
            waiting += [to for to in ways if to in nodes]
    return found


def instant_circles(nodes: Mapping[str, Node], instead: Mapping[str, str]) -> list[list[str]]:
    """Circles of nodes in which no time passes, each once, beginning with the node that stands first."""
    instant = {
        name: [
            *(edge.to for edge in edges(node) if not edge.takes_time and edge.to != END and edge.to in nodes),
            *(to for to in [instead.get(name, END)] if to in nodes),
        ]
        for name, node in nodes.items()
    }
    found: list[list[str]] = []
    done: set[str] = set()
    for name in nodes:
        if name not in done:
            found += _circles_from(name, instant, done)
    return found


def _circles_from(start: str, instant: Mapping[str, list[str]], done: set[str]) -> Iterator[list[str]]:
    """Depth first, without recursion: an edge back to the path closes a circle."""
    path: list[str] = [start]
    on_path = {start}
    turns = [iter(instant[start])]
    while path:
        following = next(turns[-1], None)
        if following is None:
            turns.pop()
            name = path.pop()
            on_path.discard(name)
            done.add(name)
        elif following in on_path:
            yield path[path.index(following) :]
        elif following not in done:
            path.append(following)
            on_path.add(following)
            turns.append(iter(instant[following]))
