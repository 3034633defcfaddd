"""``python -m tests.common.servers``: which servers tests would use. ``--start`` runs them until Ctrl-C."""

import argparse
import contextlib
import signal
import sqlite3
import sys

from tests.common.servers import Run, start_postgres, start_redis
from tests.common.servers.versions import postgres_line, redis_line


def main() -> None:
    """Print versions and origins; with ``--start`` also the URLs of running servers."""
    parser = argparse.ArgumentParser(prog="python -m tests.common.servers", description=__doc__)
    parser.add_argument("--start", action="store_true", help="start both, print their URLs, wait for Ctrl-C")
    arguments = parser.parse_args()
    write(f"Python {sys.version.split()[0]}", f"SQLite {sqlite3.sqlite_version}", postgres_line(), redis_line())
    if arguments.start:
        with Run.open(durable=True) as run:
            write(
                f"NEXUS_TEST_POSTGRES_URL={start_postgres(run).dsn()}", f"NEXUS_TEST_REDIS_URL={start_redis(run).url}"
            )
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def write(*lines: str) -> None:
    """Print lines now, also into a pipe."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
