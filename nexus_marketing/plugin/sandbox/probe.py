"""Whether this machine can confine a process: asked by ``doctor`` before anybody needs it."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.sandbox.children import Child, Order


@lru_cache(maxsize=1)
def refusal() -> str:
    """Why no sandboxed plugin can be started here, with the remedy; empty where one can.

    A process goes through every step that a plugin's would, and ends.
    """
    if sys.platform != "linux":
        return "sandboxes need Linux: run plugins that are not trusted there"
    try:
        Child(Order("", {}, 256 << 20, 5.0), ThreadPoolExecutor).kill()
    except PluginFailed as error:
        return error.message
    return ""
