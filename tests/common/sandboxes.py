"""Sandboxed plugins for tests: written into a folder that is on the import path, and started as a deployment does."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.config import rehearse
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.sandbox.probe import refusal

#: Starts a plugin whose module holds this text; further lines of the ini file follow.
Start = Callable[..., PluginRegistry]

needs_namespaces = pytest.mark.skipif(bool(refusal()), reason=f"no sandbox here: {refusal()}")


@contextmanager
def sandboxes(folder: Path) -> Iterator[Start]:
    """Sandboxed plugins that end with the block."""
    started: list[PluginRegistry] = []
    sys.path.insert(0, str(folder))

    def start(source: str, module: str = "nexus_strange", **lines: Any) -> PluginRegistry:
        (folder / f"{module}.py").write_text(source)
        keys = {name: str(value) for name, value in lines.items()}
        started.append(rehearse({"nexus.plugins.untrusted": module, **keys}, module))
        return started[-1]

    try:
        yield start
    finally:
        sys.path.remove(str(folder))
        for each in started:
            each.close()
