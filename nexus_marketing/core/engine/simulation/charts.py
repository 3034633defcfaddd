"""Charts of a simulation as SVG: sends per day, and the journey with what went where."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from nexus_marketing.core.engine.simulation.layout import Box, Layout, arrange
from nexus_marketing.core.engine.simulation.report import Report
from nexus_marketing.core.journeys.nodes import END, NodeKind

_COLOURS: Final = ("#2f6fde", "#e08a1e", "#2a9d6f", "#b5478a", "#6b7280", "#8a5cd6")
_FILLS: Final[Mapping[NodeKind, str]] = {
    NodeKind.MESSAGE: "#dbe8ff",
    NodeKind.DELAY: "#f3f4f6",
    NodeKind.WAIT_UNTIL: "#f3f4f6",
    NodeKind.BRANCH: "#fff1d6",
    NodeKind.SPLIT: "#fff1d6",
    NodeKind.EXIT: "#fde2e2",
}
_PLAIN: Final = "#e4f5ec"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 320, 60, 48


def calendar_chart(report: Report) -> str:
    """Messages sent per day, one colour a channel, stacked."""
    days = report.document()["calendar"]
    channels = sorted(report.channels())
    most = max((day["sent"] for day in days), default=0) or 1
    step = (_WIDTH - _LEFT - 20) / max(1, len(days))
    parts = [_text(_LEFT, 20, f"{report.journey.title}: messages sent per day", size=15), *_axis(most)]
    for number, day in enumerate(days):
        parts += _bar(day, channels, _LEFT + number * step, step, most)
        if number % max(1, len(days) // 10) == 0:
            parts.append(_text(_LEFT + (number + 0.5) * step, _HEIGHT - 26, day["date"][5:], anchor="middle"))
    for number, channel in enumerate(channels):
        at = _LEFT + number * 130
        parts.append(f'<rect x="{at}" y="{_HEIGHT - 15}" width="10" height="10" fill="{_colour(number)}"/>')
        parts.append(_text(at + 15, _HEIGHT - 6, channel))
    return _svg(_WIDTH, _HEIGHT, parts)


def journey_diagram(report: Report) -> str:
    """The nodes from top to bottom, with how many came, and the edges with how many went."""
    layout = arrange(report.journey)
    nodes = {each["id"]: each for each in report.document()["nodes"]}
    parts = [_marker()]
    for name, each in nodes.items():
        for edge in each["edges"]:
            parts += _arrow(layout, layout.boxes[name], layout.boxes[edge["to"]], edge["edge"], edge["runs"])
    for name, box in layout.boxes.items():
        parts += _end(box) if name == END else _node(report, box, nodes[name])
    return _svg(layout.width, layout.height, parts)


def _axis(most: int) -> Iterable[str]:
    for part in (0, 0.5, 1):
        y = _y(most * part, most)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 20}" y2="{y:.1f}" stroke="#d5dde5"/>'
        yield _text(_LEFT - 8, y + 4, f"{most * part:g}", anchor="end")


def _bar(day: Mapping[str, Any], channels: list[str], x: float, step: float, most: int) -> Iterable[str]:
    below = 0
    for number, channel in enumerate(channels):
        sent = day["channels"].get(channel, 0)
        if sent:
            top, bottom = _y(below + sent, most), _y(below, most)
            yield (
                f'<rect x="{x + step * 0.1:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" height="{bottom - top:.1f}" '
                f'fill="{_colour(number)}"><title>{day["date"]} {_written(channel)}: {sent}</title></rect>'
            )
            below += sent


def _y(value: float, most: int) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - 40) * value / most


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _node(report: Report, box: Box, counts: Mapping[str, Any]) -> Iterable[str]:
    kind = report.journey.nodes[box.name].kind
    fill = _FILLS.get(kind, _PLAIN)
    yield (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width}" height="{box.height}" rx="8" '
        f'fill="{fill}" stroke="#5c6b7a"/>'
    )
    yield _text(box.middle, box.y + 20, _short(box.name, 24), anchor="middle", size=13)
    told = [f"{counts['came']} came"]
    told += [f"{counts[key]} {key}" for key in ("sent", "here") if counts.get(key)]
    yield _text(box.middle, box.y + 38, f"{kind}: {', '.join(told)}", anchor="middle", size=11)


def _end(box: Box) -> Iterable[str]:
    yield f'<circle cx="{box.middle:.1f}" cy="{box.y + 14:.1f}" r="13" fill="#1d2733"/>'
    yield _text(box.middle, box.y + 44, END, anchor="middle", size=11)


def _arrow(layout: Layout, from_: Box, to: Box, label: str, runs: int) -> Iterable[str]:
    """Down to the next layer along a curve; further down, or back up, past the boxes on the right."""
    x1, y1, x2, y2 = from_.middle, from_.y + from_.height, to.middle, to.y
    if not 0 < to.y - from_.y <= layout.step:
        x1, y1 = from_.x + from_.width, from_.y + from_.height / 2
        x2, y2 = (to.middle + 13, to.y + 14) if to.name == END else (to.x + to.width, to.y + to.height / 2)
        side = max(x1, x2) + 60
        path = f"M{x1:.1f} {y1:.1f} C{side:.1f} {y1:.1f} {side:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        middle_x, middle_y = min(side, layout.width - 60), (y1 + y2) / 2
    else:
        bend = (y2 - y1) / 2
        path = f"M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    yield f'<path d="{path}" fill="none" stroke="#5c6b7a" marker-end="url(#tip)"/>'
    said = f"{_short(label, 28)}: {runs}" if label else str(runs)
    yield _text(middle_x, middle_y + 4, said, anchor="middle", size=11, halo=True)


def _marker() -> str:
    return (
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="#5c6b7a"/></marker></defs>'
    )


def _written(text: str) -> str:
    """Text as XML has it, which knows no control characters."""
    return escape("".join(each if each.isprintable() else " " for each in text))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, halo: bool = False) -> str:
    edge = ' stroke="#fff" stroke-width="3" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#1d2733"{edge}>'
        f"{_written(text)}</text>"
    )


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    paper = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif">'
    return "\n".join([head, paper, *parts, "</svg>\n"])
