"""``HasMarketing`` on Django models: a ``JSONField``, saved with every change, inside the user's own transaction.

A change locks the row, compares its revision and saves the field, all in one atomic block: with the user's, where
there is one. Hooks and events wait for ``transaction.on_commit``.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import DatabaseError, router, transaction
from django.db.models import F, Field, QuerySet
from django.db.models.signals import pre_save

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.inline import STATE_KEY, InlineStorage, revision_of
from nexus_marketing.subjects.races import check_revision, is_lost_race, lost_race


def prepare(cls: type[Any]) -> None:
    """Have a model's ``save()`` keep what was launched elsewhere meanwhile."""
    pre_save.connect(_keep_newer, sender=cls)


def identity(subject: Any) -> str:
    """The primary key as text; empty as long as there is none."""
    return "" if subject.pk is None else str(subject.pk)


def storage(subject: Any) -> "FieldStorage":
    """Campaigns in the object's field."""
    return FieldStorage(subject)


@dataclass(eq=False, slots=True)
class _Write:
    """A change whose transaction may still be rolled back; ``before`` is what the field held."""

    connection: Any
    before: Any
    settled: bool = False

    def settle(self) -> None:
        """It is durable."""
        self.settled = True

    def is_open(self) -> bool:
        """Whether its transaction still runs; what was rolled back is forgotten by its connection."""
        return any(each[1] == self.settle for each in self.connection.run_on_commit)


class FieldStorage(InlineStorage):
    """Campaigns in a ``JSONField``; of an object without a row, in its memory until it is saved."""

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._writes: list[_Write] = []

    def alone(self) -> AbstractContextManager[object]:
        """The row is locked; a thread that waits for it must not hold up others."""
        return super().alone() if self._is_new() else nullcontext()

    def document(self) -> Mapping[str, Any]:
        """What is kept; what was rolled back is not."""
        self._forget_rolled_back()
        return super().document()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once the transaction is durable; at once where there is none, or no row."""
        if self._is_new():
            action()
        else:
            transaction.on_commit(action, using=self._alias())

    def write(self, document: Mapping[str, Any], revision: int) -> None:
        """Save the field, once the row is ours.

        Raises:
            StaleVersion: the row is not at the revision the object was loaded with.
            ConfigurationError: the model has no such field.
        """
        field = _field(self.subject, self.attribute)
        if self._is_new():
            super().write(document, revision)
            return
        connection = transaction.get_connection(self._alias())
        if not (connection.in_atomic_block or connection.get_autocommit()):
            raise ConfigurationError("Autocommit is off here: launch campaigns inside of transaction.atomic().")
        write = _Write(connection, getattr(self.subject, self.attribute))
        try:
            with transaction.atomic(using=self._alias()):
                self._claim(field, revision)
                super().write(document, revision)
                self.subject.save(using=self._alias(), update_fields=[self.attribute])
                transaction.on_commit(write.settle, using=self._alias())
        except BaseException:
            setattr(self.subject, self.attribute, write.before)
            raise
        self._writes.append(write)

    def _claim(self, field: Any, revision: int) -> None:
        """Lock the row; where the database has no such lock, a change that changes nothing is one."""
        row, connection = _row(self.subject, field, self._alias()), transaction.get_connection(self._alias())
        name = _name(self.subject)
        try:
            if not connection.features.has_select_for_update:
                row.update(**{field.attname: F(field.attname)})
            found = row.select_for_update().values_list(field.attname, flat=True).first()
            is_gone = found is None and not row.exists()
        except DatabaseError as error:
            if is_lost_race(error.__cause__):
                raise lost_race(name) from error
            raise
        check_revision(name, None if is_gone else revision_of(found), revision)

    def _forget_rolled_back(self) -> None:
        self._writes = [each for each in self._writes if not each.settled]
        lost = [each for each in self._writes if not each.is_open()]
        if not lost:
            return
        self._writes = [each for each in self._writes if each not in lost]
        # Not what was before: during the hooks of a commit, a write is neither open nor settled yet.
        field = _field(self.subject, self.attribute)
        found = list(_row(self.subject, field, self._alias()).values_list(field.attname, flat=True))
        setattr(self.subject, self.attribute, found[0] if found else lost[0].before)

    def _is_new(self) -> bool:
        return bool(self.subject._state.adding)  # noqa: SLF001 - documented by Django

    def _alias(self) -> str:
        return str(router.db_for_write(type(self.subject), instance=self.subject))


def _keep_newer(instance: Any, raw: bool, using: str, update_fields: frozenset[str] | None, **_: Any) -> None:  # noqa: FBT001
    """Receiver before a save: Django writes every field as the object was loaded, a launch elsewhere included."""
    attribute = instance.marketing_state_attribute
    if raw or instance._state.adding or attribute in instance.get_deferred_fields():  # noqa: SLF001
        return
    if (update_fields is not None and attribute not in update_fields) or not _has_field(instance, attribute):
        return
    field, value = _field(instance, attribute), getattr(instance, attribute)
    found = _row(instance, field, using).values_list(field.attname, flat=True).first()
    if revision_of(found) > revision_of(value):
        setattr(instance, attribute, {**(value if isinstance(value, Mapping) else {}), STATE_KEY: found[STATE_KEY]})


def _row(subject: Any, field: Any, alias: str) -> "QuerySet[Any]":
    """The row that holds the field: a parent's, where the model inherits it."""
    owner = field.model
    key = getattr(subject, owner._meta.pk.attname)  # noqa: SLF001
    rows: QuerySet[Any] = owner._base_manager.using(alias).filter(pk=key).order_by()  # noqa: SLF001
    return rows


def _has_field(subject: Any, attribute: str) -> bool:
    try:
        return isinstance(subject._meta.get_field(attribute), Field)  # noqa: SLF001
    except FieldDoesNotExist:
        return False


def _field(subject: Any, attribute: str) -> Any:
    if not _has_field(subject, attribute):
        raise ConfigurationError(
            f"{type(subject).__name__} has no field to keep campaigns in. Add this line and migrate: "
            f"{attribute} = models.JSONField(null=True, blank=True, default=None, editable=False)"
        )
    return subject._meta.get_field(attribute)  # noqa: SLF001


def _name(subject: Any) -> str:
    return f"{type(subject).__name__} {subject.pk}"
