"""``HasMarketing``: campaigns on any Python object, kept in one JSON-able attribute of it.

This module loads nothing but the vocabulary; the engine, Cerberus and the condition language load
with the first call of :meth:`HasMarketing.marketing`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final

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

if TYPE_CHECKING:
    from nexus_marketing.core.marketing import Marketing

_FORMAT: Final = 1
_MANAGER: Final = "_marketing_manager"
_KEY: Final = "marketing"
_LOCKS: Final = tuple(RLock() for _ in range(64))
#: How objects of a library are told by an attribute of their class, and who knows how to handle them.
_ADAPTERS: Final = (
    ("__mapper__", "nexus_marketing.subjects.sqlalchemy"),
    ("_meta", "nexus_marketing.subjects.django"),
)


class HasMarketing:
    """Mix this into any class: its objects get campaigns.

    >>> class Product(HasMarketing):
    ...     marketing_config = {"campaigns": {"product_launch": {"channels": ["email"], "budget": 5000}}}
    >>> product = Product()
    >>> product.marketing().launch_campaign("product_launch").status
    <CampaignStatus.ACTIVE: 'active'>

    ``marketing_config`` is a mapping, a method that answers one, or a JSON column. State is kept in the
    attribute named by ``marketing_state_attribute``, under the key ``marketing`` of a dict, or in the
    storage that ``nexus_marketing.use_storage`` or ``nexus_marketing.connect`` set for the process.
    ``marketing_subject_type`` and ``marketing_subject_id`` say whose campaigns they are where the class
    name and ``id`` do not.
    """

    marketing_config: Any = None
    marketing_state_attribute: ClassVar[str] = "marketing_state"

    def __init_subclass__(cls, **options: Any) -> None:
        """Give a SQLAlchemy model the column it needs, before it is mapped."""
        if any("registry" in vars(base) and "metadata" in vars(base) for base in cls.__mro__):
            import_module("nexus_marketing.subjects.sqlalchemy").prepare(cls)
        super().__init_subclass__(**options)

    def marketing(self) -> "Marketing":
        """The one manager of this object's campaigns (BR-007)."""
        values = getattr(self, "__dict__", None)
        manager = values.get(_MANAGER) if values is not None else None
        if manager is None or manager.subject is not self:  # a copy brings its original's manager along
            from nexus_marketing.core.marketing import Marketing  # noqa: PLC0415 - on first use

            manager = Marketing(self)
            if values is not None:
                manager = values.setdefault(_MANAGER, manager) if _MANAGER not in values else manager
                values[_MANAGER] = manager
        return manager


def adapter_of(subject: Any) -> Any:
    """The module that knows this object's library, or nothing for an object of the user's own."""
    for mark, module in _ADAPTERS:
        if hasattr(type(subject), mark):
            return import_module(module)
    return None


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
        return None if kept is None else self._state(key.name, kept)

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision into the attribute.

        Raises:
            StaleVersion: another thread was first.
            ConfigurationError: the attribute cannot be written.
        """
        kept = {"state": state_document(decision.state), "history": [entry_document(decision.entry)]}
        with _LOCKS[id(self.subject) // 16 % len(_LOCKS)]:
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
        states = [self._state(name, campaigns[name]) for name in sorted(campaigns)]
        return [state for state in states if wanted.admits(state)][: wanted.limit]

    def document(self) -> Mapping[str, Any]:
        """What is kept, or the empty form of it."""
        value = getattr(self.subject, self.attribute, None)
        if value is None:
            return {"format": _FORMAT, "revision": 0, "campaigns": {}}
        if not isinstance(value, Mapping):
            raise self._unusable(f"holds a {type(value).__name__}")
        document = value.get(_KEY)
        if document is None:
            return {"format": _FORMAT, "revision": 0, "campaigns": {}}
        if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
            raise self._unusable(f"holds {str(document)[:60]!a} under {_KEY!r}, which is no campaign state")
        return document

    def write(self, document: Mapping[str, Any], revision: int) -> None:
        """Replace what is kept, which was at ``revision``; storages of libraries do it their own way."""
        del revision
        value = {**(getattr(self.subject, self.attribute, None) or {}), _KEY: document}
        try:
            setattr(self.subject, self.attribute, value)
        except (AttributeError, TypeError) as error:
            raise self._unusable(f"cannot be written ({error})") from error

    def _state(self, name: str, kept: Mapping[str, Any]) -> CampaignState:
        read = self._read.get(name)
        if read is None or read[0] is not kept:
            read = self._read[name] = (kept, read_state(kept["state"]))
        return read[1]

    def _unusable(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{type(self.subject).__name__}.{self.attribute} {what}: name an attribute that can hold a dict in "
            f"marketing_state_attribute."
        )


def stale(key: CampaignKey, current: int, expected: int) -> StaleVersion:
    """Somebody else was first."""
    return StaleVersion(
        f"The campaign {key} is at version {current}, not {expected}: somebody else changed it first; "
        "look at it and try again.",
        current=current,
    )
