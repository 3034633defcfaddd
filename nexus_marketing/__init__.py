"""nexus-marketing: headless, multi-tenant marketing automation."""

from typing import Any

from nexus_marketing.version import __version__

__all__ = ["__version__", "main"]


def main(global_config: dict[str, str], **settings: str) -> Any:
    """Build the WSGI application for ``pserve`` (paste ``app_factory``).

    Imported lazily, so that ``import nexus_marketing`` costs nothing to a program
    that embeds the library without a server.
    """
    from nexus_marketing.config import make_app  # noqa: PLC0415 - lazy on purpose

    return make_app(global_config, settings)
