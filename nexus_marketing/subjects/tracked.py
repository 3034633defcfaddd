"""JSON columns whose edits SQLAlchemy notices, however deep: ``product.marketing_config["campaigns"]["a"]["budget"] = 5``."""

from collections.abc import Iterable
from typing import Any, Final, SupportsIndex
from weakref import WeakKeyDictionary

from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import InstanceState

from nexus_marketing.core.inline import STATE_KEY

Parents = WeakKeyDictionary[InstanceState[Any], str]


class TrackedDict(MutableDict[Any, Any]):
    """A dict of a JSON column; all of a column's dicts and lists share the one note of whose column it is."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, tracked(value, self._parents))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of a key, put there if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Set several keys."""
        super().update({key: tracked(value, self._parents) for key, value in dict(*others, **named).items()})

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        """A copy or pickle is nobody's column."""
        return type(self), (dict(self),)


class TrackedList(MutableList[Any]):
    """A list of a JSON column."""

    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        many = isinstance(index, slice)
        super().__setitem__(
            index, [tracked(each, self._parents) for each in value] if many else tracked(value, self._parents)
        )

    def append(self, value: Any) -> None:
        """Add one at the end."""
        super().append(tracked(value, self._parents))

    def extend(self, values: Iterable[Any]) -> None:
        """Add several at the end."""
        super().extend([tracked(each, self._parents) for each in values])

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Add one before another."""
        super().insert(index, tracked(value, self._parents))

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        """A copy or pickle is nobody's column."""
        return type(self), (list(self),)


#: What is wrapped; a dict or list of another class is its author's to track.
_PLAIN: Final = (dict, list, MutableDict, MutableList, TrackedDict, TrackedList)


def tracked(value: Any, parents: Parents) -> Any:
    """A value as part of a column: dicts and lists become tracked ones, all else stays."""
    if type(value) not in _PLAIN:
        return value
    return _node(value, parents, frozenset())


def tracked_column(value: Any, state: InstanceState[Any], key: str) -> Any:
    """A column's value, tracked for its object.

    What lies under ``marketing`` is replaced and never edited, so it stays as it is.
    """
    if type(value) not in _PLAIN or (isinstance(value, (TrackedDict, TrackedList)) and state in value._parents):  # noqa: SLF001
        return value
    return _node(value, WeakKeyDictionary({state: key}), frozenset({STATE_KEY}))


def track_again(value: Any, state: InstanceState[Any], key: str) -> None:
    """Make what came out of a pickle its object's again, without replacing it."""
    parents: Parents = WeakKeyDictionary({state: key})
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, (TrackedDict, TrackedList)):
            vars(node)["_parents"] = parents
            nodes += node.values() if isinstance(node, TrackedDict) else node


def _node(value: Any, parents: Parents, untracked: frozenset[str]) -> Any:
    node: Any
    if isinstance(value, dict):
        node = TrackedDict()
        items = {name: each if name in untracked else tracked(each, parents) for name, each in value.items()}
        dict.update(node, items)
    else:
        node = TrackedList()
        list.extend(node, [tracked(each, parents) for each in value])
    vars(node)["_parents"] = parents
    return node
