"""Options of imports under a name, for files that come again and again."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.values import canonical_text
from nexus_marketing.db.models import LeadImportProfile
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.versions import find_to_change


def create_profile(ctx: Context, data: Mapping[str, Any]) -> LeadImportProfile:
    """Keep options under a name.

    Args:
        data: ``name`` and ``options`` as ``core.audience.ImportOptions`` reads them.

    Raises:
        ValidationError: every fault of the options, at ``options.<name>``.
        Conflict: there is a profile of this name.
    """
    row = LeadImportProfile(
        name=_name(data["name"]),
        options=_options(data["options"]),
        version=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(row)
    _flush(ctx, row)
    record(ctx, "import_profile.created", "lead_import_profile", row.id, {"options": (None, row.options)})
    return row


def update_profile(
    ctx: Context, profile_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> LeadImportProfile:
    """Change the name or replace the options; imports that have begun keep those with which they began.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        ValidationError: and ``Conflict``: as for :func:`create_profile`.
    """
    row = find_to_change(ctx, LeadImportProfile, profile_id, expected_version)
    before = row.options
    if "name" in data:
        row.name = _name(data["name"])
    if "options" in data:
        row.options = _options(data["options"])
    row.version += 1
    row.updated_at = ctx.now
    _flush(ctx, row)
    record(ctx, "import_profile.changed", "lead_import_profile", row.id, {"options": (before, row.options)})
    return row


def delete_profile(ctx: Context, profile_id: int, *, expected_version: int | None = None) -> None:
    """Forget a profile; imports keep the options that it gave them.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
    """
    row = find_to_change(ctx, LeadImportProfile, profile_id, expected_version)
    ctx.session.delete(row)
    ctx.session.flush()
    record(ctx, "import_profile.deleted", "lead_import_profile", profile_id, {"options": (row.options, None)})


def _name(said: str) -> str:
    name = canonical_text(said, "name").strip()
    if not name:
        raise ValidationError.at("name", "required", "A profile has a name.")
    return name


def _options(said: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return ImportOptions.read(said).document()
    except ValidationError as error:
        raise error.under("options") from None


def _flush(ctx: Context, row: LeadImportProfile) -> None:
    name = row.name
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"name: there is a profile {name!r} already; change that one.", field="name") from error
