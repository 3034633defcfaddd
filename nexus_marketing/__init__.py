"""nexus-marketing: headless, multi-tenant marketing automation."""

import os
from typing import TYPE_CHECKING, Any

from nexus_marketing.version import __version__

if TYPE_CHECKING:
    from nexus_marketing.core.home import connect, use_storage
    from nexus_marketing.core.mixin import HasMarketing

__all__ = ["HasMarketing", "__version__", "connect", "main", "use_storage"]


def main(global_config: dict[str, str], **settings: str) -> Any:
    """Build the WSGI application for ``pserve`` (paste ``app_factory``).

    Imported lazily, so that ``import nexus_marketing`` costs nothing to a program
    that embeds the library without a server.
    """
    from nexus_marketing.config import make_app  # noqa: PLC0415 - lazy on purpose

    return make_app(global_config, settings)


def __getattr__(name: str) -> Any:
    """What an embedding program uses, on first use: a server that has no use for it does not load it."""
    if name == "HasMarketing":
        from nexus_marketing.core.mixin import HasMarketing  # noqa: PLC0415 - lazy on purpose

        if os.environ.get("NEXUS_MARKETING_INI") or os.environ.get("NEXUS_MARKETING_TENANT"):
            from nexus_marketing.core.home import connect_by_environment  # noqa: PLC0415 - only where it is asked for

            connect_by_environment()
        globals()[name] = HasMarketing
    elif name in {"connect", "use_storage"}:
        from nexus_marketing.core import home  # noqa: PLC0415 - lazy on purpose

        globals()[name] = getattr(home, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]
