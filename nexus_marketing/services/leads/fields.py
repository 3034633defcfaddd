"""A tenant's own lead fields: their types are declared once and held to at every write.

Undeclared metadata may hold anything; a declared field is converted by the import that reads it
and refused by every other door when its type is wrong (CONDITIONS.md, Types: never cast).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.audience import FieldRule, read_rule
from nexus_marketing.core.audience.custom import REMEDIES, missing
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import (
    DATE_SHAPE,
    Canonical,
    canonical_datetime,
    canonical_number,
    parse_date,
    parse_datetime,
)
from nexus_marketing.db.models import LeadField, Tenant
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context

_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_RULES: Final = "nexus_field_rules"


def declared_fields(ctx: Context) -> dict[str, FieldType]:
    """The tenant's own fields and their types."""
    return {name: rule.type for name, rule in field_rules(ctx).items()}


def field_rules(ctx: Context) -> dict[str, FieldRule]:
    """What the tenant declared of its own fields: in its file, and through the API and the command line."""
    known: dict[str, FieldRule] | None = ctx.session.info.get(_RULES)
    if known is None:
        rows = ctx.session.scalars(select(LeadField).order_by(LeadField.name)).all()
        known = file_rules(ctx) | {row.name: rule_of(row) for row in rows}
        ctx.session.info[_RULES] = known  # for this unit of work: a thousand rows ask once
    return known


def forget_rules(ctx: Context) -> None:
    """Read the rules again: they were changed in this unit of work."""
    ctx.session.info.pop(_RULES, None)


def file_rules(ctx: Context) -> dict[str, FieldRule]:
    """What ``tenant.toml`` declares."""
    tenant = ctx.session.get(Tenant, tenant_of(ctx.session))
    found: Mapping[str, object] = tenant.settings.get("fields", {}) if tenant is not None else {}
    return {
        name: read_rule(name, said if isinstance(said, Mapping) else {"type": said}) for name, said in found.items()
    }


def check_no_contradiction(ctx: Context, declared: object) -> None:
    """Refuse types in a tenant's file that are not those which the API or the command line declared.

    Raises:
        ValidationError: each such field at ``settings.fields``.
    """
    said = declared if isinstance(declared, Mapping) else {}
    problems = [
        Problem("settings.fields", "contradiction", f"{row.name} is declared as {row.type} already: say the same here.")
        for row in ctx.session.scalars(select(LeadField).where(LeadField.name.in_(list(said))))
        if row.type != _type_of(said[row.name])
    ]
    if problems:
        raise ValidationError(problems=problems)


def _type_of(said: object) -> object:
    return said.get("type") if isinstance(said, Mapping) else said


def rule_of(row: LeadField) -> FieldRule:
    """The rule that a row holds."""
    return FieldRule(
        row.name,
        FieldType(row.type),
        row.required,
        row.personal,
        tuple(row.allowed or ()),
        row.bounds.get("min"),
        row.bounds.get("max"),
    )


def check_declared(ctx: Context, metadata: Mapping[str, Canonical], *, complete: bool = True) -> None:
    """Refuse metadata whose declared fields do not keep to their rules.

    Args:
        complete: whether this is all of a lead's metadata, so that required fields must be there.

    Raises:
        ValidationError: each such field at ``metadata.<name>``.
    """
    problems = declared_faults(field_rules(ctx), metadata, complete=complete)
    if problems:
        raise ValidationError(problems=problems)


def declared_faults(
    rules: Mapping[str, FieldRule], metadata: Mapping[str, Canonical], *, complete: bool
) -> list[Problem]:
    """What is wrong with metadata; nothing where it is as declared."""
    problems: list[Problem] = []
    for name, rule in rules.items():
        value = metadata.get(name)
        if value is not None:
            problems += rule.faults(value)
        elif rule.required and (complete or name in metadata):
            problems.append(missing(rule))
    return problems


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
    return ValidationError.at(path, "wrong_type", f"{text[:60]!a} is no {kind}: {REMEDIES[kind]}.")
