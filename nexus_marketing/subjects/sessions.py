"""What waits for the transactions of a SQLAlchemy session, savepoints included."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Session, SessionTransaction

_INFO: Final = "nexus_marketing"


@dataclass(slots=True)
class _Waiting:
    """Done when the outermost transaction is committed, or undone when its own is not."""

    owner: SessionTransaction
    action: Callable[[], None] | None = None
    undo: Callable[[], None] | None = None


class SessionWork:
    """Of one session: what follows its commit, what a rollback undoes, and the rows that are locked until then.

    Each belongs to the innermost savepoint it was made in: it moves to the one around it when that is
    released, and is gone when that is rolled back, as PostgreSQL's row locks are.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._locked: dict[InstanceState[Any], SessionTransaction] = {}

    @classmethod
    def of(cls, session: Session) -> "SessionWork":
        """The one of this session."""
        work: SessionWork | None = session.info.get(_INFO)
        if work is None:
            work = session.info[_INFO] = cls()
            event.listen(session, "after_commit", work.committed)
            event.listen(session, "after_transaction_end", work.ended)
        return work

    def after_commit(self, session: Session, action: Callable[[], None]) -> None:
        """Do this once the session's transaction is durable.

        It is done while the objects still have what they were committed with; the session itself can
        run no SQL at that moment.
        """
        self._waiting.append(_Waiting(_current(session), action=action))

    def on_rollback(self, session: Session, undo: Callable[[], None]) -> None:
        """Do this if the transaction ends without a commit; what came last is undone first."""
        self._waiting.append(_Waiting(_current(session), undo=undo))

    def lock(self, session: Session, state: InstanceState[Any]) -> None:
        """Remember that an object's row is locked."""
        self._locked[state] = _current(session)

    def has_locked(self, state: InstanceState[Any]) -> bool:
        """Whether nobody else can change an object's row before this transaction ends."""
        return state in self._locked

    def committed(self, session: Session) -> None:
        """Listener: a savepoint was released, or all of it is durable."""
        nested = session.get_nested_transaction()
        if nested is not None:
            around = _boundary(nested.parent)
            for each in self._waiting:
                each.owner = around if each.owner is nested else each.owner
            self._locked = {state: around if owner is nested else owner for state, owner in self._locked.items()}
            return
        done, self._waiting = self._waiting, []
        self._locked.clear()
        for each in done:
            if each.action is not None:
                each.action()

    def ended(self, _session: Session, transaction: SessionTransaction) -> None:
        """Listener: a transaction or savepoint is over; what still belongs to it was not committed."""
        lost = [each for each in self._waiting if each.owner is transaction]
        self._waiting = [each for each in self._waiting if each.owner is not transaction]
        self._locked = {state: owner for state, owner in self._locked.items() if owner is not transaction}
        for each in reversed(lost):
            if each.undo is not None:
                each.undo()


def _current(session: Session) -> SessionTransaction:
    return session.get_nested_transaction() or session.get_transaction() or session.begin()


def _boundary(transaction: SessionTransaction | None) -> SessionTransaction:
    """The savepoint or outermost transaction that a flush's own transaction belongs to."""
    assert transaction is not None
    while transaction.parent is not None and not transaction.nested:
        transaction = transaction.parent
    return transaction
