"""From a node's document, whose form was checked, to a node."""

from collections.abc import Callable, Iterator, Mapping
from datetime import time, timedelta
from decimal import Decimal
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.journeys.bodies import read_body
from nexus_marketing.core.journeys.delays import (
    WEEKDAYS,
    DaysAt,
    DelayRule,
    Fallback,
    Span,
    UntilDate,
    Weekdays,
    read_clock,
)
from nexus_marketing.core.journeys.nodes import (
    END,
    Act,
    Approval,
    Branch,
    ChangeSegment,
    ChannelMode,
    Delay,
    Exit,
    GivePoints,
    Jump,
    Message,
    Node,
    NodeKind,
    Outcome,
    Share,
    Split,
    UpdateLead,
    WaitUntil,
    Way,
    Webhook,
)
from nexus_marketing.core.journeys.reading import Reading
from nexus_marketing.core.values import join

_KINDS_OF_DELAY: Final = ("for", "days", "weekdays", "until")
_BELONGS: Final[Mapping[str, tuple[str, ...]]] = {
    "at": ("days", "weekdays", "until"),
    "zone": ("days", "weekdays", "until"),
    "recompute_on_change": ("days", "weekdays", "until"),
    "offset": ("until",),
    "if_past": ("until",),
    "if_missing": ("until",),
}
_READ_ONLY: Final = frozenset({"id", "email_norm", "score", "created_at", "updated_at", "event", "metadata"})
_HUNDRED_PERCENT: Final = 10_000


def read_node(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Node:
    """A node; its faults are among the reading's."""
    return _READERS[NodeKind(document["type"])](reading, id_, document, path)


def _next(reading: Reading, document: Mapping[str, Any], path: str) -> str:
    return reading.edge(document.get("next"), join(path, "next"))


def _delay(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Delay:
    said = [name for name in _KINDS_OF_DELAY if name in document]
    if len(said) != 1:
        text = 'A delay waits in one way: "for" a time, "days" with "at", "weekdays" with "at", or "until" a date.'
        reading.fault(path, "one_of", text)
    kind = said[0] if said else "for"
    for name, kinds in _BELONGS.items():
        if name in document and kind not in kinds:
            text = f"{name} belongs to {' and '.join(kinds)}: leave it out."
            reading.fault(join(path, name), "not_allowed", text)
    return Delay(
        id_,
        _delay_rule(reading, kind, document, path),
        _next(reading, document, path),
        reading.zone(document, path),
        document.get("recompute_on_change", False),
    )


def _delay_rule(reading: Reading, kind: str, document: dict[str, Any], path: str) -> DelayRule:
    at = read_clock(document["at"]) if "at" in document else None
    if kind in ("days", "weekdays") and at is None:
        reading.fault(join(path, "at"), "required", f'{kind} needs a time of day: write "at": "09:00".')
    if kind == "for":
        return Span(reading.length(document.get("for"), join(path, "for"), least=timedelta()))
    if kind == "days":
        return DaysAt(document["days"], at or time())
    if kind == "weekdays":
        return Weekdays(frozenset(WEEKDAYS.index(day) for day in document["weekdays"]), at or time())
    field = reading.schema.find(document["until"])
    if field is None:
        reading.fault(
            join(path, "until"), "unknown_field", reading.schema.unknown(document["until"]).capitalize() + "."
        )
    return UntilDate(
        field.path if field is not None else (),
        reading.offset(document, path),
        at,
        _fallback(reading, document, "if_past", path),
        _fallback(reading, document, "if_missing", path),
    )


def _fallback(reading: Reading, document: Mapping[str, Any], key: str, path: str) -> Fallback:
    said, where = document.get(key, "continue"), join(path, key)
    if said in ("continue", "exit"):
        return Fallback(said)
    if isinstance(said, Mapping) and said.keys() == {"skip_to"}:
        return Fallback("skip_to", reading.edge(str(said["skip_to"]), join(where, "skip_to")))
    reading.fault(where, "unknown_choice", f'{said!a}: write continue, exit or {{"skip_to": "<node>"}}.')
    return Fallback()


def _timeout(reading: Reading, document: Mapping[str, Any], path: str) -> tuple[timedelta, str]:
    said = document.get("timeout")
    if said is None:
        text = 'A wait ends at some time: write "timeout": {"after": "3 days", "to": "<node>"}.'
        reading.fault(join(path, "timeout"), "no_timeout", text)
        return timedelta(seconds=1), END
    where = join(path, "timeout")
    return reading.length(said["after"], join(where, "after")), reading.edge(said["to"], join(where, "to"))


def _wait(reading: Reading, id_: str, document: dict[str, Any], path: str) -> WaitUntil:
    timeout, timeout_to = _timeout(reading, document, path)
    grace = document.get("grace", "60 seconds")
    return WaitUntil(
        id_,
        _ways(reading, document["until"], join(path, "until")),
        timeout,
        timeout_to,
        reading.length(grace, join(path, "grace"), least=timedelta()),
    )


def _ways(reading: Reading, listed: list[dict[str, Any]], path: str) -> tuple[Way, ...]:
    found = []
    for number, said in enumerate(listed):
        where = join(path, number)
        occasion = reading.occasion(said, where)
        found.append(Way(occasion, reading.edge(said["to"], join(where, "to")), said.get("after_arrival", False)))
    return tuple(found)


def _branch(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Branch:
    ways = _ways(reading, document["branches"], join(path, "branches"))
    for number, way in enumerate(ways):
        when = way.occasion.when
        events = when.reads.events if when is not None else {way.occasion.event}
        alone = when is None or not (when.reads.fields or when.reads.segments or when.reads.scores)
        if alone and events == {"email_opened"}:
            text = (
                "Only opens decide here: mail programs open by themselves, and hide what people open. Ask for clicks."
            )
            reading.notice(join(join(path, "branches"), number), "open_only", text)
    return Branch(id_, ways, reading.edge(document["else"], join(path, "else")))


def _split(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Split:
    shares, total = [], 0
    for number, said in enumerate(document["ways"]):
        where = join(join(path, "ways"), number)
        weight = hundredths(reading, said["weight"], join(where, "weight"))
        total += weight
        name = said.get("name") or said["to"]
        shares.append(Share(name, weight, reading.edge(said["to"], join(where, "to"))))
    if total != _HUNDRED_PERCENT:
        text = f"The weights add up to {total / 100:g}: they must be exactly 100."
        reading.fault(join(path, "ways"), "weights", text)
    names = [share.name for share in shares]
    for number, name in enumerate(names):
        if name in names[:number]:
            text = f"{name!a} is there already: give each way a name of its own."
            reading.fault(join(join(path, "ways"), number), "duplicate", text)
    return Split(id_, tuple(shares), document.get("salt", ""))


def hundredths(reading: Reading, percent: float, path: str) -> int:
    """A percentage in hundredths of a percent."""
    found = Decimal(str(percent)) * 100
    if found != found.to_integral_value() or not 0 <= found <= _HUNDRED_PERCENT:
        reading.fault(path, "weights", f"{percent!a} is no share: write 0 to 100 with at most two decimals.")
        return 0
    return int(found)


def _message(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Message:
    if "class" not in document:
        text = "A message says what it is, because the law asks: write marketing or transactional."
        reading.fault(join(path, "class"), "no_class", text)
    message_class = MessageClass(document.get("class", MessageClass.MARKETING))
    is_marketing = message_class is MessageClass.MARKETING
    on = document.get("on", {})
    return Message(
        id_,
        _channels(reading, document, path),
        message_class,
        _next(reading, document, path),
        {Outcome(name): reading.edge(to, join(join(path, "on"), name)) for name, to in on.items()},
        ChannelMode(document.get("mode", ChannelMode.ALL)),
        document.get("require_sent", False),
        document.get("priority", 50),
        document.get("obeys_caps", is_marketing),
        document.get("counts_toward_caps", is_marketing),
        document.get("obeys_quiet_hours", is_marketing),
        reading.quiet_hours(document, path),
    )


def _channels(reading: Reading, document: dict[str, Any], path: str) -> Mapping[str, str | None]:
    """The channels in their order, each with its template; in the canonical form they are one list."""
    several, template = document.pop("channels", None), document.pop("template", None)
    single = document.pop("channel", None)
    if (several is None) == (single is None):
        reading.fault(path, "one_of", 'A message has "channel" or "channels": what it goes out by.')
        return {}
    found: dict[str, str | None] = {}
    for place, name, about in _named([single] if several is None else several):
        where = join(join(path, "channels"), place)
        if not isinstance(name, str) or not name or name in found:
            reading.fault(where, "not_a_channel", f"{name!a} is no name of a channel, or stands here twice.")
        elif not isinstance(about, Mapping) or about.keys() - {"template"}:
            reading.fault(where, "unknown_key", 'A channel of a message says its "template" and nothing else.')
        else:
            found[name] = about.get("template", template)
    document["channels"] = [{"channel": name, **({"template": own} if own else {})} for name, own in found.items()]
    for name, own in found.items():
        if own is None:
            reading.notice(path, "no_template", f"The message by {name} names no template yet.")
    return found


def _named(said: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """Each channel of a list or a mapping: its place, its name, and what is said about it."""
    if isinstance(said, Mapping):
        yield from ((name, name, about) for name, about in said.items())
        return
    for number, each in enumerate(said):
        if isinstance(each, Mapping):
            yield number, each.get("channel"), {key: value for key, value in each.items() if key != "channel"}
        else:
            yield number, each, {}


def _update(reading: Reading, id_: str, document: dict[str, Any], path: str) -> UpdateLead:
    for name in document["set"]:
        where = join(join(path, "set"), name)
        field = reading.schema.find(name)
        if field is None:
            reading.fault(where, "unknown_field", reading.schema.unknown(name).capitalize() + ".")
        elif field.name in _READ_ONLY or field.path[0] == "event":
            reading.fault(where, "read_only", f"{name} is not to be set here: use another field, or a score node.")
    return UpdateLead(id_, document["set"], _next(reading, document, path))


def _segment(reading: Reading, id_: str, document: dict[str, Any], path: str) -> ChangeSegment:
    kind = NodeKind(document["type"])
    return ChangeSegment(id_, str(document["segment"]), kind, _next(reading, document, path))


def _score(reading: Reading, id_: str, document: dict[str, Any], path: str) -> GivePoints:
    return GivePoints(id_, document["points"], document.get("score", "score"), _next(reading, document, path))


def _webhook(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Webhook:
    method = document.get("method", "POST")
    if "body" in document:
        document["body"] = read_body(reading, document["body"], join(path, "body"))
    following = _next(reading, document, path)
    failed = reading.edge(document["failed"], join(path, "failed")) if "failed" in document else following
    return Webhook(id_, document["url"], method, document.get("body", {}), following, failed)


def _approval(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Approval:
    timeout, timeout_to = _timeout(reading, document, path)
    approved, rejected = (reading.edge(document.get(name), join(path, name)) for name in ("approved", "rejected"))
    return Approval(id_, document["by"], approved, rejected, timeout, timeout_to)


def _act(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Act:
    reading.action(document["action"], join(path, "action"))
    return Act(id_, document["action"], document.get("with", {}), _next(reading, document, path))


def _jump(reading: Reading, id_: str, document: dict[str, Any], path: str) -> Jump:
    return Jump(id_, reading.edge(document["to"], join(path, "to")))


def _exit(_reading: Reading, id_: str, document: dict[str, Any], _path: str) -> Exit:
    return Exit(id_, document.get("reason", "exit"))


_READERS: Final[Mapping[NodeKind, Callable[[Reading, str, dict[str, Any], str], Node]]] = {
    NodeKind.DELAY: _delay,
    NodeKind.WAIT_UNTIL: _wait,
    NodeKind.BRANCH: _branch,
    NodeKind.SPLIT: _split,
    NodeKind.MESSAGE: _message,
    NodeKind.UPDATE_LEAD: _update,
    NodeKind.ADD_TO_SEGMENT: _segment,
    NodeKind.REMOVE_FROM_SEGMENT: _segment,
    NodeKind.SCORE: _score,
    NodeKind.WEBHOOK: _webhook,
    NodeKind.APPROVAL: _approval,
    NodeKind.ACTION: _act,
    NodeKind.JUMP: _jump,
    NodeKind.EXIT: _exit,
}
