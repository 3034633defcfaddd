"""What an object declares: its ``marketing_config`` read, each campaign understood once per process."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from nexus_marketing.core.definitions import Definition, Handlers, parse_definition, split
from nexus_marketing.core.definitions.handlers import check_moments
from nexus_marketing.core.errors import ConfigurationError, ValidationError, hint

_PATH: Final = "marketing_config.campaigns"
_KEPT: Final = 1_024
#: Definitions by name and document: an edited configuration is another entry, an unchanged one costs a look-up.
_definitions: dict[tuple[Any, ...], Definition] = {}


def declared_campaigns(subject: Any) -> Mapping[str, Any]:
    """The declarations of an object by name, as they are at this moment.

    Raises:
        ConfigurationError: the object declares nothing.
        ValidationError: what it declares has another form.
    """
    config = subject.marketing_config
    if callable(config):
        config = config()
    if config is None:
        raise ConfigurationError(
            f"{type(subject).__name__} declares no campaigns: define marketing_config, a mapping such as "
            '{"campaigns": {"launch": {"channels": ["email"]}}}.'
        )
    if not isinstance(config, Mapping) or not isinstance(config.get("campaigns"), Mapping):
        raise ValidationError.at("marketing_config", "wrong_type", 'This must be a mapping {"campaigns": {name: {…}}}.')
    unknown = [key for key in config if key != "campaigns"]
    if unknown:
        path = f"marketing_config.{unknown[0]}"
        raise ValidationError.at(
            path, "unknown_field", f"There is no key {unknown[0]!a}{hint(str(unknown[0]), ['campaigns'])}."
        )
    campaigns: Mapping[str, Any] = config["campaigns"]
    return campaigns


def the_only(declared: Mapping[str, Any]) -> str:
    """The name that may be left out, because there is one.

    Raises:
        ValidationError: there is none, or more than one.
    """
    if len(declared) == 1:
        return str(next(iter(declared)))
    names = ", ".join(sorted(map(str, declared))) or "none"
    raise ValidationError.at("name", "required", f"Say which campaign; declared are: {names}.")


def understood(name: str, config: Any) -> tuple[Definition, Handlers]:
    """A declaration as a definition, and the code beside it.

    Raises:
        ValidationError: every fault, with its path from ``marketing_config`` on.
    """
    path = f"{_PATH}.{name}"
    if not isinstance(config, Mapping):
        raise ValidationError.at(path, "wrong_type", "A campaign is declared by a mapping.")
    document, handlers = split(config, path)
    cached = (name, repr(document), tuple(handlers.hooks), tuple(handlers.guards))
    definition = _definitions.get(cached)
    if definition is None:
        definition = parse_definition(document, code=name, path=path)
        problems = check_moments(handlers, definition.transitions, path)
        if problems:
            raise ValidationError(problems=problems)
        if len(_definitions) >= _KEPT:
            _definitions.clear()
        _definitions[cached] = definition
    return definition, handlers


def refuse_unknown(name: str, declared: Mapping[str, Any]) -> NoReturn:
    """There is no campaign of this name.

    Raises:
        ValidationError: names the nearest one.
    """
    known = hint(name, declared) if declared else ": declare it in marketing_config"
    raise ValidationError.at("name", "unknown_campaign", f"There is no campaign {name!a}{known}.")
