"""Which plugins are installed beside the product: read from their entry points, for people to see (DESIGN.md §6).

Nothing is activated by that: ``nexus.includes`` does. An entry point of the group ``nexus_marketing.plugins`` names
the plugin's manifest: ``echo = nexus_echo:MANIFEST``.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.plugin.manifests import Manifest, check_manifest

GROUP: Final = "nexus_marketing.plugins"


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed plugin; ``fault`` says why it cannot be used, and ``module`` is what ``nexus.includes`` would name."""

    name: str
    module: str
    distribution: str
    manifest: Manifest | None
    fault: str


def installed_plugins(untrusted: Collection[str] = ()) -> Iterator[Installed]:
    """Every plugin that an installed distribution makes known, by name.

    Args:
        untrusted: modules that are not imported here, so that their manifests are not known.
    """
    for each in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        yield _installed(each, untrusted)


def _installed(entry: EntryPoint, untrusted: Collection[str]) -> Installed:
    distribution = "" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
    if entry.module in untrusted:
        return Installed(entry.name, entry.module, distribution, None, "")
    loaded, fault = None, ""
    try:
        loaded = entry.load()
        check_manifest(loaded)
    except ConfigurationError as error:
        fault = error.message
    except Exception as error:  # noqa: BLE001 - isolation boundary: one that cannot be imported is listed as such
        fault = f"It cannot be imported: {type(error).__name__}: {error}"
    manifest = loaded if isinstance(loaded, Manifest) else None
    name = entry.name if manifest is None else manifest.name
    return Installed(name, entry.module, distribution, manifest, fault)
