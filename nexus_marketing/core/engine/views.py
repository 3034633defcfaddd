"""A campaign as guards, hooks and callers see it: attributes to read, nothing to write."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from nexus_marketing.core.campaigns import CampaignState, CampaignStatus
from nexus_marketing.core.errors import Problem


class CampaignView:
    """One campaign at one version: ``c.budget``, ``c.is_active()``, ``c.data["anything"]``.

    Launch data answer as attributes; what is not among them is an ``AttributeError`` that says so.
    ``subject`` is the object the campaign is about. ``problems`` says what went wrong without
    undoing the move: hooks that failed after it, and what could not be done here.
    """

    __slots__ = ("_state", "problems", "subject")

    def __init__(self, state: CampaignState, subject: Any = None, problems: tuple[Problem, ...] = ()) -> None:
        self._state = state
        self.subject = subject
        self.problems = problems

    @property
    def id(self) -> str:
        """The campaign's id, the same in every storage."""
        return self._state.id

    @property
    def name(self) -> str:
        """The name it is declared under."""
        return self._state.key.name

    @property
    def title(self) -> str:
        """The name for people."""
        return self._state.title

    @property
    def status(self) -> CampaignStatus:
        """One of the six statuses."""
        return self._state.status

    @property
    def stage(self) -> str:
        """The stage by its own name; without stages of a definition's own, the status."""
        return self._state.stage

    @property
    def version(self) -> int:
        """How often it has changed; 0 before anything is stored."""
        return self._state.version

    @property
    def data(self) -> Mapping[str, Any]:
        """The launch data over the definition's own."""
        return self._state.data

    @property
    def counters(self) -> Mapping[str, int]:
        """Recorded events, counted by name."""
        return self._state.counters

    @property
    def budget(self) -> int | float | Decimal | None:
        """The budget in major units; a decimal where it was given as text."""
        budget = self._state.data.get("budget")
        return Decimal(budget) if isinstance(budget, str) else budget

    @property
    def reason(self) -> str | None:
        """Why it is paused or cancelled, where somebody said."""
        return self._state.reason

    @property
    def definition(self) -> str | None:
        """The published definition it runs on (``code@version``), where there is one."""
        return self._state.definition

    @property
    def starts_at(self) -> datetime | None:
        """When a queued campaign becomes active (UTC)."""
        return self._state.starts_at

    @property
    def started_at(self) -> datetime | None:
        """When it became active (UTC)."""
        return self._state.started_at

    @property
    def completed_at(self) -> datetime | None:
        """When it ended (UTC)."""
        return self._state.completed_at

    def is_draft(self) -> bool:
        """Whether it was never launched."""
        return self._state.status is CampaignStatus.DRAFT

    def is_queued(self) -> bool:
        """Whether it is accepted and waits for its time."""
        return self._state.status is CampaignStatus.QUEUED

    def is_active(self) -> bool:
        """Whether it runs."""
        return self._state.status is CampaignStatus.ACTIVE

    def is_paused(self) -> bool:
        """Whether it waits to be resumed."""
        return self._state.status is CampaignStatus.PAUSED

    def is_completed(self) -> bool:
        """Whether it ended as it should."""
        return self._state.status is CampaignStatus.COMPLETED

    def is_cancelled(self) -> bool:
        """Whether it was given up."""
        return self._state.status is CampaignStatus.CANCELLED

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy and pickle before there is a state
            raise AttributeError(name)
        try:
            return self._state.data[name]
        except KeyError:
            raise AttributeError(
                f"The campaign {self.name} has no {name!r}: its data are {', '.join(sorted(self.data)) or 'empty'}."
            ) from None

    def __repr__(self) -> str:
        return f"<Campaign {self._state.key} {self.stage} version {self.version}>"
