"""nexus-marketing: headless, multi-tenant marketing automation."""

import os
from typing import TYPE_CHECKING, Any

from nexus_marketing.version import __version__

if TYPE_CHECKING:
    from nexus_marketing.core.home import use_storage
    from nexus_marketing.core.inline import HasMarketing

__all__ = ["HasMarketing", "__version__", "connect", "main", "use_storage"]

#: What they mean is said in ``docs/reference/has-marketing.md``.
_INI, _TENANT = "NEXUS_MARKETING_INI", "NEXUS_MARKETING_TENANT"


def main(global_config: dict[str, str], **settings: str) -> Any:
    """Build the WSGI application for ``pserve`` (paste ``app_factory``).

    Imported lazily, so that ``import nexus_marketing`` costs nothing to a program
    that embeds the library without a server.
    """
    from nexus_marketing.config import make_app  # noqa: PLC0415 - lazy on purpose

    return make_app(global_config, settings)


def connect(ini: str, *, tenant: str) -> Any:
    """Keep the campaigns of this process in the database from now on (Phase 2); nothing else changes.

    The database is opened with the first call that needs it. The same is said without touching the
    program by the environment: ``NEXUS_MARKETING_INI`` and ``NEXUS_MARKETING_TENANT``.

    Args:
        ini: the file that ``pserve`` and ``nexus-marketing`` run on, such as ``development.ini``.
        tenant: the slug of the tenant whose campaigns they are.

    Returns:
        A function that ends it: campaigns are kept where they were kept before.
    """
    from nexus_marketing.core.home import HOME  # noqa: PLC0415 - lazy on purpose

    before = (HOME.storage, HOME.opener)

    def open_it() -> Any:
        from nexus_marketing.config import open_storage  # noqa: PLC0415 - lazy on purpose

        return open_storage(ini, tenant)

    HOME.storage, HOME.opener = None, open_it

    def restore() -> None:
        close = getattr(HOME.storage, "close", None)
        HOME.storage, HOME.opener = before
        if close is not None:
            close()

    return restore


def __getattr__(name: str) -> Any:
    """``HasMarketing`` and ``use_storage`` on first use: a server that has no use for them loads neither."""
    if name == "HasMarketing":
        from nexus_marketing.core.inline import HasMarketing  # noqa: PLC0415 - lazy on purpose

        if os.environ.get(_INI):
            connect(os.environ[_INI], tenant=os.environ.get(_TENANT, "default"))
        globals()[name] = HasMarketing
        return HasMarketing
    if name == "use_storage":
        from nexus_marketing.core.home import use_storage  # noqa: PLC0415 - lazy on purpose

        globals()[name] = use_storage
        return use_storage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
