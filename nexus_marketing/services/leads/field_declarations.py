"""Declaring a tenant's own lead fields, and what of the leads that are there does not fit.

Nothing is ever cast: a value of before the declaration stays as it is, is told of, and is refused only
when somebody writes it again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.audience import FieldRule, read_rule
from nexus_marketing.core.conditions import dependencies, parse
from nexus_marketing.core.errors import Conflict, NexusError, NotFound, ValidationError
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import LeadField, Segment, Template
from nexus_marketing.db.queries.leads import leads_after
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.fields import declared_faults, file_rules, forget_rules, rule_of
from nexus_marketing.services.segments.rules import rule_schema
from nexus_marketing.services.versions import find_to_change

#: How many leads are looked at per call, and how many of those that do not fit are named.
CHECKED_AT_ONCE = 5_000
_NAMED = 100
_RULE = ("type", "required", "personal", "allowed", "bounds")


@dataclass(frozen=True, slots=True)
class Misfits:
    """What a look at some leads found: ``next_id`` continues after it, ``None`` when all have been looked at.

    ``rows`` are (lead id, code) of at most 100 leads whose value does not fit; ``count`` counts all of them.
    """

    checked: int
    count: int
    rows: Sequence[tuple[int, str]]
    next_id: int | None


def declare_field(ctx: Context, data: Mapping[str, Any]) -> tuple[LeadField, Misfits]:
    """Declare a field; also what of the first 5,000 leads does not fit it.

    Args:
        data: ``name`` and what ``core.audience.read_rule`` takes.

    Raises:
        ValidationError: every fault, with its path.
        Conflict: the field is declared already, here or in ``tenant.toml``.
    """
    values = canonical(dict(data))
    rule = read_rule(str(values["name"]), {name: values[name] for name in _RULE if name in values})
    if rule.name in file_rules(ctx):
        raise Conflict(f"{rule.name} is declared in tenant.toml: change it there.", field="name")
    row = LeadField(name=rule.name, version=1, created_at=ctx.now, updated_at=ctx.now)
    _assign(row, rule)
    ctx.session.add(row)
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"name: there is a field {rule.name!r} already; change that one.", field="name") from error
    forget_rules(ctx)
    changes: dict[str, tuple[object, object]] = {"name": (None, rule.name), "rule": (None, document_of(row))}
    record(ctx, "lead_field.declared", "lead_field", row.id, changes)
    return row, misfits(ctx, row.id)


def change_field(
    ctx: Context, field_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> tuple[LeadField, Misfits]:
    """Change what is declared; leads that do not fit any more stay as they are and are told of.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: every fault, with its path.
        Conflict: another type, while segments compare the field as what it was.
    """
    row = find_to_change(ctx, LeadField, field_id, expected_version)
    before = document_of(row)
    rule = read_rule(row.name, {**before, **canonical(dict(data))})
    if rule.type != row.type:
        _refuse_use(ctx, row.name, "have another type", templates=False)
    _assign(row, rule)
    row.version += 1
    row.updated_at = ctx.now
    ctx.session.flush()
    forget_rules(ctx)
    record(ctx, "lead_field.changed", "lead_field", row.id, {"rule": (before, document_of(row))})
    return row, misfits(ctx, row.id)


def remove_field(ctx: Context, field_id: int, *, expected_version: int | None = None) -> None:
    """Take a declaration back; the values stay in the leads' metadata, as free ones.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: segments or templates use it; names them.
    """
    row = find_to_change(ctx, LeadField, field_id, expected_version)
    _refuse_use(ctx, row.name, "be removed")
    ctx.session.delete(row)
    ctx.session.flush()
    forget_rules(ctx)
    record(ctx, "lead_field.removed", "lead_field", field_id, {"rule": (document_of(row), None)})


def list_fields(ctx: Context) -> list[LeadField]:
    """The fields declared through the API and the command line, by name; a tenant has few."""
    return list(ctx.session.scalars(select(LeadField).order_by(LeadField.name)))


def find_field(ctx: Context, name: str) -> LeadField:
    """The declared field of this name.

    Raises:
        NotFound: there is none.
    """
    row = ctx.session.scalars(select(LeadField).where(LeadField.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"There is no declared field {name[:64]!r}.")
    return row


def misfits(ctx: Context, field_id: int, after: int = 0) -> Misfits:
    """Leads whose value does not fit a field, looked for among the next 5,000 after an id."""
    row = find(ctx.session, LeadField, field_id)
    rules = {row.name: rule_of(row)}
    leads = leads_after(ctx.session, ("id", "metadata"), after, CHECKED_AT_ONCE)
    found = []
    for lead in leads:
        faults = declared_faults(rules, lead["metadata"], complete=True)
        if faults:
            found.append((lead["id"], faults[0].code))
    next_id = leads[-1]["id"] if len(leads) == CHECKED_AT_ONCE else None
    return Misfits(len(leads), len(found), found[:_NAMED], next_id)


def document_of(row: LeadField) -> dict[str, Any]:
    """The rule as a document says it."""
    return {name: getattr(row, name) for name in _RULE}


def _assign(row: LeadField, rule: FieldRule) -> None:
    row.type, row.required, row.personal = str(rule.type), rule.required, rule.personal
    row.allowed = list(rule.allowed) or None
    ends = {"min": rule.minimum, "max": rule.maximum}
    row.bounds = {end: value for end, value in ends.items() if value is not None}


def _refuse_use(ctx: Context, name: str, what: str, *, templates: bool = True) -> None:
    used = [f"segment {segment!r}" for segment in _segments_using(ctx, name)]
    if templates:
        used += [f"template {template!r}" for template in _templates_using(ctx, name)]
    if used:
        more = f" and {len(used) - 10} more" if len(used) > 10 else ""
        raise Conflict(f"{name} cannot {what}: {', '.join(used[:10])}{more} use it. Change them first.", used_by=used)


def _segments_using(ctx: Context, name: str) -> list[str]:
    schema = rule_schema(ctx, is_saved=True)
    found = []
    for segment in ctx.session.scalars(select(Segment).where(Segment.conditions.is_not(None)).order_by(Segment.id)):
        try:
            fields = dependencies(parse(segment.conditions, schema, "conditions"), schema).fields
        except (NexusError, ValidationError):
            continue  # a rule that cannot be read any more uses nothing
        if fields & {name, f"metadata.{name}"}:
            found.append(segment.name)
    return found


def _templates_using(ctx: Context, name: str) -> list[str]:
    word = re.escape(name)
    used = re.compile(r"\{[{%][^}]*?" + rf"(?<![\w.])(?:lead\.)?(?:metadata\.)?{word}(?!\w)" + r"[^}]*[}%]\}")
    rows = ctx.session.execute(select(Template.name, Template.content).order_by(Template.id))
    return [
        row.name for row in rows if any(used.search(text) for text in row.content.values() if isinstance(text, str))
    ]
