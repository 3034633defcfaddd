"""Whether an object keeps a contract, as far as that can be seen without calling it."""

import inspect
from typing import Protocol, get_origin, get_type_hints


def missing_parts(contract: type, thing: object) -> list[str]:
    """What an object lacks of a contract, each as its author would look for it; empty where nothing is missing.

    >>> from nexus_marketing.core.extensions import Heartbeat
    >>> missing_parts(Heartbeat, object())
    ['name', 'answers()']
    """
    found = [_attribute(name, kind, thing) for name, kind in get_type_hints(contract).items()]
    found += [_method(name, method, thing) for name, method in _methods(contract).items()]
    return [fault for fault in found if fault]


def _methods(contract: type) -> dict[str, object]:
    kinds = [
        each for each in reversed(contract.__mro__) if each not in (Protocol, object) and each.__name__ != "Generic"
    ]
    return {
        name: value
        for kind in kinds
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def _attribute(name: str, kind: object, thing: object) -> str:
    if not hasattr(thing, name):
        return name
    wanted = get_origin(kind) or kind
    if isinstance(wanted, type) and not isinstance(getattr(thing, name), wanted):
        return f"{name} of type {wanted.__name__}"
    return ""


def _method(name: str, method: object, thing: object) -> str:
    parameters = list(inspect.signature(method).parameters.values())[1:]  # type: ignore[arg-type]
    written = f"{name}({', '.join(each.name for each in parameters)})"
    theirs = getattr(thing, name, None)
    if not callable(theirs):
        return written
    try:
        inspect.signature(theirs).bind(*parameters)
    except TypeError:
        return f"{written}: its {name} takes other arguments"
    except ValueError:  # written in C: nothing can be seen
        return ""
    return ""
