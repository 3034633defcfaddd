"""Drops the databases of a run on a server that is not ours: the last act of its supervisor."""

import os
import sys

from sqlalchemy.engine import make_url

from tests.common.servers.postgres import URL_VARIABLE, PostgresCluster


def main(prefix: str) -> None:
    """Drop every database whose name starts with the run's prefix."""
    url = make_url(os.environ[URL_VARIABLE]).set(drivername="postgresql+psycopg")
    rendered = url.set(database=url.database or "postgres").render_as_string(hide_password=False)
    PostgresCluster(rendered, {}, prefix, "", URL_VARIABLE).drop_all()


if __name__ == "__main__":
    main(sys.argv[1])
