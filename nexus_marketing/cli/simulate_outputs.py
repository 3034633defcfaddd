"""A simulation for people: tables of days and nodes, and sentences."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from nexus_marketing.cli.session import table
from nexus_marketing.core.money import major_units

_DAY = ("sent", "quiet_held", "cap_held", "cap_skipped", "failed", "goals", "ended")
_DAY_HEADS = ("day", "sent", "quiet", "wait", "cap", "skip", "fail", "goal", "end")


def print_report(document: Mapping[str, Any], console: Console, seconds: float) -> None:
    """Everything that the document says, shorter."""
    calendar = table(escape(_title(document)), _DAY_HEADS, _days(document))
    calendar.columns[0].no_wrap = True
    console.print(calendar)
    console.print(table("Nodes", ("node", "type", "came", "here", "ended", "went on"), _nodes(document)))
    for sentence in _sentences(document):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Simulated in {seconds:.1f} seconds; nothing was sent.", markup=False, highlight=False)


def _title(document: Mapping[str, Any]) -> str:
    name, days, zone = document["journey"]["name"], document["days"], document["time_zone"]
    return f"{name}: {document['entered']} of {document['leads']} leads entered, {days} days, by the clock of {zone}"


def _days(document: Mapping[str, Any]) -> list[list[object]]:
    """The days on which something happened, and the sum."""
    rows: list[list[object]] = []
    for day in (*document["calendar"], {"date": "all", **document["totals"]}):
        if day["date"] == "all" or any(day[name] for name in (*_DAY, "skipped", "quiet_skipped")):
            skipped = day["skipped"] + day["quiet_skipped"]
            waiting = [day[name] or "" for name in ("sent", "quiet_held", "cap_held", "cap_skipped")]
            rest = [day[name] or "" for name in ("failed", "goals", "ended")]
            rows.append([day["date"], *waiting, skipped or "", *rest])
    return rows


def _nodes(document: Mapping[str, Any]) -> list[list[object]]:
    return [
        [node["id"], node["type"], node["came"], node["here"] or "", node["ended"] or "", _ways(node)]
        for node in document["nodes"]
    ]


def _ways(node: Mapping[str, Any]) -> str:
    ways = [f"{edge['runs']} {_named(edge)}" for edge in node["edges"] if edge["runs"]]
    told = [f"{node[name]} {name}" for name in ("sent", "opened", "clicked") if name in node]
    return "\n".join([*ways, ", ".join(told)] if told else ways)


def _named(edge: Mapping[str, Any]) -> str:
    return f"{edge['edge']}: {edge['to']}" if edge["edge"] else edge["to"]


def _sentences(document: Mapping[str, Any]) -> list[str]:
    assumed = ", ".join(f"{name} {share:.1%}" for name, share in document["assumed"].items())
    lines = [f"Assumed: {assumed} (seed {document['seed']})."]
    lines += _counted("Not let in", document["refused"])
    lines += _counted("Skipped", document["skipped"])
    lines += _counted("Ended", {**document["ended"], "going on": document["going_on"]})
    lines += _counted("Goals", document["goals"])
    lines += _counted("Effects", document["effects"])
    costs = document["cost_minor"]
    if costs:
        currency = document["currency"]
        each = ", ".join(f"{channel} {major_units(minor, currency)}" for channel, minor in costs.items())
        lines.append(f"Cost: {major_units(sum(costs.values()), currency)} {currency} ({each}).")
    if document["rejected_rows"]:
        lines.append(f"{document['rejected_rows']} rows of the file are no leads, or came before.")
    lines += [f"Written: {path}" for path in document["plots"]]
    return lines + [_warning(each) for each in document["warnings"]]


def _counted(word: str, counts: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return [f"{word}: {told}."] if told else []


def _warning(problem: Mapping[str, str]) -> str:
    return f"warning: {problem['path']}: {problem['message']}" if problem["path"] else f"warning: {problem['message']}"
