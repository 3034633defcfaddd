"""The declarative base, keys that work on both databases, and the mark of personal data.

PostgreSQL wants ``PRIMARY KEY (tenant_id, id)``; SQLite cannot count up a composite key, so
there ``id`` is the row id and ``UNIQUE (tenant_id, id)`` serves foreign keys (DATABASE.md, Keys).
Models say it once; two compiler hooks below emit both forms.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Identity, MetaData, PrimaryKeyConstraint
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column
from sqlalchemy.schema import CreateColumn
from sqlalchemy.sql.compiler import DDLCompiler

from nexus_marketing.db.types import BigInt, Bytes, Json, Text, UtcDateTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All our tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - the declarative base reads it as it is
        int: BigInt,
        str: Text,
        bytes: Bytes,
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        list[Any]: Json,
    }


def plain(*args: Any, **options: Any) -> MappedColumn[Any]:
    """A column that holds no personal data."""
    return mapped_column(*args, info={"personal": False}, **options)


def personal(*args: Any, **options: Any) -> MappedColumn[Any]:
    """A column that holds personal data: erasure clears it, export includes it, logs and audit never show it."""
    return mapped_column(*args, info={"personal": True}, **options)


class TenantScoped:
    """Rows that belong to one tenant: every session adds the tenant to what it reads and writes."""

    tenant_id: Mapped[int] = plain(BigInt, primary_key=True, autoincrement=False, sort_order=-10)


class TenantKeyed(TenantScoped):
    """Rows numbered by the database: ``(tenant_id, id)`` is the key."""

    id: Mapped[int] = plain(BigInt, Identity(), primary_key=True, autoincrement=True, sort_order=-9)


def tenant_fk(
    columns: str | Sequence[str], table: str, target: str | Sequence[str] = "id", **options: Any
) -> ForeignKeyConstraint:
    """A foreign key that cannot reach another tenant: ``tenant_id`` leads on both sides."""
    names = [columns] if isinstance(columns, str) else list(columns)
    targets = [target] if isinstance(target, str) else list(target)
    return ForeignKeyConstraint(
        ["tenant_id", *names], [f"{table}.tenant_id", *(f"{table}.{name}" for name in targets)], **options
    )


def one_of(column: str, vocabulary: type[StrEnum]) -> CheckConstraint:
    """A CHECK that keeps words outside the vocabulary out, whichever door they come through."""
    words = ", ".join(f"'{word}'" for word in vocabulary)
    return CheckConstraint(f"{column} IN ({words})", name=column)


def _is_row_id(column: Column[Any]) -> bool:
    table = column.table
    return column.name == "id" and column.primary_key and len(table.primary_key.columns) > 1


@compiles(CreateColumn, "sqlite")
def _sqlite_row_id(element: CreateColumn, compiler: DDLCompiler, **options: Any) -> str:
    if _is_row_id(element.element):
        return "id INTEGER PRIMARY KEY AUTOINCREMENT"
    return compiler.visit_create_column(element, **options)


@compiles(PrimaryKeyConstraint, "sqlite")
def _sqlite_primary_key(constraint: PrimaryKeyConstraint, compiler: DDLCompiler, **options: Any) -> str:
    if any(_is_row_id(column) for column in constraint.columns):
        names = ", ".join(compiler.preparer.quote(column.name) for column in constraint.columns)
        return f"UNIQUE ({names})"
    return compiler.visit_primary_key_constraint(constraint, **options)
