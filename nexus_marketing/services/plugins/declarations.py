"""The table ``[plugins]`` of ``tenant.toml``: a plugin's settings switch it on, ``false`` switches it off."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nexus_marketing.core.errors import NexusError, Problem, ValidationError
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.plugins.enabling import declared_problems, find_plugin, switch_off, switch_on

#: By plugin: its settings, or nothing where it is to be off.
Declared = Mapping[str, Mapping[str, Any] | None]


def read_plugins(table: Mapping[str, object]) -> Declared:
    """The form of the table; what the settings mean is each plugin's.

    Raises:
        ValidationError: every value that is neither a table, ``true`` nor ``false``.
    """
    said = "write a table of settings, true or false."
    problems = [
        Problem(f"plugins.{name}", "wrong_type", f"This says nothing of a plugin: {said}")
        for name, value in table.items()
        if not isinstance(value, Mapping | bool)
    ]
    if problems:
        raise ValidationError(problems=problems)
    return {
        name: value if isinstance(value, Mapping) else {} if value is True else None for name, value in table.items()
    }


def plugin_problems(runtime: Runtime, slug: str, declared: Declared) -> list[Problem]:
    """What is wrong with a tenant's declaration, before anything is changed."""
    problems: list[Problem] = []
    for name, settings in declared.items():
        path = f"{slug}/tenant.toml: plugins.{name}"
        try:
            find_plugin(runtime, name)
            if settings is not None:
                problems += [
                    replace(each, path=f"{path}.{each.path}") for each in declared_problems(runtime, name, settings)
                ]
        except ValidationError as error:
            problems += error.under(path).problems
        except NexusError as error:
            problems.append(Problem(path, error.code, error.message))
    return problems


def apply_plugins(ctx: Context, declared: Declared) -> bool:
    """Make a tenant's plugins what was declared; whether anything changed. Others are left as they are."""
    changed = [
        switch_off(ctx, name) if settings is None else switch_on(ctx, name, settings, keep=False)
        for name, settings in declared.items()
    ]
    return any(changed)
