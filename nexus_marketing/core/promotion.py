"""Campaigns that objects have kept themselves, as documents on their way into a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nexus_marketing.core.campaigns import (
    CampaignState,
    CampaignStatus,
    HistoryEntry,
    entry_document,
    read_entry,
    read_state,
    state_document,
)
from nexus_marketing.core.definitions import STANDARD, parse_definition
from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.schemas import Form, Schema
from nexus_marketing.core.values import Limits, canonical, join

#: A history of years is one document here, and larger than what a request may bring.
LIMITS: Final = Limits(items=2_000_000, total_characters=100_000_000)
_TEXT: Final = {"type": "string", "required": True, "minlength": 1, "maxlength": 200}
_MOMENT: Final = {"type": "datetime", "check_with": "datetime"}
_VERSION: Final = {"type": "integer", "required": True, "min": 1}
_DATA: Final = {"type": "dict", "required": True}
_STATE: Final[Schema] = {
    "subject_type": _TEXT,
    "subject_id": _TEXT,
    "name": _TEXT,
    "id": _TEXT,
    "title": _TEXT,
    "stage": _TEXT,
    "status": {"type": "string", "required": True, "allowed": [str(each) for each in CampaignStatus]},
    "version": _VERSION,
    "data": _DATA,
    "counters": {**_DATA, "valuesrules": {"type": "integer", "min": 0}},
    "definition": {"type": "string", "maxlength": 200},
    "resumes_to": {"type": "string", "maxlength": 200},
    "reason": {"type": "string", "maxlength": 1_000},
    "starts_at": _MOMENT,
    "started_at": _MOMENT,
    "completed_at": _MOMENT,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
}
_ENTRY: Final[Schema] = {
    "version": _VERSION,
    "event": _TEXT,
    "before": _DATA,
    "after": _DATA,
    "actor": _TEXT,
    "at": {**_MOMENT, "required": True},
    "metadata": _DATA,
    "campaign": {"type": "string", "maxlength": 200},
}
_KEPT: Final = Form(
    {
        "state": {"type": "dict", "required": True, "schema": _STATE},
        "history": {"type": "list", "required": True, "schema": {"type": "dict", "schema": _ENTRY}},
        "program": {"type": "dict", "nullable": True},
        "attended": {"type": "list", "schema": {"type": "string"}},
    }
)


@dataclass(frozen=True, slots=True)
class KeptCampaign:
    """A campaign as an object kept it, with all that a storage needs to go on with it."""

    state: CampaignState
    history: Sequence[HistoryEntry]
    program: Mapping[str, Any] | None = None
    attended: frozenset[str] = frozenset()

    def document(self) -> dict[str, Any]:
        """As JSON: what ``campaigns promote`` and ``POST /api/v1/campaigns/promote`` take."""
        return {
            "state": state_document(self.state),
            "history": [entry_document(entry) for entry in self.history],
            "program": None if self.program is None else dict(self.program),
            "attended": sorted(self.attended),
        }


def read_kept(document: object, path: str = "") -> KeptCampaign:
    """A kept campaign from its document.

    Raises:
        ValidationError: it is not one of :meth:`KeptCampaign.document`; every fault with its path.
    """
    if not isinstance(document, Mapping):
        raise ValidationError.at(path, "wrong_type", "A campaign is an object with state and history.")
    plain = canonical(document, path, LIMITS)
    _KEPT.check(plain, path=path)
    state, history = read_state(plain["state"]), [read_entry(each) for each in plain["history"]]
    problems = _history_problems(state, history, join(path, "history"))
    program = plain.get("program")
    definition = (
        STANDARD if program is None else parse_definition(program, code=state.key.name, path=join(path, "program"))
    )
    for name, stage in (("stage", state.stage), ("resumes_to", state.resumes_to)):
        if stage is not None and stage not in definition.stages:
            text = f"The campaign's definition has no stage {stage!a}{hint(stage, definition.stages)}."
            problems.append(Problem(join(path, f"state.{name}"), "unknown_stage", text))
    if definition.stages.get(state.stage, state.status) is not state.status:
        text = f"The stage {state.stage} means {definition.stages[state.stage]}, not {state.status}."
        problems.append(Problem(join(path, "state.status"), "contradiction", text))
    if problems:
        raise ValidationError(problems=problems)
    # Pins to a definition mean one of the database it comes from, which is not this one.
    return KeptCampaign(replace(state, definition=None), history, program, frozenset(plain.get("attended", ())))


def _history_problems(state: CampaignState, history: Sequence[HistoryEntry], path: str) -> list[Problem]:
    problems, last = [], 0
    for index, entry in enumerate(history):
        if not last < entry.version <= state.version:
            text = f"Version {entry.version} does not come after {last}, or is beyond the campaign's {state.version}."
            problems.append(Problem(join(join(path, index), "version"), "out_of_order", text))
        last = entry.version
    return problems
