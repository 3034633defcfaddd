"""The two halves of an in-model configuration: a document as JSON would hold it, and the code beside it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from nexus_marketing.core.definitions.model import Handlers
from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.values import join

_CODE: Final = ("guards", "hooks", "validators")
#: Keys whose Python spelling differs from the document's.
_SPELLINGS: Final = {"data_schema": "dataSchema"}


def split(config: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], Handlers]:
    """Part a campaign's configuration.

    Args:
        config: keys of a definition, and ``guards`` (by action: a callable, a condition or a list of them),
            ``hooks`` (``before_launch``, ``after_pause``, …: a callable, the name of a method of the subject, or
            a list), ``validators`` (a callable of the data, a list, or a mapping from field to them).
        path: where it lies, for error paths.

    Returns:
        The document, guards spelled as conditions included, and the callables.

    Raises:
        ValidationError: a guard, hook or validator is of another type, or a hook's name says neither
            before nor after.
    """
    document = {_SPELLINGS.get(key, key): value for key, value in config.items() if key not in _CODE}
    problems: list[Problem] = []
    guards: dict[str, tuple[Any, ...]] = {}
    for action, declared in _members(config, "guards", path, problems):
        both = tuple(_each(declared))
        guards[action] = tuple(each for each in both if callable(each))
        rules = [each for each in both if not callable(each)]
        if rules:
            document.setdefault("guards", {})[action] = rules
    hooks = {}
    for moment, declared in _members(config, "hooks", path, problems):
        hooks[moment] = tuple(_each(declared))
        where = join(join(path, "hooks"), moment)
        if not moment.startswith(("before_", "after_")):
            problems.append(
                Problem(where, "unknown_hook", f"{moment!a} is no moment: write before_ or after_ and a move.")
            )
        problems += [
            Problem(where, "wrong_type", "A hook is a callable or the name of a method of the object.")
            for each in hooks[moment]
            if not (callable(each) or isinstance(each, str))
        ]
    validators = _validators(config.get("validators"), join(path, "validators"), problems)
    if problems:
        raise ValidationError(problems=problems)
    return document, Handlers(guards, hooks, validators)


def check_moments(handlers: Handlers, actions: Iterable[str], path: str = "") -> list[Problem]:
    """Hooks and guards of moves that the definition does not have."""
    known = set(actions)
    moments = {f"{when}_{action}" for action in known for when in ("before", "after")}
    found = [
        Problem(
            join(join(path, "hooks"), name), "unknown_hook", f"No move has the moment {name!a}{hint(name, moments)}."
        )
        for name in handlers.hooks
        if name not in moments
    ]
    found += [
        Problem(join(join(path, "guards"), name), "unknown_action", f"There is no move {name!a}{hint(name, known)}.")
        for name in handlers.guards
        if name not in known
    ]
    return found


def _members(config: Mapping[str, Any], key: str, path: str, problems: list[Problem]) -> Iterable[tuple[str, Any]]:
    declared = config.get(key) or {}
    if isinstance(declared, Mapping):
        return [(str(name), value) for name, value in declared.items()]
    problems.append(Problem(join(path, key), "wrong_type", f"{key} are a mapping by move, such as launch."))
    return []


def _each(declared: Any) -> Iterable[Any]:
    return declared if isinstance(declared, (list, tuple)) else (declared,)


def _validators(declared: Any, path: str, problems: list[Problem]) -> Mapping[str, tuple[Callable[..., object], ...]]:
    by_field = declared if isinstance(declared, Mapping) else {"": declared} if declared else {}
    found = {str(name): tuple(_each(each)) for name, each in by_field.items()}
    problems += [
        Problem(join(path, name) if name else path, "wrong_type", "A validator is a callable.")
        for name, each in found.items()
        if not all(map(callable, each))
    ]
    return found
