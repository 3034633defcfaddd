"""A tenant's own lead fields: their types are declared once and held to at every write.

Undeclared metadata may hold anything; a declared field is converted by the import that reads it
and refused by every other door when its type is wrong (CONDITIONS.md, Types: never cast).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import (
    DATE_SHAPE,
    DATETIME_SHAPE,
    Canonical,
    canonical_datetime,
    canonical_number,
    parse_date,
    parse_datetime,
)
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context

_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
#: What ``[fields]`` of a tenant's declaration may say.
DECLARABLE: Final = frozenset(
    {FieldType.TEXT, FieldType.NUMBER, FieldType.BOOLEAN, FieldType.DATE, FieldType.DATETIME, FieldType.LIST}
)


def declared_fields(ctx: Context) -> dict[str, FieldType]:
    """The tenant's own fields and their types."""
    tenant = ctx.session.get(Tenant, tenant_of(ctx.session))
    found: Mapping[str, str] = tenant.settings.get("fields", {}) if tenant is not None else {}
    return {name: FieldType(kind) for name, kind in found.items()}


def check_declared(ctx: Context, metadata: Mapping[str, Canonical]) -> None:
    """Refuse metadata whose declared fields hold another type.

    Raises:
        ValidationError: each such field at ``metadata.<name>``.
    """
    problems = [
        Problem(f"metadata.{name}", "wrong_type", f"{name} is declared as {kind}: {_REMEDIES[kind]}.")
        for name, kind in declared_fields(ctx).items()
        if metadata.get(name) is not None and not _holds(metadata[name], kind)
    ]
    if problems:
        raise ValidationError(problems=problems)


def convert_text(text: str, kind: FieldType, path: str) -> Canonical:
    """Read the cell of a file as a declared type.

    Raises:
        ValidationError: the text is no such value.
    """
    match kind:
        case FieldType.NUMBER:
            return _number(text, path)
        case FieldType.BOOLEAN:
            if text.lower() not in _WORDS:
                raise _wrong(path, text, kind)
            return _WORDS[text.lower()]
        case FieldType.DATE:
            return parse_date(text, path).isoformat()
        case FieldType.DATETIME:
            return canonical_datetime(_instant(text, path))
        case FieldType.LIST:
            return [part.strip() for part in text.replace("|", ";").split(";") if part.strip()]
    return text


def _number(text: str, path: str) -> Canonical:
    # float() also reads "1_000", "nan" and Arabic digits: not what a file means by a number.
    if not text.isascii() or "_" in text:
        raise _wrong(path, text, FieldType.NUMBER)
    try:
        number = int(text) if text.lstrip("+-").isdigit() and len(text) < 20 else float(text)
    except ValueError:
        raise _wrong(path, text, FieldType.NUMBER) from None
    return canonical_number(number, path)


def _instant(text: str, path: str) -> datetime:
    if DATE_SHAPE.match(text):
        day = parse_date(text, path)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return parse_datetime(text, path)


def _wrong(path: str, text: str, kind: FieldType) -> ValidationError:
    return ValidationError.at(path, "wrong_type", f"{text[:60]!a} is no {kind}: {_REMEDIES[kind]}.")


def _holds(value: Canonical, kind: FieldType) -> bool:
    match kind:
        case FieldType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.DATE:
            return isinstance(value, str) and DATE_SHAPE.match(value) is not None
        case FieldType.DATETIME:
            return isinstance(value, str) and DATETIME_SHAPE.match(value) is not None
        case FieldType.LIST:
            return isinstance(value, list)
    return isinstance(value, str)


_REMEDIES: Final[Mapping[FieldType, str]] = {
    FieldType.TEXT: "write text",
    FieldType.NUMBER: "write a number such as 12 or 12.5",
    FieldType.BOOLEAN: "write true or false",
    FieldType.DATE: "write YYYY-MM-DD",
    FieldType.DATETIME: "write YYYY-MM-DDThh:mm:ss.ffffffZ",
    FieldType.LIST: "write a list",
}
