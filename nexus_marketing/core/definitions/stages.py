"""Stages and moves: those a document declares, and those every campaign has."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignAction, CampaignStatus
from nexus_marketing.core.definitions.forms import STAGE
from nexus_marketing.core.definitions.model import WHERE_IT_WAS, Rule, Transition
from nexus_marketing.core.errors import Problem, hint
from nexus_marketing.core.values import join

Stages = Mapping[str, CampaignStatus]
_WORDS: Final = frozenset(each.value for each in CampaignStatus)


def read_stages(declared: Any, problems: list[Problem]) -> dict[str, CampaignStatus]:
    """Stage to status: by its name, else as declared; statuses that no stage maps to keep a stage of their name.

    >>> read_stages(["draft", {"name": "warm-up", "status": "active"}], [])["warm-up"]
    <CampaignStatus.ACTIVE: 'active'>
    """
    stages: dict[str, CampaignStatus] = {}
    for path, name, status in _declared(declared, problems):
        word = name if status is None else status
        if word not in _WORDS:
            problems.append(Problem(path, "unknown_status", _unknown_status(name, status)))
        elif name in stages:
            problems.append(Problem(path, "duplicate_stage", f"The stage {name!a} is declared twice: name it once."))
        else:
            stages[name] = CampaignStatus(word)
    for status in CampaignStatus:
        if status not in stages.values():
            if status in stages:  # its name means another status here
                problems.append(
                    Problem(
                        "stages",
                        "status_without_stage",
                        f"No stage means {status}, and its name is taken: declare a stage with the status {status}.",
                    )
                )
            stages.setdefault(status.value, status)
    return stages


def _declared(declared: Any, problems: list[Problem]) -> list[tuple[str, str, str | None]]:
    if isinstance(declared, Mapping):
        members = [(join("stages", name), {"name": name, "status": status}) for name, status in declared.items()]
    else:
        members = [
            (join("stages", index), {"name": each} if isinstance(each, str) else each)
            for index, each in enumerate(declared or ())
        ]
    found: list[tuple[str, str, str | None]] = []
    for path, member in members:
        if not isinstance(member, Mapping):
            problems.append(Problem(path, "wrong_type", "A stage is a name, or an object with name and status."))
            continue
        faults = STAGE.faults(member, path=path)
        problems.extend(faults)
        if not faults:
            found.append((path, member["name"], member.get("status")))
    return found


def _unknown_status(name: str, status: str | None) -> str:
    words = ", ".join(CampaignStatus)
    if status is None:
        return (
            f'The stage {name!a} is none of {words}: write {{"name": "{name}", "status": "active"}} or another of them.'
        )
    return f"{status!a} is no status{hint(str(status), tuple(CampaignStatus))}; the statuses are {words}."


def read_transitions(
    declared: Mapping[str, Mapping[str, Any]],
    stages: Stages,
    read_rule: Callable[[Any, str], Rule | None],
    problems: list[Problem],
) -> dict[str, Transition]:
    """The moves of a document over those every campaign has.

    A declared move replaces the one of its name; a declared way from a draft (or a queue) into the
    active stages is the launch (or the start), whatever it is called.
    """
    moves: dict[str, Transition] = {}
    for action, document in declared.items():
        path = join("transitions", action)
        wanted = document["from"]
        sources = frozenset([wanted] if isinstance(wanted, str) else wanted)
        for name, at in [*((each, "from") for each in sorted(sources)), (document["to"], "to")]:
            if name not in stages:
                problems.append(
                    Problem(join(path, at), "unknown_stage", f"There is no stage {name!a}{hint(name, stages)}.")
                )
        ended = sorted(each for each in sources if stages.get(each) in FINAL_STATUSES)
        if ended:
            problems.append(
                Problem(
                    join(path, "from"), "final_stage", f"A campaign that is {ended[0]} stays so: start it elsewhere."
                )
            )
        if document["to"] in sources and "condition" in document:
            text = "A move with a condition that leads where it begins would never end: name another stage."
            problems.append(Problem(join(path, "to"), "circle", text))
        rule = read_rule(document["condition"], join(path, "condition")) if "condition" in document else None
        moves[action] = Transition(action, sources, document["to"], rule, _is_automatic(sources, document, stages))
    return {**_standard(stages, moves), **moves}


def _is_automatic(sources: frozenset[str], document: Mapping[str, Any], stages: Stages) -> bool:
    """A draft waits for a person; a queue for its time; all else for the condition, where there is one."""
    from_ = {stages.get(each) for each in sources}
    if CampaignStatus.DRAFT in from_:
        return False
    return "condition" in document or _starts(sources, document["to"], stages)


def _starts(sources: frozenset[str], target: str, stages: Stages) -> bool:
    return {stages.get(each) for each in sources} == {CampaignStatus.QUEUED} and stages.get(
        target
    ) is CampaignStatus.ACTIVE


def _standard(stages: Stages, declared: Mapping[str, Transition]) -> dict[str, Transition]:
    def of(*statuses: CampaignStatus) -> frozenset[str]:
        return frozenset(stage for stage, status in stages.items() if status in statuses)

    def entry(status: CampaignStatus) -> str:
        return next(stage for stage, each in stages.items() if each is status)

    s, a = CampaignStatus, CampaignAction
    moves = [
        Transition(a.LAUNCH, of(s.DRAFT), entry(s.ACTIVE)),
        Transition(a.START, of(s.QUEUED), entry(s.ACTIVE), automatic=True),
        Transition(a.PAUSE, of(s.QUEUED, s.ACTIVE), entry(s.PAUSED)),
        Transition(a.RESUME, of(s.PAUSED), WHERE_IT_WAS),
        Transition(a.COMPLETE, of(s.ACTIVE), entry(s.COMPLETED)),
        Transition(a.CANCEL, of(s.DRAFT, s.QUEUED, s.ACTIVE, s.PAUSED), entry(s.CANCELLED)),
    ]
    standard = {each.action: each for each in moves}
    if any(_starts(each.sources, each.target, stages) for each in declared.values()):
        del standard[a.START]
    launch = next((each for each in declared.values() if _launches(each, stages)), None)
    if launch is not None:
        standard[a.LAUNCH] = Transition(a.LAUNCH, launch.sources, launch.target, launch.condition)
    return {str(action): each for action, each in standard.items()}


def _launches(transition: Transition, stages: Stages) -> bool:
    from_ = {stages.get(each) for each in transition.sources}
    return CampaignStatus.DRAFT in from_ and stages.get(transition.target) in {
        CampaignStatus.QUEUED,
        CampaignStatus.ACTIVE,
    }
