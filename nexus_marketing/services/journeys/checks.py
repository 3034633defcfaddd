"""What a journey needs on the database before it is published: segments, messages, senders; and what cannot run yet."""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import select

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.contracts import CallingChannel
from nexus_marketing.core.errors import HostRefused, Problem, hint
from nexus_marketing.core.fan_out import Leg
from nexus_marketing.core.journeys import NodeKind, TriggerKind
from nexus_marketing.core.journeys.nodes import CALL
from nexus_marketing.core.permissions import FORMER
from nexus_marketing.core.scoring import DEFAULT_SCORE
from nexus_marketing.core.segments import SegmentKind
from nexus_marketing.core.values import email_norm, join
from nexus_marketing.db.models import Journey, Member, Segment, Template
from nexus_marketing.db.queries.journeys import known_journeys, known_segments
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.names import action_problem
from nexus_marketing.services.campaigns.launching import is_public, leg_problems, ready_for
from nexus_marketing.services.journeys.plugins import trigger_problem
from nexus_marketing.services.scores.records import list_scores, version_of
from nexus_marketing.services.tenants import MEMBER_ROLES

_BY_SEGMENT: Final = (NodeKind.ADD_TO_SEGMENT, NodeKind.REMOVE_FROM_SEGMENT)
Document = dict[str, Any]


@dataclass(slots=True)
class Findings:
    """What was found out about a document: the faults, its segments by id, and the versions of its templates."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    pins: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def fault(self, path: str, code: str, message: str) -> None:
        """Something stands in the way."""
        self.problems.append(Problem(path, code, message))


def examine(ctx: Context, document: Mapping[str, Any], journey_id: int) -> Findings:
    """Hold a document against what the tenant has; also one whose own faults are known already.

    Args:
        ctx: the unit of work.
        document: nodes and edges, canonical where it could be read.
        journey_id: whose it is.
    """
    found = Findings(deepcopy(dict(document)))
    nodes = _tables(found.document.get("nodes"))
    for name, node in nodes.items():
        _supported(found, join("nodes", name), node)
        if node.get("type") == NodeKind.WEBHOOK:
            _webhook(ctx, found, join("nodes", name), node)
        if node.get("type") == NodeKind.APPROVAL:
            _approval(ctx, found, join("nodes", name), node)
        for key in ("action", "compensate"):
            if key in node:
                path = join(join("nodes", name), key)
                problem = action_problem(ctx, str(node[key]), path, for_lead=True)
                found.problems += [problem] if problem is not None else []
        if node.get("type") == NodeKind.MESSAGE:
            _message(ctx, found, name, node)
    for number, trigger in enumerate(_triggers(found.document)):
        path = f"entry.triggers.{number}"
        if trigger.get("on") == TriggerKind.PLUGIN:
            problem = trigger_problem(ctx, trigger, path)
            found.problems += [problem] if problem is not None else []
        elif trigger.get("on") == TriggerKind.SCORE:
            _score(ctx, found, trigger, path)
    _other_journeys(ctx, found, journey_id)
    _segments(ctx, found)
    return found


def _score(ctx: Context, found: Findings, trigger: Mapping[str, Any], path: str) -> None:
    """There is such a score, and a threshold of the name among its rules."""
    name, threshold = str(trigger.get("score", DEFAULT_SCORE)), trigger.get("threshold")
    scores = {each.name: each for each in list_scores(ctx)}
    if name not in scores and name != DEFAULT_SCORE:
        said = f"There is no score {name!a}{hint(name, [*scores, DEFAULT_SCORE])}."
        found.fault(join(path, "score"), "unknown_score", said)
    elif isinstance(threshold, str):
        score = scores.get(name)
        number = None if score is None else score.published
        rules = {} if score is None or number is None else version_of(ctx, score.id, number).rules
        keys = [str(each["key"]) for each in rules.get("thresholds", ())]
        if threshold not in keys:
            remedy = hint(threshold, keys) or ": they have none, so write a number without quotes"
            said = f"The rules of {name} in force have no threshold {threshold!a}{remedy}."
            found.fault(join(path, "threshold"), "unknown_threshold", said)


def _supported(found: Findings, path: str, node: Mapping[str, Any]) -> None:
    kind = node.get("type")
    if kind == NodeKind.SCORE and node.get("score", DEFAULT_SCORE) != DEFAULT_SCORE:
        said = f"Points are given to {DEFAULT_SCORE!r}, the lead's own: {node['score']!a} follows from its rules."
        found.fault(join(path, "score"), "not_supported", said)


def _webhook(ctx: Context, found: Findings, path: str, node: Mapping[str, Any]) -> None:
    """There is a signed way out, and the address is one that it leads to."""
    channel = ctx.runtime.channels.get(CALL)
    if not isinstance(channel, CallingChannel):
        said = "Webhooks are signed, and there is no secret to sign with: the operator sets nexus.webhook.secrets."
        found.fault(join(path, "type"), "no_channel", said)
        return
    try:
        channel.check_url(str(node.get("url", "")))
    except HostRefused as error:
        found.fault(join(path, "url"), HostRefused.code, error.message)


def _approval(ctx: Context, found: Findings, path: str, node: Mapping[str, Any]) -> None:
    """Somebody can answer."""
    asked = str(node.get("by", ""))
    if asked in MEMBER_ROLES:
        return
    known = ctx.session.execute(select(Member.id, Member.email_norm).where(Member.role != FORMER)).all()
    if not any(asked == str(each.id) or email_norm(asked) == each.email_norm for each in known):
        said = f"{asked!a} is nobody who could answer: name a role ({', '.join(MEMBER_ROLES)}) or a member's address."
        found.fault(join(path, "by"), "unknown_member", said)


def _message(ctx: Context, found: Findings, name: str, node: Mapping[str, Any]) -> None:
    """Each channel of a message has a template and a sender, and what the law asks."""
    for number, about in enumerate(node["channels"] if isinstance(node.get("channels"), list) else ()):
        if not isinstance(about, Mapping) or not isinstance(about.get("channel"), str):
            continue
        path, channel = join(join(join("nodes", name), "channels"), number), about["channel"]
        template_id = _template(ctx, found, path, about.get("template"))
        if is_public(ctx, channel):
            said = f"{channel} posts to everybody, a journey writes to one person: post with a campaign."
            found.fault(join(path, "channel"), "not_personal", said)
            continue
        leg = Leg(channel, template_id)
        (ready,) = ready_for(ctx, [leg])
        message_class = MessageClass(node.get("class", MessageClass.MARKETING))
        for problem in leg_problems(ctx, message_class, leg, ready):
            if problem.path != "template_id" or problem.code != "no_template":
                found.fault(join(path, problem.path), problem.code, problem.message)
        template = ready.message
        if template.id is not None and ready.sender is not None:
            pin = {"template_id": str(template.id), "version": template.version, "sender": ready.sender}
            found.pins.setdefault(name, {})[channel] = pin


def _template(ctx: Context, found: Findings, path: str, named: object) -> int | None:
    """A template by its name, else by its id."""
    if not isinstance(named, str):
        found.fault(join(path, "template"), "no_template", "The message has no template: name one.")
        return None
    by_name = ctx.session.scalars(select(Template.id).where(Template.name == named)).first()
    if by_name is None and named.isdecimal() and len(named) < 19:
        by_name = ctx.session.scalars(select(Template.id).where(Template.id == int(named))).first()
    if by_name is None:
        known = ctx.session.scalars(select(Template.name).order_by(Template.name).limit(200)).all()
        said = f"There is no template {named!a}{hint(named, known)}."
        found.fault(join(path, "template"), "unknown_template", said)
    return by_name


def _other_journeys(ctx: Context, found: Findings, journey_id: int) -> None:
    """Journeys that this one begins after become ids, too; it does not begin after itself."""
    places = [
        (each, f"entry.triggers.{number}.journey")
        for number, each in enumerate(_triggers(found.document))
        if each.get("on") == TriggerKind.JOURNEY and isinstance(each.get("journey"), (str, int))
    ]
    known = known_journeys(ctx.session, {str(each["journey"]) for each, _ in places})
    for trigger, path in places:
        other = known.get(str(trigger["journey"]))
        if other is None:
            names = ctx.session.scalars(select(Journey.name).order_by(Journey.name).limit(200)).all()
            said = f"There is no journey {trigger['journey']!a}{hint(str(trigger['journey']), names)}."
            found.fault(path, "unknown_journey", said)
        elif other.id == journey_id:
            found.fault(path, "circle", "A journey does not begin where it ends itself: use reentry, or a jump.")
        else:
            trigger["journey"] = str(other.id)


def _segments(ctx: Context, found: Findings) -> None:
    """Names of segments become ids, so that one that is renamed stays the same."""
    places = list(_named_segments(found.document, ""))
    known = known_segments(ctx.session, {str(table[key]) for table, key, _ in places})
    for table, key, path in places:
        named = str(table[key])
        segment = known.get(named)
        if segment is None:
            names = ctx.session.scalars(select(Segment.name).order_by(Segment.name).limit(200)).all()
            found.fault(path, "unknown_segment", f"There is no segment {named!a}{hint(named, names)}.")
        elif table.get("type") in _BY_SEGMENT and segment.kind != SegmentKind.STATIC:
            said = f"The rule of segment {segment.name!a} decides who is in it: name a static one."
            found.fault(path, "not_static", said)
        else:
            table[key] = segment.id if key == "in_segment" else str(segment.id)


def _named_segments(value: object, path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(table, key, path) of everything in a document that names a segment."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = join(path, key)
            if key == "in_segment" or (key == "segment" and isinstance(inner, (str, int))):
                yield value, key, where
            else:
                yield from _named_segments(inner, where)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _named_segments(inner, join(path, number))


def _tables(value: object) -> dict[str, dict[str, Any]]:
    named: Mapping[str, Any] = value if isinstance(value, dict) else {}
    return {name: each for name, each in named.items() if isinstance(each, dict)}


def _triggers(document: Mapping[str, Any]) -> Collection[dict[str, Any]]:
    entry = document.get("entry")
    listed = entry.get("triggers") if isinstance(entry, dict) else None
    return [cast("dict[str, Any]", each) for each in listed or () if isinstance(each, dict)]
