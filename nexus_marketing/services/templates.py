"""Message templates: each change publishes a new immutable version."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.fan_out import legs_of
from nexus_marketing.core.messages import Message
from nexus_marketing.core.templates import TEMPLATE_PARTS, parse_message
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import Campaign, Send, Template, TemplateVersion
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.versions import find_to_change

#: Characters of a name to which " (copy)" is added, within the 200 that a name may have.
_NAME_ROOM = 193


def create_template(ctx: Context, data: Mapping[str, Any]) -> Template:
    """Write down a template and publish its first version.

    Args:
        data: ``name``, ``type`` (``email``, or ``text`` for channels that carry nothing else), ``content`` (``subject``,
            ``html``, ``text``; of type ``text`` that alone) and ``variables``
            (name → ``required``, ``fallback``, ``type``, ``example``).

    Raises:
        TemplateError: each fault of each part with line and column.
        Conflict: the name is taken.
    """
    values = canonical(dict(data))
    _check_type(values["type"])
    message = parse_message(values["content"], values.get("variables"), values["type"])
    template = Template(
        name=values["name"],
        type=values["type"],
        content=values["content"],
        variables=values.get("variables") or {},
        version=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(template)
    _flush_name(ctx, template.name)
    _publish(ctx, template, message)
    record(ctx, "template.created", "template", template.id, {"name": (None, template.name), "version": (None, 1)})
    return template


def update_template(
    ctx: Context, template_id: int, data: Mapping[str, Any], *, expected_version: int | None = None
) -> Template:
    """Change a template; other content or variables publish a new version, sends keep theirs.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        TemplateError: the new content is not in the language.
    """
    template = find_to_change(ctx, Template, template_id, expected_version)
    values = canonical(dict(data))
    before = {name: getattr(template, name) for name in values}
    for name, value in values.items():
        setattr(template, name, value)
    if {"content", "variables"} & values.keys():
        message = parse_message(template.content, template.variables, template.type)
        template.version += 1
        _publish(ctx, template, message)
    template.updated_at = ctx.now
    _flush_name(ctx, template.name)
    record(ctx, "template.updated", "template", template.id, {n: (before[n], values[n]) for n in values})
    return template


def duplicate_template(ctx: Context, template_id: int, name: str | None = None) -> Template:
    """Copy the newest content of a template into a new one, which begins at version 1.

    Args:
        name: of the copy; the original's with ``(copy)`` unless given.

    Raises:
        Conflict: the name is taken.
    """
    template = find(ctx.session, Template, template_id)
    copied = {"type": template.type, "content": template.content, "variables": template.variables}
    return create_template(ctx, {"name": name or template.name[:_NAME_ROOM] + " (copy)", **copied})


def delete_template(ctx: Context, template_id: int, *, expected_version: int | None = None) -> None:
    """Remove a template that nothing refers to, with all its versions.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        Conflict: campaigns refer to it, which are named; or messages of it went out.
    """
    template = find_to_change(ctx, Template, template_id, expected_version)
    users = _users(ctx, template_id)
    if users:
        named = ", ".join(map(str, users))
        raise Conflict(f"Campaigns use this template: {named}. Point them elsewhere first.", campaigns=list(users))
    if ctx.session.scalars(select(Send.id).where(Send.template_id == template_id).limit(1)).first():
        raise Conflict("Messages of this template went out and their links lead by it: keep it, or rename it.")
    ctx.session.delete(template)
    record(ctx, "template.deleted", "template", template_id, {"name": (template.name, None)})


def _users(ctx: Context, template_id: int) -> list[int]:
    """The first campaigns that refer to a template, by one channel or several."""
    by_one = select(Campaign.id).where(Campaign.template_id == template_id).order_by(Campaign.id).limit(10)
    by_many = select(Campaign.id, Campaign.channels).where(Campaign.channels.is_not(None)).order_by(Campaign.id)
    found = [row.id for row in ctx.session.execute(by_many) if _names_template(row.channels, template_id)]
    return sorted([*ctx.session.scalars(by_one), *found])[:10]


def _names_template(channels: Mapping[str, Any], template_id: int) -> bool:
    return any(leg.template_id == template_id for leg in legs_of("", None, channels))


def template_version(ctx: Context, template_id: int, number: int) -> TemplateVersion:
    """A published version."""
    return ctx.session.scalars(
        select(TemplateVersion).where(TemplateVersion.template_id == template_id, TemplateVersion.number == number)
    ).one()


def _check_type(type_: str) -> None:
    if type_ not in TEMPLATE_PARTS:
        said = f"{type_!r} is no template type: use {' or '.join(TEMPLATE_PARTS)}."
        raise ValidationError.at("type", "unknown_type", said)


def _publish(ctx: Context, template: Template, message: Message) -> None:
    digest = sha256(orjson.dumps([template.content, template.variables], option=orjson.OPT_SORT_KEYS)).hexdigest()
    ctx.session.add(
        TemplateVersion(
            template_id=template.id,
            number=template.version,
            content=template.content,
            variables=template.variables,
            links=list(message.links),
            digest=digest,
            created_at=ctx.now,
        )
    )
    ctx.session.flush()


def _flush_name(ctx: Context, name: str) -> None:
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"name: there is a template {name!r} already; choose another name.", field="name") from error
