"""Leads: people we may write to, one at a time. Files of them come in through ``services.imports.intake``."""

from collections.abc import Mapping, Sequence

from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.audience import MAX_TAGS, complete_names, normalise_field, normalise_lead
from nexus_marketing.core.errors import Conflict, NexusError, NotFound, ValidationError
from nexus_marketing.core.events import LeadCreated, LeadUpdated
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.models import Lead, Member, Tenant
from nexus_marketing.db.tenancy import find, tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.fields import check_declared
from nexus_marketing.services.scores.marks import mark_changed
from nexus_marketing.services.segments.marks import mark_changes, mark_leads
from nexus_marketing.services.versions import find_to_change

ADDRESSES = ("email", "phone", "external_id")
PERSONAL = frozenset(column.name for column in Lead.__table__.columns if column.info.get("personal"))
_UNIQUE = ("email", "external_id")
_NAMES = ("name", "first_name", "last_name")
Values = dict[str, Canonical]
Changes = dict[str, tuple[Canonical, Canonical]]


def create_lead(ctx: Context, data: Mapping[str, object]) -> Lead:
    """Add a lead; an address of any kind suffices.

    Args:
        data: fields of ``core.audience.LEAD_FIELDS`` and ``owner_id``; ``metadata`` holds what is the tenant's own.

    Raises:
        ValidationError: every field that is wrong, with the remedy.
        Conflict: the e-mail address or external id belongs to another lead of the tenant.
    """
    values = new_values(ctx, data)
    lead = Lead(version=1, created_at=ctx.now, updated_at=ctx.now, score=0.0)
    _assign(lead, values)
    ctx.session.add(lead)
    flush_lead(ctx)
    note_created(ctx, lead, values)
    return lead


def new_values(ctx: Context, data: Mapping[str, object]) -> Values:
    """Column values of a lead to be.

    Raises:
        ValidationError: every field that is wrong, or no address among them.
    """
    values: Values = {"tags": [], "metadata": {}, **checked(ctx, data, is_new=True)}
    if not any(values.get(name) for name in ADDRESSES):
        raise ValidationError.at("email", "no_address", "A lead needs an email, a phone or an external_id.")
    return values | complete_names(values, {})


def note_created(ctx: Context, lead: Lead, values: Mapping[str, Canonical]) -> None:
    """Audit and tell of a lead that was just written."""
    _remember(ctx, lead, "lead.created", {name: (None, value) for name, value in values.items() if value})
    mark_leads(ctx, [lead.id])
    mark_changed(ctx, [lead.id])
    ctx.emit(LeadCreated(lead.tenant_id, ctx.now, lead.id))


def update_lead(ctx: Context, lead_id: int, data: Mapping[str, object], *, expected_version: int | None = None) -> Lead:
    """Change the given fields; ``None`` clears one. What is already so is not written again.

    Raises:
        StaleVersion: ``expected_version`` is not the current one (``current`` in the context).
        ValidationError: every field that is wrong, or nothing would be left to reach the lead by.
        Conflict: the e-mail address or external id belongs to another lead of the tenant.
    """
    lead = find_to_change(ctx, Lead, lead_id, expected_version)
    change_lead(ctx, lead, changes_of(lead, checked(ctx, data, country=lead.country)))
    return lead


def change_tags(
    ctx: Context,
    lead_id: int,
    *,
    add: Sequence[object] = (),
    remove: Sequence[object] = (),
    expected_version: int | None = None,
) -> Lead:
    """Add tags and take others off, whatever others do to them meanwhile; both may name what is so already.

    Raises:
        ValidationError: there would be too many, or one is no tag.
    """
    coming, going = (_tags(each, path) for each, path in ((add, "add"), (remove, "remove")))
    lead = find_to_change(ctx, Lead, lead_id, expected_version)
    kept: list[Canonical] = [tag for tag in lead.tags if tag not in going]
    tags = list(dict.fromkeys([*kept, *(tag for tag in coming if tag not in going)]))
    if len(tags) > MAX_TAGS:
        raise ValidationError.at("add", "too_many", f"The lead would have {len(tags)} tags, at most {MAX_TAGS} fit.")
    change_lead(ctx, lead, changes_of(lead, {"tags": list(tags)}))
    return lead


def checked(ctx: Context, data: Mapping[str, object], *, country: str | None = None, is_new: bool = False) -> Values:
    """The given fields in their stored form.

    Args:
        country: where the lead is known to live: whose numbers a phone without a country code is one of.
        is_new: whether there is nothing yet, so that required fields must be given.

    Raises:
        ValidationError: every field that is wrong.
    """
    fields = {name: value for name, value in data.items() if name != "owner_id"}
    values = normalise_lead(fields, _region(ctx, fields, country))
    metadata = values.get("metadata", {} if is_new else None)
    if isinstance(metadata, dict):
        check_declared(ctx, metadata)
    if "owner_id" in data:
        values["owner_id"] = _owner(ctx, data["owner_id"])
    return values


def changes_of(lead: Lead, values: Values) -> Changes:
    """What of the values is not so yet, as (before, after)."""
    complete = values | complete_names(values, {name: getattr(lead, name) for name in _NAMES})
    return {name: (stored(lead, name), value) for name, value in complete.items() if stored(lead, name) != value}


def change_lead(ctx: Context, lead: Lead, changes: Changes, action: str = "lead.updated") -> None:
    """Write changes of a lead that is locked; no changes are none.

    Raises:
        ValidationError: nothing would be left to reach the lead by.
        Conflict: the e-mail address or external id belongs to another lead of the tenant.
    """
    if not changes:
        return
    _assign(lead, {name: after for name, (_, after) in changes.items()})
    if not any(stored(lead, name) for name in ADDRESSES):
        raise ValidationError.at("email", "no_address", "A lead needs an email, a phone or an external_id: keep one.")
    _bump(ctx, lead)
    _remember(ctx, lead, action, changes)
    mark_changes(ctx, lead.id, changes)
    mark_changed(ctx, [lead.id], changes)
    ctx.emit(LeadUpdated(lead.tenant_id, ctx.now, lead.id))


def stored(lead: Lead, name: str) -> Canonical:
    """A lead's value by the field's public name."""
    found: Canonical = getattr(lead, "attributes" if name == "metadata" else name)
    return found


def flush_lead(ctx: Context) -> None:
    """Send pending changes.

    Raises:
        Conflict: an e-mail address or external id belongs to another lead of the tenant.
    """
    try:
        ctx.session.flush()
    except IntegrityError as error:
        field = next((name for name in _UNIQUE if name in str(error.orig)), None)
        if field is None:
            raise
        raise Conflict(
            f"{field}: another lead has this {field} already; change that lead, or leave {field} out here.",
            field=field,
        ) from error


def _region(ctx: Context, fields: Mapping[str, object], country: str | None) -> str | None:
    """Asked for only where a phone does not say it itself."""
    phone = fields.get("phone")
    if country is not None or not isinstance(phone, str) or phone.strip().startswith(("+", "00")):
        return country
    tenant = ctx.session.get(Tenant, tenant_of(ctx.session))
    return None if tenant is None else tenant.settings.get("default_country")


def _owner(ctx: Context, given: object) -> int | None:
    if given is None:
        return None
    try:
        return find(ctx.session, Member, parse_id(str(given), "member")).id
    except NotFound as error:
        raise ValidationError.at("owner_id", "not_found", "There is no such member.") from error


def _tags(given: Sequence[object], path: str) -> list[Canonical]:
    try:
        tags = normalise_field("tags", given)
    except NexusError as error:
        raise ValidationError.at(path, error.problems[0].code, error.problems[0].message) from error
    return tags if isinstance(tags, list) else []


def _assign(lead: Lead, values: Mapping[str, Canonical]) -> None:
    for name, value in values.items():
        setattr(lead, "attributes" if name == "metadata" else name, value)


def _bump(ctx: Context, lead: Lead) -> None:
    lead.version += 1
    lead.updated_at = ctx.now
    flush_lead(ctx)


def _remember(ctx: Context, lead: Lead, action: str, changes: Mapping[str, tuple[object, object]]) -> None:
    assert lead.tenant_id == tenant_of(ctx.session)
    record(ctx, action, "lead", lead.id, changes, personal=PERSONAL, lead_id=lead.id)
