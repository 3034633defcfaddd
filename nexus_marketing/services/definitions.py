"""Definitions in the database: worked on, published as immutable versions, and what campaigns run on (FR-P2-001)."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from threading import Lock
from typing import Any, Final

import orjson
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nexus_marketing.core.conditions import NO_PLUGINS, Vocabulary
from nexus_marketing.core.definitions import STANDARD, Definition, parse_definition
from nexus_marketing.core.errors import Conflict, NotFound, Problem, ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import Campaign, CampaignDefinition, DefinitionVersion, Segment, Template
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.names import action_problems
from nexus_marketing.services.audit import record
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.versions import find_to_change

_KEPT: Final = 2_000
#: Understood documents by what they are: versions never change, so that nothing here grows stale.
_understood: dict[tuple[bytes, Vocabulary], Definition] = {}
_lock = Lock()


def create_definition(ctx: Context, data: Mapping[str, Any]) -> CampaignDefinition:
    """Write down a definition; it is used once a version of it is published.

    Args:
        data: ``schema``, the document; its ``id`` is the code, its ``name`` the name.

    Raises:
        ValidationError: every fault of the document, with its path under ``schema``.
        Conflict: the code is taken.
    """
    document = _document(data)
    if "id" not in document:
        raise ValidationError.at("schema.id", "required", "A definition needs an id, such as welcome-series.")
    understood = understand(document, path="schema", conditions=conditions_of(ctx))
    definition = CampaignDefinition(
        code=understood.code,
        name=understood.title,
        schema=document,
        active=True,
        revision=1,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(definition)
    try:
        ctx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"There is a definition {understood.code!a} already: change it, or use another id.") from error
    record(ctx, "definition.created", "definition", definition.id, {"code": (None, definition.code)})
    return definition


def update_definition(
    ctx: Context, definition_id: int, data: Mapping[str, Any], *, expected_revision: int | None = None
) -> CampaignDefinition:
    """Change the document; published versions and what runs on them stay as they are.

    Raises:
        StaleVersion: it is not at ``expected_revision``.
        ValidationError: the document has faults, or another id.
    """
    definition = find_to_change(ctx, CampaignDefinition, definition_id, expected_revision, counter="revision")
    document = _document(data)
    understood = understand({"id": definition.code, **document}, path="schema", conditions=conditions_of(ctx))
    if understood.code != definition.code:
        raise ValidationError.at("schema.id", "fixed", f"The id stays {definition.code}: duplicate it under another.")
    definition.schema = {"id": definition.code, **document}
    definition.name = understood.title
    _touch(ctx, definition)
    record(ctx, "definition.updated", "definition", definition.id, {"revision": (None, definition.revision)})
    return definition


def publish_definition(ctx: Context, definition_id: int, *, expected_revision: int | None = None) -> CampaignDefinition:
    """Make the document a version that never changes, and put it in force for what is launched from now on.

    Publishing what is in force already changes nothing.

    Raises:
        Conflict: the document's version was published with other content: raise it.
        ValidationError: it names an action, or a plugin's condition, that the tenant does not have.
    """
    definition = find_to_change(ctx, CampaignDefinition, definition_id, expected_revision, counter="revision")
    understand(definition.schema, path="schema", conditions=conditions_of(ctx))
    problems = action_problems(ctx, definition.schema, "schema")
    if problems:
        raise ValidationError(problems=problems)
    version = str(definition.schema.get("version") or _next_version(ctx, definition))
    published = _version(ctx, definition.id, version)
    if published is not None and published.schema != definition.schema:
        raise Conflict(
            f"Version {version} of {definition.code} is published with other content and stays so: "
            "write a higher version into the document.",
            version=version,
        )
    if published is None:
        ctx.session.add(
            DefinitionVersion(
                definition_id=definition.id,
                version=version,
                schema=definition.schema,
                published_by=ctx.actor.label,
                published_at=ctx.now,
            )
        )
    if definition.version != version:
        before, definition.version = definition.version, version
        _touch(ctx, definition)
        record(ctx, "definition.published", "definition", definition.id, {"version": (before, version)})
    return definition


def notices_of(ctx: Context, definition: CampaignDefinition) -> list[Problem]:
    """What a document mentions and the tenant does not have: with an action among it, it cannot be published."""
    understood = understand(definition.schema, conditions=conditions_of(ctx, is_saved=True))
    others = [each for each in understood.notices if each.code != "unknown_action"]
    return [*action_problems(ctx, definition.schema), *others]


def duplicate_definition(ctx: Context, definition_id: int, code: str) -> CampaignDefinition:
    """Another definition with the same document under another id, unpublished."""
    source = find(ctx.session, CampaignDefinition, definition_id)
    document = {**source.schema, "id": code, "name": f"{source.name} (copy)"[:200]}
    document.pop("version", None)
    return create_definition(ctx, {"schema": document})


def activate_definition(
    ctx: Context, definition_id: int, *, active: bool, expected_revision: int | None = None
) -> CampaignDefinition:
    """Let campaigns begin on a definition, or no more; what runs goes on."""
    definition = find_to_change(ctx, CampaignDefinition, definition_id, expected_revision, counter="revision")
    if definition.active != active:
        definition.active = active
        _touch(ctx, definition)
        verb = "activated" if active else "deactivated"
        record(ctx, f"definition.{verb}", "definition", definition.id, {"active": (not active, active)})
    return definition


def versions_of(ctx: Context, definition_id: int) -> list[DefinitionVersion]:
    """The published versions, latest first."""
    find(ctx.session, CampaignDefinition, definition_id)
    statement = (
        select(DefinitionVersion)
        .where(DefinitionVersion.definition_id == definition_id)
        .order_by(DefinitionVersion.id.desc())
    )
    return list(ctx.session.scalars(statement))


def published(ctx: Context, code: str, version: str | None = None) -> Definition | None:
    """The definition in force under a code, or one version of it; nothing where there is none to begin on."""
    statement = (
        select(CampaignDefinition.code, DefinitionVersion)
        .join(
            DefinitionVersion,
            (DefinitionVersion.tenant_id == CampaignDefinition.tenant_id)
            & (DefinitionVersion.definition_id == CampaignDefinition.id),
        )
        .where(CampaignDefinition.code == code)
    )
    if version is None:
        statement = statement.where(
            CampaignDefinition.active.is_(True), DefinitionVersion.version == CampaignDefinition.version
        )
    else:
        statement = statement.where(DefinitionVersion.version == version)
    row = ctx.session.execute(statement).first()
    return None if row is None else _pinned(ctx, row[1])


def definition_of(ctx: Context, campaign: Campaign) -> Definition:
    """What a campaign goes by: the version it is pinned to, the program's own, or the six statuses."""
    if campaign.definition_id is not None and campaign.definition_version is not None:
        version = _version(ctx, campaign.definition_id, campaign.definition_version)
        if version is None:
            raise NotFound(f"Version {campaign.definition_version} of the campaign's definition is gone.")
        return _pinned(ctx, version)
    if campaign.program is not None:
        return understand(campaign.program, code=campaign.campaign_key or "")
    return STANDARD


def chosen_definition(ctx: Context, data: Mapping[str, Any]) -> tuple[dict[str, Any], Definition]:
    """What a new campaign is made from, and its fields with those that the definition gives.

    Raises:
        ValidationError: the definition is unknown, not published or not active; or the data have faults.
    """
    document = dict(data)
    wanted, version = document.pop("definition_id", None), document.pop("definition_version", None)
    if wanted is None:
        if version is not None:
            raise ValidationError.at("definition_version", "required", "A version needs its definition_id.")
        return document, STANDARD
    row, definition = _chosen(ctx, wanted, version)
    given = canonical(document.get("data") or {}, "data")
    merged = {**definition.defaults, **given}
    problems = definition.form.faults(merged, path="data")
    if problems:
        raise ValidationError(problems=problems)
    missing: list[Problem] = []
    fields = given_fields(ctx, definition, merged, missing)
    if missing:
        raise ValidationError(problems=missing)
    # Who names one channel or its template means that one, whatever the definition goes out by; and the other way round.
    names_one = document.keys() & {"channel", "template_id"}
    theirs = {"channels"} if names_one else {"channel", "template_id"} if document.get("channels") else frozenset()
    return {
        **{name: value for name, value in fields.items() if name not in theirs},
        **document,
        "data": merged,
        "campaign_key": row.code,
        "definition_id": row.id,
        "definition_version": definition.version,
    }, definition


def understand(
    document: Mapping[str, Any], *, code: str = "", path: str = "", conditions: Vocabulary = NO_PLUGINS
) -> Definition:
    """A definition from its document; the same document is read once per process.

    Args:
        document: as it is to be, or a program's own.
        code: its name where the document has no ``id``.
        path: where it lies in a larger document, for error paths.
        conditions: those of plugins; the documents of in-model configurations name none.
    """
    digest = (
        orjson.dumps([code, document]),
        conditions,
    )  # in its order: the first stage of a status is where campaigns arrive
    found = _understood.get(digest)
    if found is None:
        found = parse_definition(document, code=code, path=path, conditions=conditions)
        with _lock:
            if len(_understood) >= _KEPT:
                _understood.clear()
            _understood[digest] = found
    return found


def _pinned(ctx: Context, version: DefinitionVersion) -> Definition:
    """A published version; what is launched on it names it and keeps it."""
    found = understand(version.schema, conditions=conditions_of(ctx, is_saved=True))
    reference = f"{found.code}@{version.version}"
    return replace(found, version=version.version, reference=reference, row_id=version.definition_id)


def _chosen(ctx: Context, wanted: str, version: str | None) -> tuple[CampaignDefinition, Definition]:
    row = ctx.session.get(CampaignDefinition, (ctx.tenant_id, parse_id(str(wanted), "definition")))
    if row is None:
        raise ValidationError.at("definition_id", "not_found", "There is no such definition.")
    if not row.active:
        raise ValidationError.at("definition_id", "not_active", f"{row.code} is deactivated: activate it first.")
    number = version or row.version
    if number is None:
        raise ValidationError.at("definition_id", "not_published", f"{row.code} has no version yet: publish it first.")
    found = _version(ctx, row.id, number)
    if found is None:
        known = ", ".join(each.version for each in versions_of(ctx, row.id)[:10]) or "none"
        raise ValidationError.at(
            "definition_version", "not_found", f"{row.code} has no version {number!a}; published are: {known}."
        )
    return row, _pinned(ctx, found)


def given_fields(
    ctx: Context, definition: Definition, data: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """The campaign's own fields, as far as the definition and the data say them; what is not here is a problem."""
    fields: dict[str, Any] = {"name": definition.title, "message_class": definition.message_class}
    uses = [each for each in definition.channels if each.enabled]
    use = uses[0] if uses else None
    together = [each for each in uses if each.template is not None]
    if use is not None:
        fields["channel"] = use.name
    segment = data.get("target_segment") or definition.segment
    if isinstance(segment, Mapping):
        fields["segment_id"] = _own_segment(ctx, definition, segment)
    elif segment is not None:
        fields["segment_id"] = _by_name(ctx, Segment, segment, "target_segment", problems)
    template = definition.template or (use.template if use is not None else None)
    if len(together) > 1:
        fields.pop("channel", None)
        fields["channels"] = {
            each.name: {"template_id": _own_template(ctx, each.name, str(each.template), problems)} for each in together
        }
    elif template is not None:
        fields["template_id"] = _by_name(ctx, Template, template, "template", problems)
    if data.get("budget") is not None and data.get("currency") is not None:
        fields |= {"budget": data["budget"], "currency": data["currency"]}
    return fields


def _own_template(ctx: Context, channel: str, name: str, problems: list[Problem]) -> str | None:
    found = _by_name(ctx, Template, name, f"channels.{channel}.template", problems)
    return None if found is None else str(found)


def _by_name(
    ctx: Context, model: type[Segment] | type[Template], name: str, path: str, problems: list[Problem]
) -> int | None:
    found = ctx.session.scalars(select(model.id).where(model.name == name)).first()
    if found is None:
        noun = model.__name__.lower()
        problems.append(Problem(path, "not_found", f"There is no {noun} named {name!a}: create it first."))
    return found


def _own_segment(ctx: Context, definition: Definition, conditions: Mapping[str, Any]) -> int:
    """The segment of an audience that is spelled out: one per rule, made when first needed.

    Its name ends in a digest of the rule: another rule is another audience, whatever it is called.
    """
    digest = sha256(orjson.dumps(conditions, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    name = f"{definition.code[:150]} {digest}"
    found = ctx.session.scalars(select(Segment.id).where(Segment.name == name)).first()
    if found is None:
        found = create_segment(ctx, {"name": name, "kind": "dynamic", "conditions": dict(conditions)}).id
    return found


def _document(data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data["schema"], Mapping):
        raise ValidationError.at("schema", "wrong_type", "A definition is an object with id and name.")
    return canonical(data["schema"], "schema")


def _next_version(ctx: Context, definition: CampaignDefinition) -> str:
    """Of a document that names none: the number after the last, or the last where nothing changed since."""
    published_ones = versions_of(ctx, definition.id)
    if published_ones and published_ones[0].schema == definition.schema:
        return published_ones[0].version
    return str(len(published_ones) + 1)


def _version(ctx: Context, definition_id: int, version: str) -> DefinitionVersion | None:
    statement = select(DefinitionVersion).where(
        DefinitionVersion.definition_id == definition_id, DefinitionVersion.version == version
    )
    return ctx.session.scalars(statement).first()


def _touch(ctx: Context, definition: CampaignDefinition) -> None:
    definition.revision += 1
    definition.updated_at = ctx.now
    ctx.session.flush()
