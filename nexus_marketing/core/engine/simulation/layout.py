"""Where the nodes of a diagram stand: in layers from top to bottom, each below all that lead to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nexus_marketing.core.journeys.graph import edges
from nexus_marketing.core.journeys.model import Journey
from nexus_marketing.core.journeys.nodes import END

_BOX: Final = (210, 50)
_GAP: Final = (50, 70)
_MARGIN: Final = 40


@dataclass(frozen=True, slots=True)
class Box:
    """One node's place."""

    name: str
    x: float
    y: float
    width: int = _BOX[0]
    height: int = _BOX[1]

    @property
    def middle(self) -> float:
        """Half of its width."""
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """All of them, and the size of the whole."""

    boxes: Mapping[str, Box]
    width: float
    height: float
    #: From one layer to the next.
    step: int = _BOX[1] + _GAP[1]


def arrange(journey: Journey) -> Layout:
    """Find each node its place; edges that lead back do not count."""
    layers: dict[int, list[str]] = {}
    for name, layer in _layers(journey).items():
        layers.setdefault(layer, []).append(name)
    widest = max(len(names) for names in layers.values())
    width = widest * (_BOX[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN + 80
    boxes = {}
    for layer, names in layers.items():
        left = (width - len(names) * (_BOX[0] + _GAP[0]) + _GAP[0]) / 2
        for place, name in enumerate(names):
            boxes[name] = Box(name, left + place * (_BOX[0] + _GAP[0]), _MARGIN + layer * (_BOX[1] + _GAP[1]))
    return Layout(boxes, width, 2 * _MARGIN + (max(layers) + 1) * (_BOX[1] + _GAP[1]) - _GAP[1])


def _layers(journey: Journey) -> dict[str, int]:
    """The longest way from a start to each node."""
    forward, order = _forward(journey)
    found = dict.fromkeys(order, 0)
    for name in order:
        for to in forward.get(name, ()):
            found[to] = max(found.get(to, 0), found[name] + 1)
    found[END] = max(layer for name, layer in found.items() if name != END) + 1
    return found


def _forward(journey: Journey) -> tuple[dict[str, list[str]], list[str]]:
    """The edges that do not lead back, and the nodes in an order in which each comes before those it leads to."""
    starts = [trigger.start for trigger in journey.entry.triggers]
    starts += [goal.to for goal in journey.goals if goal.to is not None]
    forward: dict[str, list[str]] = {}
    done: list[str] = []
    for start in dict.fromkeys(starts):
        if start not in forward:
            _walk(journey, start, forward, done)
    if END not in done:
        done.insert(0, END)
    return forward, done[::-1]


def _walk(journey: Journey, start: str, forward: dict[str, list[str]], done: list[str]) -> None:
    """Depth first, without recursion; ``done`` gets each node after all that it leads to."""
    on_path = [start]
    forward[start] = []
    turns = [_targets(journey, start)]
    while on_path:
        to = next(turns[-1], None)
        if to is None:
            turns.pop()
            done.append(on_path.pop())
        elif to not in on_path:
            forward[on_path[-1]].append(to)
            if to not in forward:
                forward[to] = []
                on_path.append(to)
                turns.append(_targets(journey, to))


def _targets(journey: Journey, name: str) -> Iterator[str]:
    return iter([] if name == END else [edge.to for edge in edges(journey.nodes[name])])
