"""Campaigns on the object they are about, kept in one JSON-able attribute of it (Phase 1)."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final

from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
    entry_document,
    read_entry,
    read_state,
    state_document,
)
from nexus_marketing.core.errors import ConfigurationError, StaleVersion
from nexus_marketing.core.mixin import adapter_of, lock_of, subject_identity

_FORMAT: Final = 1
#: The key of the attribute's dict that is ours.
STATE_KEY: Final = "marketing"


def inline_storage(subject: Any) -> "InlineStorage":
    """The storage on the object itself, by the rules of its library."""
    adapter = adapter_of(subject)
    storage: InlineStorage = InlineStorage(subject) if adapter is None else adapter.storage(subject)
    return storage


class InlineStorage:
    """Campaigns in an attribute of the object they are about (Phase 1).

    The attribute holds a dict; ours is what lies under ``marketing``:
    ``{"format": 1, "revision": n, "campaigns": {name: {"state": …, "history": […]}}}``. Every commit
    replaces it by a new one, so that a reader sees all of a change or nothing of it.
    """

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self.attribute: str = subject.marketing_state_attribute
        self._read: dict[str, tuple[Any, CampaignState]] = {}

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign of this name, or nothing."""
        kept = self.document()["campaigns"].get(key.name)
        return None if kept is None else self._state(key, kept)

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision into the attribute.

        Raises:
            StaleVersion: another thread was first.
            ConfigurationError: the attribute cannot be written.
        """
        kept = {"state": state_document(decision.state), "history": [entry_document(decision.entry)]}
        with self.alone():
            document = self.document()
            before = document["campaigns"].get(key.name)
            current = 0 if before is None else before["state"]["version"]
            if current != expected_version:
                raise stale(key, current, expected_version)
            if before is not None:
                kept["history"] = [*before["history"], *kept["history"]]
            self.write(
                {
                    "format": _FORMAT,
                    "revision": document["revision"] + 1,
                    "campaigns": {**document["campaigns"], key.name: kept},
                },
                document["revision"],
            )
            self._read[key.name] = (kept, decision.state)
        return decision.state

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the history, oldest first."""
        kept = self.document()["campaigns"].get(key.name)
        lines = () if kept is None else (each for each in kept["history"] if each["version"] > page.after)
        return [read_entry(each) for each, _ in zip(lines, range(page.limit), strict=False)]

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """The campaigns of this object."""
        campaigns = self.document()["campaigns"]
        identity = subject_identity(self.subject)
        states = [self._state(CampaignKey(*identity, name), campaigns[name]) for name in sorted(campaigns)]
        return [state for state in states if wanted.admits(state)][: wanted.limit]

    def document(self) -> Mapping[str, Any]:
        """What is kept, or the empty form of it."""
        value = getattr(self.subject, self.attribute, None)
        if value is None:
            return {"format": _FORMAT, "revision": 0, "campaigns": {}}
        if not isinstance(value, Mapping):
            raise self._unusable(f"holds a {type(value).__name__}")
        document = value.get(STATE_KEY)
        if document is None:
            return {"format": _FORMAT, "revision": 0, "campaigns": {}}
        if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
            raise self._unusable(f"holds {str(document)[:60]!a} under {STATE_KEY!r}, which is no campaign state")
        return document

    def alone(self) -> AbstractContextManager[object]:
        """What keeps two threads apart that commit to one object; storages that lock its row need nothing."""
        return lock_of(self.subject)

    def write(self, document: Mapping[str, Any], revision: int) -> None:
        """Replace what is kept, which was at ``revision``; storages of libraries do it their own way."""
        del revision
        value = {**(getattr(self.subject, self.attribute, None) or {}), STATE_KEY: document}
        try:
            setattr(self.subject, self.attribute, value)
        except (AttributeError, TypeError) as error:
            raise self._unusable(f"cannot be written ({error})") from error

    def _state(self, key: CampaignKey, kept: Mapping[str, Any]) -> CampaignState:
        read = self._read.get(key.name)
        if read is None or read[0] is not kept or read[1].key != key:
            state = read_state(kept["state"])
            if state.key != key:  # the object got its id later, or is a copy under another one
                state = replace(state, key=key, id=key.id)
            read = self._read[key.name] = (kept, state)
        return read[1]

    def _unusable(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{type(self.subject).__name__}.{self.attribute} {what}: name an attribute that can hold a dict in "
            "marketing_state_attribute, or keep campaigns outside of the object with use_storage."
        )


def revision_of(value: Any) -> int:
    """How often the campaigns in an attribute's value were changed; 0 where there are none."""
    document = value.get(STATE_KEY) if isinstance(value, Mapping) else None
    return int(document["revision"]) if document else 0


def stale(key: CampaignKey, current: int, expected: int) -> StaleVersion:
    """Somebody else was first."""
    return StaleVersion(
        f"The campaign {key} is at version {current}, not {expected}: somebody else changed it first; "
        "look at it and try again.",
        current=current,
    )
