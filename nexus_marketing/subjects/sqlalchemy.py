"""``HasMarketing`` on SQLAlchemy models: a tracked JSON column, the user's own session, a guarded row.

A change is an ordinary one of the column: the user's commit writes it, a rollback takes it back. Before it is
made, the row is locked and its revision compared, so that of two that are about to write one is told.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Final

from sqlalchemy import JSON, Column, ColumnElement, Connection, Table, event, inspect, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstanceState, Mapper, Session, object_session

from nexus_marketing.core.errors import ConfigurationError, StaleVersion
from nexus_marketing.core.inline import STATE_KEY, InlineStorage, revision_of
from nexus_marketing.core.mixin import HasMarketing
from nexus_marketing.subjects.races import check_revision, is_lost_race, lost_race
from nexus_marketing.subjects.sessions import SessionWork
from nexus_marketing.subjects.tracked import track_again, tracked_column

_CONFIG: Final = "marketing_config"
_ABSENT: Final = object()
#: Where SELECT … FOR UPDATE locks a row; elsewhere an update that changes nothing does.
_SELECT_LOCKS: Final = frozenset({"postgresql", "mysql", "mariadb", "oracle"})


def prepare(cls: type[Any]) -> None:
    """Give a model its column and have its JSON columns tracked, now or when it is mapped."""
    _listen()
    if "__mapper__" in vars(cls):
        _complete(cls.__mapper__, cls)


def identity(subject: Any) -> str:
    """The primary key as text, parts joined by a comma; empty as long as the object has no row."""
    return ",".join(map(str, _state_of(subject).identity or ()))


def storage(subject: Any) -> "ColumnStorage":
    """Campaigns in the object's column."""
    state = _state_of(subject)
    _listen()  # a class that is mapped without a declarative base tells nobody before
    _track(state.mapper)
    _track_values(state)
    return ColumnStorage(subject)


class ColumnStorage(InlineStorage):
    """Campaigns in a JSON column of a mapped object, inside the transaction of its session."""

    def alone(self) -> AbstractContextManager[object]:
        """A session belongs to one thread; a thread that waits for a row must not hold up others."""
        return super().alone() if object_session(self.subject) is None else nullcontext()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once the session has committed; at once where the object has no session."""
        session = object_session(self.subject)
        if session is None:
            action()
        else:
            SessionWork.of(session).after_commit(session, action)

    def write(self, document: Mapping[str, Any], revision: int) -> None:
        """Change the column, as any assignment would, once the row is ours.

        Raises:
            StaleVersion: the row is not at the revision the object was loaded with.
            ConfigurationError: there is no such column, or the object is detached from its session.
        """
        state = _state_of(self.subject)
        _column(state.mapper, self.attribute)
        if state.detached or state.deleted:
            raise ConfigurationError(
                f"{_name(state)} is detached from its session or deleted: add it to a session, so that its row can be "
                "locked."
            )
        session = object_session(self.subject)
        if session is not None:
            if state.persistent:
                self._claim(state, session)
            SessionWork.of(session).on_rollback(session, self._undo(state))
        super().write(document, revision)

    def _claim(self, state: InstanceState[Any], session: Session) -> None:
        connection = session.connection(bind_arguments={"mapper": state.mapper})
        try:
            _claim(state, self.attribute, session, connection)
        except StaleVersion:
            if self.attribute not in state.unmodified:
                raise
            session.expire(self.subject, [self.attribute])  # the next look sees what the other one did
            raise

    def _undo(self, state: InstanceState[Any]) -> Callable[[], None]:
        """What a rollback leaves to do: SQLAlchemy reloads what has a row, and nothing else."""
        before = state.dict.get(self.attribute, _ABSENT)

        def undo() -> None:
            if state.persistent:
                return
            if before is not _ABSENT:
                setattr(self.subject, self.attribute, before)
            elif self.attribute in state.dict:
                delattr(self.subject, self.attribute)

        return undo


@cache
def _listen() -> None:
    """Hear of every model that is mapped from now on, and of its objects."""
    event.listen(HasMarketing, "after_mapper_constructed", _complete, propagate=True)
    event.listen(HasMarketing, "before_update", _guard, propagate=True)
    for moment in ("load", "refresh", "refresh_flush"):
        event.listen(HasMarketing, moment, _track_values, raw=True, propagate=True)
    event.listen(HasMarketing, "pickle", _pickled, raw=True, propagate=True)
    event.listen(HasMarketing, "unpickle", _unpickled, raw=True, propagate=True)


def _complete(mapper: Mapper[Any], cls: type[Any]) -> None:
    """Add the column to a model that has nothing of this name, itself or from one it inherits."""
    name, table = cls.marketing_state_attribute, mapper.local_table
    if not (mapper.has_property(name) or hasattr(cls, name)) and isinstance(table, Table):
        if name not in table.c:
            table.append_column(Column(name, JSON(none_as_null=True), nullable=True))
        mapper.add_property(name, table.c[name])
    _track(mapper)


def _track(mapper: Mapper[Any]) -> None:
    for key in (mapper.class_.marketing_state_attribute, _CONFIG):
        attributes = [each.class_manager.get(key) for each in mapper.iterate_to_root() if each.has_property(key)]
        if attributes and not any(event.contains(each, "set", _track_assigned) for each in attributes):
            event.listen(
                attributes[0],
                "set",
                _track_assigned,
                raw=True,
                retval=True,
                propagate=True,
                active_history=key != _CONFIG,
            )


def _track_assigned(state: InstanceState[Any], value: Any, old: Any, initiator: Any) -> Any:
    del old
    return tracked_column(value, state, initiator.key)


def _track_values(state: InstanceState[Any], *_: Any) -> None:
    for key in (state.class_.marketing_state_attribute, _CONFIG):
        if key in state.dict and state.mapper.has_property(key):
            state.dict[key] = tracked_column(state.dict[key], state, key)


def _pickled(state: InstanceState[Any], pickled: dict[str, Any]) -> None:
    """Take the columns along: an object's own values are not there yet when its state is read back."""
    keys = (state.class_.marketing_state_attribute, _CONFIG)
    pickled[__name__] = {key: state.dict[key] for key in keys if key in state.dict and state.mapper.has_property(key)}


def _unpickled(state: InstanceState[Any], pickled: dict[str, Any]) -> None:
    for key, value in pickled.get(__name__, {}).items():
        track_again(value, state, key)


def _guard(_mapper: Mapper[Any], connection: Connection, subject: Any) -> None:
    """Listener before a row is updated: a column that was changed by other ways than ours is no exception."""
    state, session = _state_of(subject), object_session(subject)
    attribute = subject.marketing_state_attribute
    if session is None or attribute in state.unmodified or not state.mapper.has_property(attribute):
        return
    value = state.dict.get(attribute)
    if isinstance(value, Mapping) and value.get(STATE_KEY) and revision_of(value) < _known(state, attribute):
        raise StaleVersion(
            f"What was assigned to {_name(state)}.{attribute} is older than what is there: load it anew."
        )
    _claim(state, attribute, session, connection)


def _claim(state: InstanceState[Any], attribute: str, session: Session, connection: Connection) -> None:
    """Lock an object's row for the rest of the transaction, if it is still as the object was loaded."""
    work = SessionWork.of(session)
    if work.has_locked(state):
        return
    column = _column(state.mapper, attribute)
    found = _lock(connection, column, _row(state, column.table), _name(state))
    check_revision(_name(state), found, _known(state, attribute))
    work.lock(session, state)


def _lock(connection: Connection, column: Column[Any], row: list[ColumnElement[bool]], subject: str) -> int | None:
    """Lock a row and answer its revision, or nothing where it is gone."""
    try:
        if connection.dialect.name not in _SELECT_LOCKS:
            same = {each: each for each in column.table.c if each is column or each.onupdate is not None}
            connection.execute(update(column.table).where(*row).values(same))
        found = connection.execute(select(column).where(*row).with_for_update()).one_or_none()
    except DBAPIError as error:
        if is_lost_race(error.orig):
            raise lost_race(subject) from error
        raise
    return None if found is None else revision_of(found[0])


def _row(state: InstanceState[Any], table: Any) -> list[ColumnElement[bool]]:
    """The condition for an object's row in one of its tables."""
    mapper = state.mapper
    keys = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
    values = dict(zip(keys, state.identity or (), strict=True))
    return [each == values[mapper.get_property_by_column(each).key] for each in table.primary_key]


def _known(state: InstanceState[Any], attribute: str) -> int:
    """The revision an object was loaded with, whatever was done to it since."""
    replaced = state.attrs[attribute].history.deleted
    return revision_of(replaced[0] if replaced else state.dict.get(attribute))


def _column(mapper: Mapper[Any], attribute: str) -> Column[Any]:
    found = mapper.column_attrs.get(attribute)
    if found is None or not isinstance(found.columns[0], Column):
        raise ConfigurationError(
            f"{mapper.class_.__name__}.{attribute} is no column: write {attribute} = mapped_column(JSON) in the class, "
            "or name another JSON column in marketing_state_attribute."
        )
    return found.columns[0]


def _state_of(subject: Any) -> InstanceState[Any]:
    state: InstanceState[Any] = inspect(subject)
    return state


def _name(state: InstanceState[Any]) -> str:
    return f"{state.class_.__name__} {','.join(map(str, state.identity or ()))}".rstrip()
