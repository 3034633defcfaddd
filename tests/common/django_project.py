"""A Django project without files: one database, which each test brings, and models with the ``app_label`` "shop"."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from sqlalchemy import make_url

ALIAS = "default"


class Shop(AppConfig):
    """The application of the tests' models."""

    name = "tests.common"
    label = "shop"


def configure() -> None:
    """Make Django ready for models; once per process, before the first of them."""
    if not settings.configured:
        settings.configure(
            DATABASES={ALIAS: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=[f"{__name__}.{Shop.__name__}"],
            USE_TZ=True,
        )
        django.setup()


def sqlite(path: Any, **options: Any) -> dict[str, Any]:
    """Settings of a database in a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": options}


def postgresql(address: str) -> dict[str, Any]:
    """Settings of a database by its SQLAlchemy URL."""
    url = make_url(address)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.host,
        "PORT": url.port,
    }


@contextmanager
def database(options: dict[str, Any], models: Sequence[Any]) -> Iterator[Any]:
    """Work on this database, with tables for these models; answers the connection."""
    before = connections.settings[ALIAS]
    _turn_to(connections.configure_settings({ALIAS: options})[ALIAS])
    try:
        with connections[ALIAS].schema_editor() as editor:
            for each in models:
                editor.create_model(each)
        yield connections[ALIAS]
    finally:
        _turn_to(before)


def _turn_to(options: dict[str, Any]) -> None:
    connections.close_all()
    connections.settings[ALIAS] = options
    if hasattr(connections._connections, ALIAS):
        del connections[ALIAS]
