"""Databases at the schema of the models: migrated once per run, then copied."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus_marketing.db.engines import DatabaseSettings, Engines, build_engines
from nexus_marketing.db.roles import APP, OWNER, WORKER
from nexus_marketing.db.upgrade import upgrade
from tests.common.servers import PostgresCluster, Run

TEMPLATE = "migrated"


def postgres_settings(cluster: PostgresCluster, database: str) -> DatabaseSettings:
    """The URLs of the three roles for a database of the cluster."""
    return DatabaseSettings(
        app_url=cluster.dsn(APP, database),
        worker_url=cluster.dsn(WORKER, database),
        owner_url=cluster.dsn(OWNER, database),
    )


def sqlite_settings(path: Path) -> DatabaseSettings:
    """The one URL of an SQLite file, three times."""
    url = f"sqlite:///{path}"
    return DatabaseSettings(app_url=url, worker_url=url, owner_url=url)


@contextmanager
def opened(settings: DatabaseSettings) -> Iterator[Engines]:
    """Engines that let go of their database at the end, so that it can be dropped."""
    engines = build_engines(settings)
    try:
        yield engines
    finally:
        engines.dispose()


def postgres_template(cluster: PostgresCluster) -> str:
    """The full name of the migrated template database of this run."""

    def build(database: str) -> None:
        with opened(postgres_settings(cluster, database)) as engines:
            upgrade(engines)

    return cluster.template(TEMPLATE, build)


def postgres_copy(cluster: PostgresCluster, name: str | None = None) -> str:
    """A new database at the current schema; answers its full name."""
    return cluster.create_database(name, template=postgres_template(cluster), owner=OWNER)


def sqlite_copy(run: Run, path: Path) -> Path:
    """A new SQLite file at the current schema, copied from the one migrated for this run."""
    with run.started_once("sqlite") as (folder, facts):
        if not facts:
            run.guard(folder)
            with opened(sqlite_settings(folder / "template.db")) as engines:
                upgrade(engines)
            facts["template"] = str(folder / "template.db")
    shutil.copyfile(facts["template"], path)
    return path
